"""Archives of arrays, as `numpy.savez` writes them."""

from __future__ import annotations

import zipfile

DAMAGE = (
  OSError,
  KeyError,
  ValueError,
  EOFError,
  RuntimeError,
  zipfile.BadZipFile,
)
"""Errors of reading a damaged archive, or one that lacks an array."""
