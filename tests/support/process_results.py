"""What runs of several processes left."""

import json
import pathlib


def results_of(workdir: pathlib.Path) -> dict:
  return json.loads((workdir / 'results.json').read_text())


def succeeded(ended) -> None:
  assert [code for code, _ in ended] == [0] * len(ended), ended
