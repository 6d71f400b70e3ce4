"""Gradients of the memory layer, and what it sows under them."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import counting
from smft_jax import lookup
from smft_jax import memory
from smft_jax import ranking
from tests.support import memory_layers as layers

pytestmark = pytest.mark.usefixtures('quick_compilation')


def assert_close(state, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    nnx.to_pure_dict(state),
    nnx.to_pure_dict(expected),
  )


def sum_of_squares(layer, x):
  return jnp.sum(jnp.square(layer(x)))


# Compiled once for each layer's structure and shape of x.
gradient = nnx.jit(nnx.grad(sum_of_squares))
table_gradient = nnx.jit(
  nnx.grad(sum_of_squares, argnums=nnx.DiffState(0, memory.MemoryValue))
)


@pytest.mark.parametrize('qk_norm', [True, False])
def test_gradients_equal_differences_of_the_plain_definition(qk_norm):
  layer = layers.make_layer(qk_norm=qk_norm)
  x = layers.inputs(5, layers.SIZES['model_dim'])
  cotangent = layers.inputs(5, layers.SIZES['model_dim'], seed=2)

  def loss(layer):
    return jnp.sum(layer(x) * cotangent)

  grads = nnx.to_pure_dict(nnx.jit(nnx.grad(loss))(layer))
  p = layers.parameters(layer)
  assert set(grads) == set(p)

  def plain_loss(p):
    rows = [
      layers.reference(p, np.asarray(t, np.float64), layers.SIZES['k'])[0]
      for t in x
    ]
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


def test_two_layers_sum_their_gradients_in_the_shared_pool():
  first = nnx.split(layers.make_layer(seed=0, own_values=False))
  second = nnx.split(layers.make_layer(seed=7, own_values=False))
  x = layers.inputs(3, layers.SIZES['model_dim'])
  pool = layers.inputs(49, layers.SIZES['value_dim'], seed=3)

  @jax.jit
  @functools.partial(jax.grad, argnums=1)
  def gradient(shares, pool):
    outs = [layers.forward(*layer, x, pool)[0] for layer in (first, second)]
    return jnp.vdot(shares, jnp.stack([jnp.sum(out) for out in outs]))

  one, other, both = (
    gradient(jnp.array(shares), pool)
    for shares in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
  )
  assert np.any(one)
  assert np.any(other)
  np.testing.assert_allclose(both, one + other, rtol=1e-5, atol=1e-6)


def test_the_sown_accesses_are_the_same_under_grad_and_remat():
  layer = layers.make_layer()
  x = layers.inputs(2, 13, layers.SIZES['model_dim'])
  y, slot_ids, weights = layers.jitted(layer, x)
  graphdef, params = nnx.split(layer)

  @jax.checkpoint
  def loss(params):
    found = layers.capture_all(nnx.merge(graphdef, params, copy=True), x)
    return jnp.sum(jnp.square(found[0])), found

  grads, found = jax.jit(jax.grad(loss, has_aux=True))(params)
  np.testing.assert_allclose(found[0], y, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(found[1], slot_ids)
  np.testing.assert_allclose(found[2], weights, rtol=1e-5)
  assert_close(grads, gradient(layer, x))


def test_nnx_transforms_take_the_layer():
  layer, x = (
    layers.make_layer(),
    layers.inputs(2, 13, layers.SIZES['model_dim']),
  )
  grad = nnx.grad(nnx.jit(nnx.remat(sum_of_squares)))
  assert_close(grad(layer, x), gradient(layer, x))


def test_memory_value_selects_the_table_and_its_gradient():
  layer = layers.make_layer()
  assert set(nnx.state(layer, memory.MemoryValue)) == {'values'}
  assert 'values' in nnx.state(layer, nnx.Param)
  rest = nnx.state(layer, nnx.Not(memory.MemoryValue))
  assert set(rest) == {'subkeys', 'query', 'gate', 'out', 'query_scale'}

  x = layers.inputs(2, 5, layers.SIZES['model_dim'])
  grads = table_gradient(layer, x)
  assert set(grads) == {'values'}
  of_rows = np.asarray(grads['values'][...])
  accessed = np.zeros(49, bool)
  accessed[np.asarray(layers.jitted(layer, x)[1]).ravel()] = True
  assert 0 < accessed.sum() < 49
  np.testing.assert_array_equal((of_rows != 0).any(axis=-1), accessed)


def test_row_gradient_from_the_perturbations_gradient():
  layer = layers.make_layer()
  x = layers.inputs(2, 5, layers.SIZES['model_dim'])
  graphdef, params = nnx.split(layer)

  @jax.jit
  def capture(params):
    layer = nnx.merge(graphdef, params, copy=True)
    return nnx.capture(layer, memory.ReadPerturbation)(x)[1]

  zeros = capture(params)
  assert zeros['read'].shape == (2, 5, layers.SIZES['value_dim'])
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

    perturbed, read = jax.grad(loss, has_aux=True)(zeros)
    rows = lookup.row_gradient(perturbed['read'], *read, jnp.arange(49))
    return rows, read

  rows, read = rows_gradient(zeros)
  dense = table_gradient(layer, x)['values'][...]
  assert np.any(dense)
  np.testing.assert_allclose(rows, dense, rtol=1e-5, atol=1e-6)
  _, slot_ids, weights = layers.jitted(layer, x)
  np.testing.assert_array_equal(read[0], slot_ids)
  np.testing.assert_allclose(read[1], weights, rtol=1e-5)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_gradient_of_the_carrier_counts_accesses(dtype):
  layer = layers.make_layer(count_carrier=True, param_dtype=dtype)
  x = layers.inputs(2, 13, layers.SIZES['model_dim'], dtype=dtype)
  mask = jnp.broadcast_to(jnp.arange(13) < 4, (2, 13))
  assert layer.access_counts.dtype == jnp.float32

  def loss(layer):
    y, sown = nnx.capture(layer, memory.SlotIds)(x)
    return jnp.sum(y, where=mask[..., None]), (y, sown['slot_ids'][0])

  of_carrier = nnx.DiffState(0, memory.AccessCounts)
  gradients, (y, slot_ids) = nnx.jit(
    nnx.grad(loss, argnums=of_carrier, has_aux=True)
  )(layer)
  np.testing.assert_array_equal(
    counting.carried_counts(gradients['access_counts'][...]),
    ranking.count_accesses(slot_ids, 49, mask),
  )
  without = layers.make_layer(param_dtype=dtype)
  nnx.update(without, nnx.state(layer, nnx.Not(memory.AccessCounts)))
  assert y.dtype == dtype
  tolerance = jnp.finfo(dtype).eps * 8
  np.testing.assert_allclose(
    y.astype(jnp.float32),
    layers.jitted(without, x)[0].astype(jnp.float32),
    rtol=tolerance,
    atol=tolerance,
  )
