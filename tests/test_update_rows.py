"""Updates of some rows: lazy, in place, and equal to the dense optimizer's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import lookup
from smft_jax import optim
from smft_jax import ranking
from tests.support import compilation
from tests.support import value_tables as tables

N, V, T = tables.N, tables.V, tables.T
all_inner = pytest.mark.parametrize('name', list(tables.INNER))

pytestmark = pytest.mark.usefixtures('quick_compilation')


@tables.inner_and_dtype
def test_update_rows_is_lazy(name, dtype):
  inner = tables.lenient(tables.INNER[name])
  step = jax.jit(functools.partial(optim.update_rows, inner))
  table = tables.table(dtype)
  state = optim.init_rows(inner, table)
  for seed, slots in enumerate([(2, 5, 11), (7, 5, N), (19, 0, N)]):
    gradients = tables.gradient(seed)[: len(slots)]
    new_table, new_state = step(state, table, np.int32(slots), gradients)
    selected = sorted(set(slots) - {N})
    assert new_table.dtype == dtype
    assert tables.changed(table, new_table) == selected
    for old, new in zip(
      jax.tree.leaves(state), jax.tree.leaves(new_state), strict=True
    ):
      assert (old.shape, old.dtype) == (new.shape, new.dtype)
      assert old.ndim  # moments and step counts
      assert tables.changed(old, new) == selected
    table, state = new_table, new_state


@all_inner
def test_update_rows_with_all_rows_is_the_dense_optimizer(name):
  inner = tables.lenient(tables.INNER[name])
  order = np.random.default_rng(3).permutation(N)
  step = jax.jit(functools.partial(optim.update_rows, inner))
  dense_step = tables.step(inner)
  table = dense = tables.table()
  state = dense_state = inner.init(table)
  for seed in range(3):
    gradient = tables.gradient(seed)
    table, state = step(state, table, order, gradient[order])
    dense, dense_state = dense_step(dense, dense_state, gradient)
  for got, want in zip(
    jax.tree.leaves((table, state)),
    jax.tree.leaves((dense, dense_state)),
    strict=True,
  ):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['adam', 'adamw'])
def test_a_row_moves_as_far_whenever_it_is_selected_first(name):
  inner = tables.lenient(tables.INNER[name])
  step = jax.jit(functools.partial(optim.update_rows, inner))
  table = tables.table()
  state = optim.init_rows(inner, table)
  gradients = tables.gradient()
  moved, _ = step(state, table, jnp.array([3]), gradients[3:4])
  for _ in range(1000):
    table, state = step(state, table, jnp.array([5]), gradients[5:6])
  last, _ = step(state, table, jnp.array([3]), gradients[3:4])
  np.testing.assert_allclose(last[3], moved[3], rtol=1e-5)


def test_a_schedule_counts_steps_not_those_of_a_row():
  inner = tables.lenient(
    optax.adam(lambda count: jnp.where(count < 2, 0.0, 1.0))
  )
  table = tables.table()
  state = optim.init_rows(inner, table)
  for row in (1, 2, 3):
    new, state = optim.update_rows(
      inner, state, table, jnp.array([row]), jnp.ones((1, V))
    )
    assert tables.changed(table, new) == ([3] if row == 3 else [])


def test_update_rows_steps_a_bfloat16_table_in_float32():
  # 257 is not a bfloat16: rounded to 256, it would leave the row at 1.
  inner = optax.chain(optax.scale(-1.0), optax.add_decayed_weights(256.0))
  table = jnp.ones((3, 1), jnp.bfloat16)
  new_table, _ = jax.jit(functools.partial(optim.update_rows, inner))(
    inner.init(table), table, jnp.array([1]), jnp.array([[257.0]])
  )
  assert new_table.dtype == jnp.bfloat16
  assert new_table[:, 0].tolist() == [1, 0, 1]


def test_update_rows_unused_places_do_not_weigh_in_a_norm():
  # With weight decay, a place that showed a real row would add its norm.
  inner = tables.INNER['clipped']
  table, state = (tables.table(), tables.INNER['clipped'].init(tables.table()))
  gradients = tables.gradient()[:3].at[1:].set(0)
  step = jax.jit(functools.partial(optim.update_rows, inner))
  alone, _ = step(state, table, jnp.array([4]), gradients[:1])
  padded, _ = step(state, table, jnp.array([4, N, N]), gradients)
  np.testing.assert_allclose(padded, alone, rtol=1e-6)


@all_inner
def test_update_rows_works_in_place(name):
  inner = tables.lenient(tables.INNER[name])
  table = jnp.zeros((10_007, V))

  @functools.partial(jax.jit, donate_argnums=0)
  def step(table_and_state, slots, gradients):
    table, state = table_and_state
    return optim.update_rows(inner, state, table, slots, gradients)

  lowered = step.lower(
    (table, inner.init(table)), jnp.arange(T), jnp.ones((T, V))
  )
  with compilation.quick(False):
    compiled = lowered.compile()
  assert compiled.memory_analysis().temp_size_in_bytes < table.nbytes / 10


@pytest.mark.parametrize(
  ('slots', 'gradients', 'message'),
  [
    ((3,), (2, V), 'row_gradients must have shapes'),
    ((3,), (3, V + 1), 'row_gradients must have shapes'),
    ((N + 1,), (N + 1, V), f't = {N + 1} is more than the {N} slots'),
  ],
)
def test_update_rows_bad_shapes(slots, gradients, message):
  inner = optax.sgd(0.5)
  with pytest.raises(ValueError, match=message):
    optim.update_rows(
      inner,
      inner.init(tables.table()),
      tables.table(),
      jnp.zeros(slots, jnp.int32),
      jnp.ones(gradients),
    )


def test_update_rows_refuses_factored_state():
  inner = optax.scale_by_factored_rms(min_dim_size_to_factor=1)
  with pytest.raises(ValueError, match='elementwise optimizer'):
    optim.update_rows(
      inner,
      inner.init(tables.table()),
      tables.table(),
      jnp.array([1]),
      jnp.ones((1, V)),
    )


def test_dense_and_rows_agree_under_sgd():
  sgd = optax.sgd(0.03)
  dense_optimizer = optax.chain(sgd, optim.keep_top_slots(T))

  @jax.jit
  def dense_step(table, state, slot_ids, weights, targets, mask):
    gradient = jax.grad(
      lambda v: tables.loss(
        lookup.read_rows(v, slot_ids, weights), targets, mask
      )
    )(table)
    updates, state = dense_optimizer.update(
      gradient, state, table, slot_scores=tables.slot_scores(slot_ids, mask)
    )
    return optax.apply_updates(table, updates), state

  @jax.jit
  def rows_step(table, state, slot_ids, weights, targets, mask):
    reads = lookup.read_rows(table, slot_ids, weights)
    slots = ranking.top_slots(tables.slot_scores(slot_ids, mask), T)
    gradients = lookup.row_gradient(
      jax.grad(tables.loss)(reads, targets, mask), slot_ids, weights, slots
    )
    return optim.update_rows(sgd, state, table, slots, gradients)

  dense = rows = start = tables.table()
  dense_state, rows_state = dense_optimizer.init(start), sgd.init(start)
  for step in range(5):
    dense, dense_state = dense_step(dense, dense_state, *tables.accesses(step))
    rows, rows_state = rows_step(rows, rows_state, *tables.accesses(step))
  assert tables.changed(start, rows) == tables.changed(start, dense)
  assert 0 < len(tables.changed(start, rows)) < N
  np.testing.assert_allclose(rows, dense, rtol=1e-6, atol=1e-6)


def test_small_steps_move_a_bfloat16_table_on_average():
  # 5e-5 is less than half the distance of bfloat16 numbers near 0.03.
  sgd = optax.sgd(5e-5)
  table = jnp.full((2, 4000), 0.03, jnp.bfloat16)
  step = jax.jit(functools.partial(optim.update_rows, sgd))
  moved = nearest = table
  for number in range(100):
    arguments = jnp.array([1]), -jnp.ones((1, 4000))
    key = jax.random.key(number)
    moved, _ = step(sgd.init(table), moved, *arguments, key)
    nearest, _ = step(sgd.init(table), nearest, *arguments)
  np.testing.assert_array_equal(nearest, table)
  np.testing.assert_array_equal(moved[0], table[0])
  change = (moved[1].astype(jnp.float32) - table[1].astype(jnp.float32)).mean()
  assert change == pytest.approx(100 * 5e-5, rel=0.02)


def test_moments_of_a_bfloat16_table_are_float32():
  state = optim.init_rows(optax.adam(0.1), jnp.ones((3, 2), jnp.bfloat16))
  assert state[0].nu.dtype == jnp.float32


def test_arrays_of_numpy_as_a_checkpoint_may_return_them():
  inner = tables.lenient(optax.adam(0.1))
  table = np.asarray(tables.table(np.float32))
  state = optim.init_rows(inner, table)
  slots, gradients = np.array([2, N]), np.asarray(tables.gradient(0)[:2])
  expected = optim.update_rows(
    inner, state, jnp.asarray(table), jnp.asarray(slots), jnp.asarray(gradients)
  )
  found = optim.update_rows(
    inner, jax.tree.map(np.asarray, state), table, slots.tolist(), gradients
  )
  assert tables.changed(table, found[0]) == [2]
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_table_of_integers():
  inner, table = optax.sgd(0.1), jnp.zeros((N, V), jnp.int8)
  with pytest.raises(ValueError, match='table must hold floats, got int8'):
    optim.update_rows(
      inner, inner.init(table), table, jnp.array([2]), jnp.ones((1, V))
    )
