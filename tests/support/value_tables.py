"""Small value tables, updates of them, and what changed: for several tests."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import counting
from smft_jax import ranking

N, V, T = 23, 5, 7


def lenient(inner):
  """Runs foreign code that mixes dtypes, as optax's Adam does, leniently."""
  inner = optax.with_extra_args_support(inner)

  def update(*args, **kwargs):
    with jax.numpy_dtype_promotion('standard'):
      return inner.update(*args, **kwargs)

  return optax.GradientTransformationExtraArgs(inner.init, update)


INNER = {
  'sgd': optax.sgd(0.5),
  'momentum': optax.sgd(0.5, momentum=0.9),
  'adam': optax.adam(0.1),
  'adamw': optax.adamw(0.1, weight_decay=0.1),
  'clipped': optax.chain(
    optax.add_decayed_weights(0.1),
    optax.clip_by_global_norm(1.0),
    optax.sgd(0.5),
  ),
}
# Every optimizer, and in bfloat16 those that add up in several ways.
inner_and_dtype = pytest.mark.parametrize(
  ('name', 'dtype'),
  [(name, jnp.float32) for name in INNER]
  + [(name, jnp.bfloat16) for name in ('momentum', 'adamw', 'clipped')],
)


def table(dtype=jnp.float32, seed=0):
  table = np.random.default_rng(seed).normal(size=(N, V))
  # x + 0.0 is not x for x = -0.0: the usual way to lose bits.
  table[:, 0] = -0.0
  return jnp.asarray(table, dtype)


def gradient(seed=1, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(N, V)), dtype)


def scores(slots):
  """Scores by which exactly `slots` are selected."""
  return jnp.asarray(np.isin(np.arange(N), slots), jnp.float32)


def bits(array):
  return np.asarray(array).view(np.uint8).reshape(len(array), -1)


def changed(old, new):
  """Indices of the rows of which any bit differs."""
  return np.flatnonzero(np.any(bits(old) != bits(new), axis=1)).tolist()


def step(optimizer):
  @jax.jit
  def step(params, state, gradients, **extra):
    updates, state = optimizer.update(gradients, state, params, **extra)
    return optax.apply_updates(params, updates), state

  return step


def accesses(step):
  random = np.random.default_rng(step)
  slot_ids = jnp.asarray(random.integers(0, N, (3, 11, 4)), jnp.int32)
  weights = jnp.asarray(random.uniform(size=(3, 11, 4)), jnp.float32)
  targets = jnp.asarray(random.normal(size=(3, 11, V)), jnp.float32)
  return slot_ids, weights, targets, jnp.asarray(random.random((3, 11)) < 0.7)


def loss(reads, targets, mask):
  return jnp.sum(jnp.where(mask[..., None], (reads - targets) ** 2, 0))


FREQUENCY = jnp.arange(N, dtype=jnp.float32) % 7


@jax.jit
def slot_scores(slot_ids, mask):
  counts = ranking.count_accesses(slot_ids, N, mask)
  return ranking.tf_idf(counts, FREQUENCY, 7)


def params():
  """A table with its carrier, and leaves that must not change."""
  return {
    'memory': {
      'values': table(),
      'access_counts': jnp.full((3, N), -0.0),
    },
    'head': jnp.full((V,), -0.0).at[0].set(1.0),
    'positions': jnp.ones((N, V)),
  }


def carried(counts):
  return counting.make_carrier(N).at[0].set(counts * counting.COUNT_SCALE)


def one_step(optimizer, params, gradients):
  return step(optimizer)(params, optimizer.init(params), gradients)[0]
