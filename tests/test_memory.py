"""The memory layer against its definition in plain float64 numpy."""

import dataclasses
import functools
import math
import warnings

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import counting
from smft_jax import lookup
from smft_jax import memory
from smft_jax import ranking

pytestmark = pytest.mark.usefixtures('quick_compilation')

# N = 49 slots of 7 sub-keys per half. All sizes differ, so that no axis can be
# mistaken for another.
SIZES = {
  'model_dim': 11,
  'num_slots': 49,
  'value_dim': 5,
  'num_heads': 3,
  'k': 2,
  'key_dim': 6,
}


def make_layer(seed=0, own_values=True, **changes):
  """Makes a layer of random numbers; initial scales of 1 would hide bugs."""
  config = memory.MemoryConfig(**(SIZES | changes))
  graphdef, shapes = nnx.split(
    nnx.eval_shape(
      lambda: memory.ProductKeyMemory(
        config, rngs=nnx.Rngs(0), own_values=own_values
      )
    )
  )
  random = np.random.default_rng(seed)

  def fill(shape):
    numbers = random.uniform(0.3, 1.2, shape.shape)
    signs = random.choice([-1.0, 1.0], shape.shape)
    return jnp.asarray(numbers * signs, shape.dtype)

  return nnx.merge(graphdef, jax.tree.map(fill, shapes))


def inputs(*shape, seed=1, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def parameters(layer):
  """The layer's arrays in float64, by name."""
  state = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
  return {name: np.asarray(value, np.float64) for name, value in state.items()}


def unit(x):
  return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + 1e-6)


def reference(p, x, k):
  """PAPER section 2 for one token x [D], scoring all N slots.

  Returns the output [D], slot ids [H, k] and weights [H, k], best first.
  """
  heads, _, n, half = p['subkeys'].shape
  read = np.zeros(p['values'].shape[1])
  all_ids, all_weights = [], []
  for head in range(heads):
    query = (p['query'][:, head].T @ x).reshape(2, half)
    subkeys = p['subkeys'][head]
    if 'query_scale' in p:
      query = unit(query) * p['query_scale'][head]
      subkeys = unit(subkeys) / math.sqrt(half)
    scores = np.empty(n * n)
    for first in range(n):
      for second in range(n):
        scores[first * n + second] = (
          query[0] @ subkeys[0, first] + query[1] @ subkeys[1, second]
        )
    ids = np.argsort(-scores)[:k]
    weights = np.exp(scores[ids]) / np.sum(np.exp(scores[ids]))
    read += weights @ p['values'][ids]
    all_ids.append(ids)
    all_weights.append(weights)
  gate = x @ p['gate']
  out = (read * gate / (1 + np.exp(-gate))) @ p['out']
  return out, np.array(all_ids), np.array(all_weights)


def capture_all(layer, *args):
  """Output, slot ids and weights of one call."""
  y, ids, weights = nnx.capture(layer, memory.SlotIds, memory.SlotWeights)(
    *args
  )
  return y, ids['slot_ids'][0], weights['slot_weights'][0]


@functools.partial(jax.jit, static_argnums=0)
def forward(graphdef, params, *args):
  return capture_all(nnx.merge(graphdef, params, copy=True), *args)


def jitted(layer, *args):
  return forward(*nnx.split(layer), *args)


def assert_close(state, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    nnx.to_pure_dict(state),
    nnx.to_pure_dict(expected),
  )


def sum_of_squares(layer, x):
  return jnp.sum(jnp.square(layer(x)))


def table_gradient(layer, x):
  """Gradient of the sum of squares of the output for the value table."""
  of_table = nnx.DiffState(0, memory.MemoryValue)
  return nnx.jit(nnx.grad(sum_of_squares, argnums=of_table))(layer, x)


@pytest.mark.parametrize(
  ('qk_norm', 'lead'), [(True, (2, 13)), (False, (2, 13)), (True, ())]
)
def test_equals_the_plain_definition(qk_norm, lead):
  layer = make_layer(qk_norm=qk_norm)
  assert hasattr(layer, 'query_scale') == qk_norm
  x = inputs(*lead, SIZES['model_dim'])
  y, slot_ids, weights = jitted(layer, x)

  p = parameters(layer)
  flat = np.asarray(x, np.float64).reshape(-1, SIZES['model_dim'])
  expected = [reference(p, token, SIZES['k']) for token in flat]
  accesses = SIZES['num_heads'] * SIZES['k']
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


@pytest.mark.parametrize('qk_norm', [True, False])
def test_gradients_equal_differences_of_the_plain_definition(qk_norm):
  layer = make_layer(qk_norm=qk_norm)
  x = inputs(5, SIZES['model_dim'])
  cotangent = inputs(5, SIZES['model_dim'], seed=2)

  def loss(layer):
    return jnp.sum(layer(x) * cotangent)

  grads = nnx.to_pure_dict(nnx.jit(nnx.grad(loss))(layer))
  p = parameters(layer)
  assert set(grads) == set(p)

  def plain_loss(p):
    rows = [reference(p, np.asarray(t, np.float64), SIZES['k'])[0] for t in x]
    return np.sum(np.stack(rows) * np.asarray(cotangent, np.float64))

  random = np.random.default_rng(3)
  for name, gradient in grads.items():
    direction = random.normal(size=gradient.shape)
    eps = 1e-5  # small enough that no slot changes
    ends = [
      plain_loss(p | {name: p[name] + sign * eps * direction})
      for sign in (1, -1)
    ]
    expected = (ends[0] - ends[1]) / (2 * eps)
    assert abs(expected) > 1e-3, name
    np.testing.assert_allclose(
      np.sum(gradient * direction), expected, rtol=1e-3, err_msg=name
    )


def test_qk_norm_makes_the_search_independent_of_scale():
  x = inputs(17, SIZES['model_dim'])
  for qk_norm in (True, False):
    layer = make_layer(qk_norm=qk_norm)
    _, slot_ids, weights = jitted(layer, x)
    layer.query[...] *= 64.0
    layer.subkeys[...] *= 64.0
    _, scaled_ids, scaled_weights = jitted(layer, x)
    np.testing.assert_array_equal(scaled_ids, slot_ids)
    assert np.allclose(scaled_weights, weights, atol=1e-3) == qk_norm


def test_slots_and_weights_are_distinct_per_head_and_best_first():
  layer = make_layer(k=7)  # the largest
  _, slot_ids, weights = jitted(layer, inputs(31, SIZES['model_dim']))
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
  own = make_layer()
  shared = make_layer(own_values=False)
  assert not nnx.state(shared, memory.MemoryValue)
  state = nnx.state(own, nnx.Param)
  pool = state.pop('values')[...]
  nnx.update(shared, state)
  x = inputs(2, 13, SIZES['model_dim'])
  for a, b in zip(jitted(shared, x, pool), jitted(own, x), strict=True):
    np.testing.assert_array_equal(a, b)


def test_two_layers_sum_their_gradients_in_the_shared_pool():
  first = nnx.split(make_layer(seed=0, own_values=False))
  second = nnx.split(make_layer(seed=7, own_values=False))
  x = inputs(3, SIZES['model_dim'])
  pool = inputs(49, SIZES['value_dim'], seed=3)

  @functools.partial(jax.jit, static_argnums=0)
  @functools.partial(jax.grad, argnums=1)
  def gradient(which, pool):
    used = [
      pair for pair, use in zip((first, second), which, strict=True) if use
    ]
    return jnp.sum(sum(forward(*pair, x, pool)[0] for pair in used))

  apart = gradient((True, False), pool) + gradient((False, True), pool)
  assert np.any(apart)
  np.testing.assert_allclose(
    gradient((True, True), pool), apart, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize('own_values', [True, False])
def test_two_tables_or_none_are_refused(own_values):
  layer = make_layer(own_values=own_values)
  pool = inputs(49, 5) if own_values else None
  with pytest.raises(ValueError, match='exactly one'):
    layer(inputs(SIZES['model_dim']), pool)


def test_a_call_does_not_change_the_layer():
  # A foreign trainer calls `self.mlp(x)` and captures nothing: no warning
  # (which would be an error here), and no Variable that grows with each call.
  layer = make_layer()
  x = inputs(2, 13, SIZES['model_dim'])
  before = nnx.split(layer)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    plain = layer(x)
    captured, slot_ids, weights = capture_all(layer, x)
  after = nnx.split(layer)
  np.testing.assert_array_equal(plain, captured)
  compiled = jitted(layer, x)
  np.testing.assert_allclose(compiled[0], plain, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(compiled[1], slot_ids)
  np.testing.assert_allclose(compiled[2], weights, rtol=1e-5)
  assert after[0] == before[0]
  assert set(after[1]) == set(before[1])


@pytest.mark.parametrize('remat', [lambda f: f, jax.checkpoint])
def test_the_sown_accesses_are_the_same_under_grad_and_remat(remat):
  layer = make_layer()
  x = inputs(2, 13, SIZES['model_dim'])
  y, slot_ids, weights = jitted(layer, x)
  graphdef, params = nnx.split(layer)

  @remat
  def loss(params):
    found = capture_all(nnx.merge(graphdef, params, copy=True), x)
    return jnp.sum(jnp.square(found[0])), found

  grads, found = jax.jit(jax.grad(loss, has_aux=True))(params)
  np.testing.assert_allclose(found[0], y, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(found[1], slot_ids)
  np.testing.assert_allclose(found[2], weights, rtol=1e-5)
  assert_close(grads, nnx.jit(nnx.grad(sum_of_squares))(layer, x))


def test_nnx_transforms_take_the_layer():
  layer, x = make_layer(), inputs(3, SIZES['model_dim'])
  plain = nnx.jit(nnx.grad(sum_of_squares))(layer, x)
  assert_close(nnx.grad(nnx.jit(sum_of_squares))(layer, x), plain)
  assert_close(nnx.jit(nnx.grad(nnx.remat(sum_of_squares)))(layer, x), plain)


def test_memory_value_selects_the_table_and_its_gradient():
  layer = make_layer()
  assert set(nnx.state(layer, memory.MemoryValue)) == {'values'}
  assert 'values' in nnx.state(layer, nnx.Param)
  rest = nnx.state(layer, nnx.Not(memory.MemoryValue))
  assert set(rest) == {'subkeys', 'query', 'gate', 'out', 'query_scale'}

  x = inputs(3, SIZES['model_dim'])
  grads = table_gradient(layer, x)
  assert set(grads) == {'values'}
  gradient = np.asarray(grads['values'][...])
  accessed = np.zeros(49, bool)
  accessed[np.asarray(jitted(layer, x)[1]).ravel()] = True
  assert 0 < accessed.sum() < 49
  np.testing.assert_array_equal((gradient != 0).any(axis=-1), accessed)


def test_row_gradient_from_the_perturbations_gradient():
  layer = make_layer()
  x = inputs(2, 5, SIZES['model_dim'])
  graphdef, params = nnx.split(layer)

  @jax.jit
  def capture(params):
    layer = nnx.merge(graphdef, params, copy=True)
    return nnx.capture(layer, memory.ReadPerturbation)(x)[1]

  zeros = capture(params)
  assert zeros['read'].shape == (2, 5, SIZES['value_dim'])
  assert not np.any(zeros['read'])

  @jax.jit
  def rows_gradient(zeros):
    def loss(zeros):
      y, ids, weights = nnx.capture(
        nnx.merge(graphdef, params, copy=True),
        memory.SlotIds,
        memory.SlotWeights,
        init=zeros,
      )(x)
      read = (ids['slot_ids'][0], weights['slot_weights'][0])
      return jnp.sum(jnp.square(y)), read

    gradient, read = jax.grad(loss, has_aux=True)(zeros)
    return lookup.row_gradient(gradient['read'], *read, jnp.arange(49))

  dense = table_gradient(layer, x)['values'][...]
  assert np.any(dense)
  np.testing.assert_allclose(rows_gradient(zeros), dense, rtol=1e-5, atol=1e-6)


def test_bfloat16_layer_keeps_its_weights_in_float32():
  layer = make_layer(dtype=jnp.bfloat16)
  x = inputs(5, SIZES['model_dim'], dtype=jnp.bfloat16)
  y, _, weights = jitted(layer, x)
  assert y.dtype == jnp.bfloat16
  assert weights.dtype == jnp.float32
  assert layer.values.dtype == jnp.bfloat16
  # A softmax computed in bfloat16 and cast would be off by up to 0.4%.
  sums = np.asarray(weights).reshape(5, 3, 2).sum(-1)
  np.testing.assert_allclose(sums, 1.0, rtol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_gradient_of_the_carrier_counts_accesses(dtype):
  layer = make_layer(count_carrier=True, dtype=dtype)
  x = inputs(7, SIZES['model_dim'], dtype=dtype)
  mask = jnp.arange(7) < 4
  assert layer.access_counts.dtype == jnp.float32

  def loss(layer):
    y, sown = nnx.capture(layer, memory.SlotIds)(x)
    return jnp.sum(y, where=mask[:, None]), (y, sown['slot_ids'][0])

  of_carrier = nnx.DiffState(0, memory.AccessCounts)
  gradients, (y, slot_ids) = nnx.jit(
    nnx.grad(loss, argnums=of_carrier, has_aux=True)
  )(layer)
  np.testing.assert_array_equal(
    counting.carried_counts(gradients['access_counts'][...]),
    ranking.count_accesses(slot_ids, 49, mask),
  )
  layer.config = dataclasses.replace(layer.config, count_carrier=False)
  assert y.dtype == dtype
  tolerance = jnp.finfo(dtype).eps * 8
  np.testing.assert_allclose(
    y.astype(jnp.float32),
    layer(x).astype(jnp.float32),
    rtol=tolerance,
    atol=tolerance,
  )


def test_a_layer_that_shares_a_pool_carries_no_counts():
  with pytest.raises(ValueError, match=r'^count_carrier needs own_values'):
    make_layer(count_carrier=True, own_values=False)


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
    ({'value_dim': 0}, r'value_dim must be at least 1, not 0'),
    ({'num_slots': -4}, r'num_slots must be at least 1, not -4'),
  ],
)
def test_bad_sizes_are_refused_in_one_line(changes, message):
  with pytest.raises(ValueError, match=message) as caught:
    memory.MemoryConfig(**(SIZES | changes))
  assert '\n' not in str(caught.value)
