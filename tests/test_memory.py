"""The memory layer against a plain float64 reading of its definition.

Its gradients are in test_memory_gradients.py.
"""

import warnings

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import memory
from tests.support import memory_layers as layers

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.mark.parametrize(
  ('qk_norm', 'lead'), [(True, (2, 13)), (False, (2, 13)), (True, ())]
)
def test_equals_the_plain_definition(qk_norm, lead):
  layer = layers.make_layer(qk_norm=qk_norm)
  assert hasattr(layer, 'query_scale') == qk_norm
  x = layers.inputs(*lead, layers.SIZES['model_dim'])
  y, slot_ids, weights = layers.jitted(layer, x)

  p = layers.parameters(layer)
  flat = np.asarray(x, np.float64).reshape(-1, layers.SIZES['model_dim'])
  expected = [layers.reference(p, token, layers.SIZES['k']) for token in flat]
  accesses = layers.SIZES['num_heads'] * layers.SIZES['k']
  assert y.shape == x.shape
  assert y.dtype == jnp.float32
  assert slot_ids.shape == weights.shape == (*lead, accesses)
  assert slot_ids.dtype == jnp.int32
  assert weights.dtype == jnp.float32
  np.testing.assert_array_equal(
    slot_ids.reshape(-1, accesses),
    np.stack([ids for _, ids, _ in expected]).reshape(-1, accesses),
  )
  np.testing.assert_allclose(
    weights.reshape(-1, accesses),
    np.stack([w for _, _, w in expected]).reshape(-1, accesses),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    y.reshape(flat.shape),
    np.stack([out for out, _, _ in expected]),
    rtol=1e-4,
    atol=1e-6,
  )


def test_qk_norm_makes_the_search_independent_of_scale():
  x = layers.inputs(2, 13, layers.SIZES['model_dim'])
  for qk_norm in (True, False):
    layer = layers.make_layer(qk_norm=qk_norm)
    _, slot_ids, weights = layers.jitted(layer, x)
    layer.query[...] *= 64.0
    layer.subkeys[...] *= 64.0
    _, scaled_ids, scaled_weights = layers.jitted(layer, x)
    np.testing.assert_array_equal(scaled_ids, slot_ids)
    assert np.allclose(scaled_weights, weights, atol=1e-3) == qk_norm


def test_slots_and_weights_are_distinct_per_head_and_best_first():
  layer = layers.make_layer(k=7)  # the largest
  _, slot_ids, weights = layers.jitted(
    layer, layers.inputs(31, layers.SIZES['model_dim'])
  )
  slot_ids = np.asarray(slot_ids).reshape(31, 3, 7)
  weights = np.asarray(weights).reshape(31, 3, 7)
  np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
  assert (np.diff(weights, axis=-1) <= 0).all()
  assert (np.diff(np.sort(slot_ids, axis=-1), axis=-1) > 0).all()
  assert slot_ids.min() >= 0
  assert slot_ids.max() < 49
  # Sub-keys are a head's own: the heads do not read the same slots.
  assert (slot_ids[:, 0] != slot_ids[:, 1]).any()


def test_a_shared_pool_reads_like_an_own_table():
  own = layers.make_layer()
  shared = layers.make_layer(own_values=False)
  assert not nnx.state(shared, memory.MemoryValue)
  state = nnx.state(own, nnx.Param)
  pool = state.pop('values')[...]
  nnx.update(shared, state)
  x = layers.inputs(2, 13, layers.SIZES['model_dim'])
  for a, b in zip(
    layers.jitted(shared, x, pool), layers.jitted(own, x), strict=True
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('own_values', [True, False])
def test_two_tables_or_none_are_refused(own_values):
  layer = layers.make_layer(own_values=own_values)
  pool = layers.inputs(49, 5) if own_values else None
  with pytest.raises(ValueError, match='exactly one'):
    layer(layers.inputs(layers.SIZES['model_dim']), pool)


def test_a_call_does_not_change_the_layer():
  # A foreign trainer calls `self.mlp(x)` and captures nothing: no warning
  # (which would be an error here), and no Variable that grows with each call.
  layer = layers.make_layer()
  x = layers.inputs(2, 13, layers.SIZES['model_dim'])
  before = nnx.split(layer)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    plain = layer(x)
    captured, slot_ids, weights = layers.capture_all(layer, x)
  after = nnx.split(layer)
  np.testing.assert_array_equal(plain, captured)
  compiled = layers.jitted(layer, x)
  np.testing.assert_allclose(compiled[0], plain, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(compiled[1], slot_ids)
  np.testing.assert_allclose(compiled[2], weights, rtol=1e-5)
  assert after[0] == before[0]
  assert set(after[1]) == set(before[1])


@pytest.mark.parametrize('stored', ['bfloat16', 'float32'])
def test_a_layer_computes_in_the_dtype_of_its_input(stored):
  layer = layers.make_layer(param_dtype=stored, value_dtype=stored)
  x = layers.inputs(2, 13, layers.SIZES['model_dim'], dtype=jnp.bfloat16)
  y, _, weights = layers.jitted(layer, x)
  assert y.dtype == jnp.bfloat16
  assert weights.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {
    jnp.dtype(stored)
  }
  # A softmax computed in bfloat16 and cast would be off by up to 0.4%.
  sums = np.asarray(weights).reshape(26, 3, 2).sum(-1)
  np.testing.assert_allclose(sums, 1.0, rtol=1e-6)


def test_a_layer_that_shares_a_pool_has_no_carrier_of_its_own():
  layer = layers.make_layer(count_carrier=True, own_values=False)
  assert not hasattr(layer, 'access_counts')


def test_initial_scales():
  config = memory.MemoryConfig(
    model_dim=101, num_slots=10_000, value_dim=29, num_heads=3, k=2, key_dim=14
  )
  layer = nnx.jit(lambda: memory.ProductKeyMemory(config, rngs=nnx.Rngs(0)))()
  bound = 14**-0.5
  subkeys = np.asarray(layer.subkeys[...])
  assert 0.95 * bound < np.abs(subkeys).max() <= bound
  assert abs(subkeys.mean()) < 0.05 * bound
  for found, deviation in (
    (layer.values, 29**-0.5),
    (layer.gate, 29**-0.5),
    (layer.out, 101**-0.5),
  ):
    np.testing.assert_allclose(np.std(found[...]), deviation, rtol=0.05)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_slots': 50}, r'num_slots .* 50; the nearest are 49 and 64'),
    ({'num_slots': 48}, r'num_slots .* 48; the nearest are 36 and 49'),
    ({'k': 8}, r'k must be at most .* 7, got 8: .* num_slots to 64'),
    ({'key_dim': 7}, r'key_dim must be even, .* 7; take 8'),
    ({'value_dim': -1}, r'value_dim must be at least 0, not -1'),
    ({'quorum': 1.0}, r'quorum must be at least 0 and below 1, got 1.0'),
    ({'gated': False}, r'value_dim must be \d+ like model_dim, got'),
    ({'num_slots': -4}, r'num_slots must be at least 1, not -4'),
  ],
)
def test_bad_sizes_are_refused_in_one_line(changes, message):
  with pytest.raises(ValueError, match=message) as caught:
    memory.MemoryConfig(**(layers.SIZES | changes))
  assert '\n' not in str(caught.value)


def test_what_decides_which_slots_are_read_is_computed_at_full_precision():
  layer = layers.make_layer()
  graphdef, params = nnx.split(layer)

  def search(params, x):
    return nnx.merge(graphdef, params).search(x)

  x = layers.inputs(2, 13, layers.SIZES['model_dim'])
  program = jax.jit(search).lower(params, x).as_text()
  products = [line for line in program.splitlines() if 'dot_general' in line]
  assert len(products) >= 2  # queries, half scores
  assert all('precision = [HIGHEST, HIGHEST]' in line for line in products)
