"""Small value tables and lessons."""

import jax.numpy as jnp
import numpy as np

from smft_jax import lesson as lesson_lib

N, V = 101, 7


def table(seed=0, dtype=np.float32, num_slots=N, value_dim=V):
  random = np.random.default_rng(seed)
  return jnp.asarray(random.standard_normal((num_slots, value_dim)), dtype)


def make(slots, seed=1, dtype=np.float32, values=None):
  """A lesson of random rows on `table()`."""
  values = table(dtype=dtype) if values is None else values
  rows = table(seed, values.dtype, len(slots), values.shape[1])
  changed = values.at[np.array(slots, np.int32)].set(rows)
  return lesson_lib.difference(
    values, changed, table='pool', base='ab', runs=[{'steps': seed}]
  )
