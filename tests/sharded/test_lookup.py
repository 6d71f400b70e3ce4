"""Sharded reads and updates: equal to the whole ones, and what they send."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import lookup
from smft_jax import optim
from smft_jax.sharded import lookup as sharded_lookup
from tests.support import compilation
from tests.support import shards

A, B, L, N, V, t = shards.A, shards.B, shards.L, shards.N, shards.V, shards.t


def placed_reads(layout):
  values, slot_ids, weights, gradient = shards.reads()
  batch = layout.batch(slot_ids.shape)
  read = layout.batch(slot_ids.shape[:-1], layout.dim_axes)
  return (
    shards.put(layout, layout.values_NxV, values),
    shards.put(layout, batch, slot_ids),
    shards.put(layout, batch, weights),
    shards.put(layout, read, gradient),
  )


def read_and_gradients(read_rows, *arrays):
  """What is read, and gradients of values and weights."""

  @jax.jit
  def both(values, slot_ids, weights, gradient):
    read_BxLxV, pull_back = jax.vjp(
      lambda v, w: read_rows(v, slot_ids, w), values, weights
    )
    return read_BxLxV, *pull_back(gradient)

  return both(*arrays)


@pytest.fixture(scope='module')
def unsharded():
  with compilation.quick():
    return read_and_gradients(lookup.read_rows, *shards.reads())


def test_equals_the_unsharded_read(layout, unsharded):
  got = read_and_gradients(
    functools.partial(sharded_lookup.read_rows, layout), *placed_reads(layout)
  )
  shards.assert_close(got, unsharded)
  spec = layout.sharding(layout.values_NxV)
  assert got[1].sharding.is_equivalent_to(spec, 2)


def test_bfloat16_rows_are_added_up_in_float32():
  layout = shards.make_layout('rows, keys')
  # Three of four devices read 257 ones each. As a bfloat16 that is 256, and the
  # sum would be 768; the one nearest to the true sum is 772.
  slot_ids = jnp.tile(jnp.array([0, 2, 4]), (1, 257))
  got = jax.jit(functools.partial(sharded_lookup.read_rows, layout))(
    jnp.ones((8, V), jnp.bfloat16), slot_ids, jnp.ones((1, 771))
  )
  assert got.dtype == jnp.bfloat16
  np.testing.assert_array_equal(got.astype(jnp.float32), np.full((1, V), 772))


def test_equals_the_unsharded_row_gradient(layout):
  _, slot_ids, weights, gradient = shards.reads()
  slots = jnp.array([5, N, int(slot_ids[0, 0, 0]), int(slot_ids[3, 2, 1]), N])
  want = lookup.row_gradient(gradient, slot_ids, weights, slots)
  assert np.any(want)
  got = jax.jit(functools.partial(sharded_lookup.row_gradient, layout))(
    placed_reads(layout)[3], *placed_reads(layout)[1:3], slots
  )
  shards.assert_close(got, want)


@pytest.mark.parametrize(
  ('layout_name', 'size'),
  [*((name, t) for name in shards.LAYOUTS), ('rows, keys', 300)],
)
def test_update_is_in_place_and_changes_selected_rows_only(layout_name, size):
  layout = shards.make_layout(layout_name)
  table = jax.random.normal(jax.random.key(0), (N, V))
  slots = jax.random.permutation(jax.random.key(1), N)[:size]
  slots = slots.at[2].set(N)
  gradients = jax.random.normal(jax.random.key(2), (size, V))
  adam = optax.scale_by_adam()
  update = functools.partial(optim.update_rows, adam)
  with jax.numpy_dtype_promotion('standard'):
    state = optim.init_rows(adam, table)
    want = jax.jit(update)(state, table, slots, gradients)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(table, opt_state, slots, gradients):
      return sharded_lookup.update_rows(
        layout, adam, opt_state, table, slots, gradients
      )

    placed = shards.put(layout, layout.values_NxV, table)
    state = optim.init_rows(adam, placed)
    counts = shards.put(layout, layout.slots_N, state.count)
    state = state._replace(count=counts)
    old = np.array(table)
    before = jax.tree.map(lambda x: x.sharding, (placed, state))
    program = step.lower(placed, state, slots, gradients).compile()
    got = step(placed, state, slots, gradients)
  shards.assert_close(got, want)
  still = np.setdiff1d(np.arange(N), slots)
  np.testing.assert_array_equal(np.asarray(got[0])[still], old[still])
  after = jax.tree.map(lambda x: x.sharding, got)
  assert placed.is_deleted()
  for was, now, leaf in zip(
    *map(jax.tree.leaves, (before, after, got)), strict=True
  ):
    if leaf.ndim:
      assert now.is_equivalent_to(was, leaf.ndim)
  assert shards.collectives(program) == []


@pytest.mark.parametrize('layout_name', shards.LAYOUTS)
def test_a_norm_is_that_of_all_selected_rows(layout_name):
  layout = shards.make_layout(layout_name)
  clip = optax.clip_by_global_norm(0.1)
  slots = jnp.arange(0, N, N // 8)
  gradients = jax.random.normal(jax.random.key(2), (len(slots), V))
  table, _ = jax.jit(
    functools.partial(sharded_lookup.update_rows, layout, clip)
  )(
    clip.init(jnp.zeros(())),
    shards.put(layout, layout.values_NxV, jnp.zeros((N, V))),
    slots,
    gradients,
  )
  assert jnp.linalg.norm(table) == pytest.approx(0.1, rel=1e-5)


def programs(layout, num_slots):
  """Each function and the shapes it takes, for a table of `num_slots`."""
  lead = layout.batch((B, L))
  values = shards.shape(layout, layout.values_NxV, num_slots, V)
  slot_ids = shards.shape(layout, lead, B, L, A, dtype=jnp.int32)
  weights = shards.shape(layout, lead, B, L, A)
  reads = layout.batch((B, L), layout.dim_axes)
  gradient = shards.shape(layout, reads, B, L, V)
  slots = jax.ShapeDtypeStruct((t,), jnp.int32)
  read_rows = functools.partial(sharded_lookup.read_rows, layout)
  row_gradient = functools.partial(sharded_lookup.row_gradient, layout)

  def weights_gradient(values, slot_ids, weights, gradient):
    _, pull_back = jax.vjp(lambda w: read_rows(values, slot_ids, w), weights)
    return pull_back(gradient)

  return {
    'read': (read_rows, values, slot_ids, weights),
    'weights gradient': (weights_gradient, values, slot_ids, weights, gradient),
    'row gradient': (row_gradient, gradient, slot_ids, weights, slots),
  }


# For 2 replicas and 4 shards.
SENT = {
  'rows, keys': {
    'read': ['all-reduce f32[42,24]'],  # tokens x V
    'weights gradient': ['all-reduce f32[6,7,8]'],  # tokens x A
    'row gradient': ['all-reduce f32[11,24]'],  # t x V
  },
  'dims, keys': {
    'read': [],
    'weights gradient': ['all-reduce f32[6,7,8]'],
    'row gradient': ['all-reduce f32[11,6]'],
  },
}


@pytest.mark.parametrize(
  ('name', 'num_slots'),
  [('rows, keys', N), ('rows, keys', 4 * N), ('dims, keys', N)],
)
def test_sends_what_is_expected_and_no_table(name, num_slots):
  layout = shards.make_layout(name)
  assert shards.sent(programs(layout, num_slots)) == SENT[name]
