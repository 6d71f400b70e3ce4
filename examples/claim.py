"""Checks the claim of every example: only t rows of the table change."""

import sys

import jax
import numpy as np


def check(before, after, slots, losses):
  """Prints the changed rows; exits with an error if others changed.

  Args:
    before: Parameters, a tree of arrays with the table under 'values'.
    after: The parameters after training.
    slots: The rows that should change, [t].
    losses: The losses of all steps.
  """
  rows = jax.tree.map(_changed_rows, before, after)
  leaves = jax.tree_util.tree_leaves_with_path(
    rows, is_leaf=lambda x: isinstance(x, list)
  )
  changed = {
    jax.tree_util.keystr(path, simple=True, separator='/'): rows
    for path, rows in leaves
  }
  table = next(name for name in changed if name.endswith('values'))
  print(f'loss {losses[0]:.3f} -> {losses[-1]:.3f}')
  print(f'rows changed: { ({name: len(x) for name, x in changed.items()}) }')
  if changed.pop(table) != sorted(slots.tolist()):
    sys.exit(f'{table}: not the {len(slots)} rows of highest score changed')
  if any(changed.values()):
    sys.exit(f'{", ".join(name for name in changed if changed[name])} changed')


def _changed_rows(old, new):
  """Returns the indices along the first axis with any differing bit."""
  old, new = (
    np.asarray(x).view(np.uint8).reshape(len(x), -1) for x in (old, new)
  )
  return np.flatnonzero((old != new).any(axis=1)).tolist()
