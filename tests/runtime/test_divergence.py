"""Steps whose loss or gradient is not finite change nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import optim
from smft_jax.methods import full
from smft_jax.runtime import divergence
from smft_jax.training import step as step_lib
from tests.support import steps


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly; Adam of optax mixes dtypes."""
  with jax.numpy_dtype_promotion('standard'):
    yield


def make_method(form):
  if form == 'full':
    return full.make(full.Config(learning_rate=1e-2))
  return steps.make_method(form, optimizer='adamw')


def bytes_of(tree):
  return [
    np.asarray(jnp.copy(leaf)).tobytes() for leaf in jax.tree.leaves(tree)
  ]


@pytest.mark.parametrize('form', ['rows', 'dense', 'full'])
def test_a_bad_batch_changes_no_bit_of_parameters_and_moments(form):
  state = steps.init(steps.make_model(), make_method(form))
  good = steps.make_batch(seed=1)
  state, _ = step_lib.train_step(state, good)
  before = bytes_of((state.params, state.opt_state))
  for number, bad in enumerate((np.nan, np.inf, -np.inf), start=1):
    weights = np.where(good.loss_weights > 0, good.loss_weights, 0)
    weights[0, 1] = bad
    state, values = step_lib.train_step(
      state, good._replace(loss_weights=weights.astype(np.float32))
    )
    assert not np.isfinite(values['loss'])
    assert int(values['skipped_in_a_row']) == number
    if form != 'full':
      assert int(values['slots_updated']) == 0
    assert bytes_of((state.params, state.opt_state)) == before
  assert int(state.skipped) == 3
  assert int(state.step) == 4
  state, values = step_lib.train_step(state, steps.make_batch())
  assert int(values['skipped_in_a_row']) == 0
  assert int(state.skipped) == 3
  assert bytes_of((state.params, state.opt_state)) != before


def test_only_the_gradient_is_not_finite():
  method = make_method('full')
  # A square root's slope at zero is infinite, where its value is not.
  spike = dataclasses.replace(
    method,
    penalty=lambda trainable, unused: jnp.sqrt(
      0.0 * jnp.sum(jax.tree.leaves(trainable)[0])
    ),
  )
  state = steps.init(steps.make_model(), spike)
  before = bytes_of((state.params, state.opt_state))
  state, values = step_lib.train_step(state, steps.make_batch())
  assert np.isfinite(values['loss'])
  assert int(values['skipped_in_a_row']) == 1
  assert bytes_of((state.params, state.opt_state)) == before


@pytest.mark.parametrize('slots', [[-1, 3], [3, -7], [3, 7], [3, 10**9]])
def test_slots_out_of_range_write_no_row(slots):
  table = jnp.arange(35.0).reshape(7, 5)
  tx = optax.chain(optax.trace(0.9), optax.scale(-1.0))
  new, moments = optim.update_rows(
    tx, tx.init(table), table, jnp.array(slots), jnp.ones((2, 5))
  )
  changed = np.flatnonzero((np.asarray(new) != np.asarray(table)).any(axis=1))
  assert changed.tolist() == [3]
  (trace,) = [leaf for leaf in jax.tree.leaves(moments) if leaf.ndim == 2]
  assert np.flatnonzero(np.asarray(trace).any(axis=1)).tolist() == [3]


def test_a_watch_is_one_step_late_and_stops_at_the_limit():
  watch = divergence.Watch('the stream', 2, 'slow down')
  for number, in_a_row in enumerate((1, 0, 1, 2)):
    watch.update({'skipped_in_a_row': in_a_row, 'loss': np.nan}, str(number))
    assert not watch.exceeded
  watch.update({'skipped_in_a_row': 0, 'loss': 1.0}, '4')
  assert watch.exceeded
  with pytest.raises(divergence.Diverged, match='2 steps in a row'):
    watch.finish()


def test_a_resumed_watch_gives_the_next_step_a_chance():
  watch = divergence.Watch('the stream', 2, 'slow down', in_a_row=2)
  watch.update({'skipped_in_a_row': 0, 'loss': 1.0}, '0')
  watch.finish()
  with pytest.raises(divergence.Diverged):
    divergence.Watch('the stream', 2, 'slow down', in_a_row=2).finish()
