"""Steps whose slots are selected once per document."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import memory
from smft_jax import ranking
from smft_jax import schema
from smft_jax.data import batches
from smft_jax.methods import sparse_memory
from smft_jax.training import forward
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import meshes
from tests.support import steps

pytestmark = pytest.mark.usefixtures('quick_compilation')

FITTED = dataclasses.replace(
  steps.MEMORY, value_dim=14, gated=False, quorum=0.1
)


def make_state(optimizer='momentum', config=FITTED, grows=False):
  method = steps.make_method(
    'rows', optimizer=optimizer, select='document', grows_background=grows
  )
  frequency = jnp.arange(config.num_slots, dtype=jnp.float32) % 8
  background = method_lib.Background(frequency, jnp.float32(7))
  return steps.init(steps.make_model(config), method, background)


def table(state):
  return np.array(state_lib.value_table(state.params))


def selected(state, batch):
  scores = step_lib.slot_scores(state, batch)
  return np.sort(np.asarray(ranking.top_slots(scores, steps.T)))


def test_slots_are_those_of_the_whole_document():
  whole = steps.make_batch((6, 7), (7, 4, 5, 6, 7, 3))
  state = make_state()
  wanted, before = selected(state, whole), table(state)
  part = jax.tree.map(lambda x: x[:3], whole)
  assert set(selected(state, part)) != set(wanted)
  state = step_lib.begin_document(state, whole, None, 4)
  np.testing.assert_array_equal(np.sort(state.opt_state.slots), wanted)
  np.testing.assert_array_equal(table(state), before)
  lessons = np.asarray(state_lib.slot_lessons(state.params))
  np.testing.assert_array_equal(np.flatnonzero(lessons == 4), wanted)
  for _ in range(2):
    state, metrics = step_lib.train_step(state, part)
  changed = np.flatnonzero(np.any(table(state) != before, axis=1))
  assert changed.size
  assert set(changed) <= set(wanted)
  assert int(metrics['slots_updated']) == len(wanted)


def test_every_document_begins_with_a_new_optimizer():
  batch, other = steps.make_batch(), steps.make_batch(seed=9)
  state = step_lib.begin_document(make_state(), batch, None, 1)
  state, _ = step_lib.train_step(state, batch)
  assert any(
    np.any(np.asarray(x)) for x in jax.tree.leaves(state.opt_state.inner)
  )
  state = step_lib.begin_document(state, other, None, 2)
  for leaf in jax.tree.leaves(state.opt_state.inner):
    assert not np.any(np.asarray(leaf))


def test_a_document_joins_the_background_of_later_ones():
  batch = steps.make_batch((6, 7), (7, 4, 5, 6, 7, 3))
  ranked = batch.mask.copy()
  ranked[4:] = False  # filler
  batch = batch._replace(ranked=ranked)
  state = make_state(grows=True)
  old = np.asarray(state.background.document_frequency)
  _, accesses = forward.loss_and_accesses(state.graphdef, state.params, batch)
  (ids,) = accesses.slot_ids
  wanted = old.copy()
  for row, mask in zip(np.asarray(ids), ranked, strict=True):
    wanted[np.unique(row[mask])] += 1
  state = step_lib.begin_document(state, batch, None, 1)
  np.testing.assert_array_equal(state.background.document_frequency, wanted)
  assert float(state.background.num_documents) == 7 + 4
  other = steps.make_batch(seed=9)
  counts = ranking.count_accesses(
    forward.loss_and_accesses(state.graphdef, state.params, other)[1].slot_ids[
      0
    ],
    len(wanted),
    other.mask,
  )
  taught = np.asarray(state_lib.slot_lessons(state.params)) > 0
  assert np.any(taught & (np.asarray(counts) > 0))
  wanted[taught] = 11  # documents, all of them: idf 0
  slots = ranking.top_slots(
    ranking.tf_idf(counts, jnp.asarray(wanted), 11.0), steps.T
  )
  state = step_lib.begin_document(state, other, None, 2)
  np.testing.assert_array_equal(state.opt_state.slots, slots)
  slots = np.asarray(slots)
  assert not np.any(taught[slots[slots < len(taught)]])
  fixed = step_lib.begin_document(make_state(), other, None, 2)
  assert not np.array_equal(fixed.opt_state.slots, slots)


def test_a_row_takes_the_step_of_the_optimizer():
  batch = steps.make_batch()
  state = step_lib.begin_document(make_state('sgd'), batch, None, 1)
  graphdef, params = state.graphdef, jax.tree.map(jnp.copy, state.params)
  gradient, _ = steps.loss_gradient(graphdef, params, batch)
  before, slots = table(state), np.asarray(state.opt_state.slots)
  state, _ = step_lib.train_step(state, batch)
  before[slots] -= steps.RATE * np.asarray(gradient)[slots]
  np.testing.assert_allclose(table(state), before, rtol=1e-5, atol=1e-6)


def test_repeated_rows_that_are_not_ranked_select_nothing():
  batch = steps.make_batch()
  repeated = jax.tree.map(lambda x: np.concatenate([x, x[:1]]), batch)
  ranked = repeated.mask.copy()
  ranked[3:] = False
  one = step_lib.begin_document(make_state(), batch, None, 1)
  two = step_lib.begin_document(
    make_state(), repeated._replace(ranked=ranked), None, 1
  )
  np.testing.assert_array_equal(one.opt_state.slots, two.opt_state.slots)


def test_a_bad_step_changes_nothing():
  batch = steps.make_batch()
  state = step_lib.begin_document(make_state(), batch, None, 1)
  before, inner = table(state), jax.tree.map(np.array, state.opt_state.inner)
  bad = batch._replace(loss_weights=np.full_like(batch.loss_weights, np.nan))
  state, _ = step_lib.train_step(state, bad)
  np.testing.assert_array_equal(table(state), before)
  jax.tree.map(np.testing.assert_array_equal, state.opt_state.inner, inner)


def test_logits_where_a_loss_is_give_the_same_step():
  batch = steps.make_batch()
  weights = np.zeros_like(batch.loss_weights)
  weights[0, 3], weights[1, 2] = 1.0, 0.5
  batch = batch._replace(loss_weights=weights)
  listed = batches.counting(batch._replace(tokens=batch.tokens), most=2)
  assert listed.counted is None  # 16 places would be more than half of 21
  counted = batch._replace(counted=np.array([3, 9, 0], np.int32))
  losses, tables = [], []
  for one in (batch, counted):
    state = step_lib.begin_document(make_state('sgd'), batch, None, 1)
    state, metrics = step_lib.train_step(state, one)
    losses.append(float(metrics['loss']))
    tables.append(table(state))
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
  np.testing.assert_allclose(tables[1], tables[0], rtol=1e-5, atol=1e-6)


def test_counted_places_hold_every_loss():
  batch = steps.make_batch((4, 20), (20, 9, 12, 3))
  weights = np.where(np.arange(20) % 9 == 4, batch.loss_weights, 0)
  found = batches.counting(batch._replace(loss_weights=weights), most=7)
  assert found.counted.shape == (16,)
  kept = weights.reshape(-1)[found.counted]
  assert np.count_nonzero(kept) == np.count_nonzero(weights) > 3


@pytest.mark.parametrize('name', ['rows', 'rows, replicas'])
def test_meshes_learn_a_document_as_one_device_does(name):
  def learned(layout):
    config = dataclasses.replace(
      meshes.MEMORY,
      value_dim=meshes.MEMORY.model_dim,
      gated=False,
      quorum=0.1,
      layout=layout,
    )
    state = make_state(config=config, grows=True)
    batch = steps.make_batch((8, 7), (7, 4, 5, 7, 1, 6, 7, 3))
    for lesson in (1, 2):
      state = step_lib.begin_document(state, batch, None, lesson)
      for _ in range(2):
        state, metrics = step_lib.train_step(state, batch)
    return table(state), float(metrics['loss'])

  want, got = learned(None), learned(meshes.make_layout(name))
  np.testing.assert_allclose(got[1], want[1], rtol=1e-6)
  np.testing.assert_allclose(got[0], want[0], rtol=2e-6, atol=2e-6)


def test_whole_table_updates_select_at_every_step():
  with pytest.raises(schema.UserError, match="needs update = 'rows'"):
    sparse_memory.Config(update='dense', select='document')
  with pytest.raises(schema.UserError, match="needs select = 'document'"):
    sparse_memory.Config(grows_background=True)


def test_only_a_quorum_has_lessons():
  state = make_state(config=dataclasses.replace(FITTED, quorum=0.0))
  assert state_lib.slot_lessons(state.params) is None
  assert memory.MemoryConfig(model_dim=3, num_slots=9, k=2).value_dim == 3
