"""Counts of what a run changed."""

import jax.numpy as jnp
import numpy as np

from smft_jax.runs import results


def test_changed_numbers_are_counted_beyond_int32(monkeypatch):
  differing = jnp.array([[True, False], [False, True], [True, False]])
  assert results._num_true(differing) == 3
  assert results._num_true(differing[0, 0]) == 1
  # As if each row had 2**30 of them.
  monkeypatch.setattr(
    results.layout_lib,
    'to_numpy',
    lambda sums: np.asarray(sums) * np.int32(2**30),
  )
  assert results._num_true(differing) == 3 * 2**30
