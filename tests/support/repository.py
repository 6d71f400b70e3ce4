"""Where the repository lies, for tests of its files."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
