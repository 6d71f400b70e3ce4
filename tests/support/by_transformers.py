"""Runs exported folders in a process that has torch, but not this project."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np

from tests.support import repository

SCRIPT = repository.ROOT / 'tests' / 'hf' / 'by_transformers.py'


def interpreter():
  """An interpreter with torch and transformers; None if there is none."""
  if 'SMFT_TORCH_PYTHON' in os.environ:
    return os.environ['SMFT_TORCH_PYTHON']
  needed = ('torch', 'transformers')
  return sys.executable if all(map(importlib.util.find_spec, needed)) else None


def run(folder: pathlib.Path, place: pathlib.Path, tokens, mask, count):
  """Returns what `SCRIPT` writes; a folder saved again is place / 'again'."""
  prompts, out = place / 'prompts.npz', place / 'out.npz'
  np.savez(prompts, tokens=tokens, mask=mask, count=count)
  done = subprocess.run(
    [interpreter(), '-I', SCRIPT, folder, prompts, out, place / 'again'],
    # Where `transformers` copies the code that it runs.
    env=os.environ | {'HF_HOME': str(place / 'home')},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  with np.load(out) as arrays:
    return dict(arrays)
