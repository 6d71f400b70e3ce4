"""Trainers that pass gradients only: t rows change, and no other bit.

Examples of whole trainers are in test_examples.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import counting
from smft_jax import lookup
from smft_jax import optim
from smft_jax import ranking
from tests.support import compilation
from tests.support import value_tables as tables

# Compiles quickly, except for the test of 100 steps.
pytestmark = pytest.mark.usefixtures('quick_compilation')

N, V, T = tables.N, tables.V, tables.T
carried = tables.carried
make_params = tables.params
# Its weight decay would change every row.
ADAMW = tables.INNER['adamw']


def _trainer_loss(params, slot_ids, weights, targets, mask):
  """A model whose trainer passes gradients only."""
  reads = lookup.read_rows(params['memory']['values'], slot_ids, weights)
  reads = counting.count_carrier(
    params['memory']['access_counts'], slot_ids, reads
  )
  out = reads * (1 + params['head'][None, None, :]) + params['positions'][0, 0]
  return tables.loss(out, targets, mask)


_trainer_gradient = jax.jit(jax.grad(_trainer_loss))


def _finetuning(inner):
  return optim.sparse_memory_finetuning(
    tables.lenient(inner),
    T,
    document_frequency=tables.FREQUENCY,
    num_documents=7,
  )


def _assert_changed(old, new, rows):
  """Exactly these rows of the table changed, and no other bit anywhere."""
  changed = jax.tree.map(tables.changed, old, new)
  assert changed['memory'].pop('values') == sorted(rows)
  assert not jax.tree.leaves(changed)


def _selected(slot_ids, mask):
  slots = ranking.top_slots(tables.slot_scores(slot_ids, mask), T).tolist()
  assert len(set(slots)) == T
  return set(slots)


@pytest.mark.parametrize('name', ['sgd', 'momentum', 'clipped'])
def test_finetuning_in_a_plain_loop(name):
  optimizer = _finetuning(tables.INNER[name])
  params = make_params()
  state = optimizer.init(params)
  step = tables.step(optimizer)
  for number in range(3):
    batch = tables.accesses(number)
    new_params, state = step(params, state, _trainer_gradient(params, *batch))
    _assert_changed(params, new_params, _selected(batch[0], batch[3]))
    params = new_params


_adamw_step = tables.step(_finetuning(ADAMW))


@pytest.mark.parametrize('num_batches', [1, 3])
def test_finetuning_for_100_steps(num_batches):
  # One batch changes the same rows in every step, several change the union.
  batches = [tables.accesses(i) for i in range(num_batches)]
  selected = [_selected(ids, mask) for ids, _, _, mask in batches]
  start = params = make_params()
  state = _finetuning(ADAMW).init(params)
  with compilation.quick(False):
    for number in range(100):
      gradients = _trainer_gradient(params, *batches[number % num_batches])
      new, state = _adamw_step(params, state, gradients)
      _assert_changed(params, new, selected[number % num_batches])
      params = new
  _assert_changed(start, params, set.union(*selected))
  assert (len(set.union(*selected)) == T) == (num_batches == 1)


def _narrow(tree):
  return jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)


@jax.jit
def _often_read_loss(params):
  """Reads slot 9 257 times, slot 2 256 times: the same number in bfloat16."""
  slot_ids = jnp.asarray(np.repeat(np.int32([[2], [9]]), [256, 257], axis=0))
  values = params['memory']['values']
  reads = lookup.read_rows(values, slot_ids, jnp.ones(slot_ids.shape))
  reads = counting.count_carrier(
    params['memory']['access_counts'], slot_ids, reads.astype(values.dtype)
  )
  return jnp.sum(reads @ params['head'])


@pytest.mark.parametrize(
  ('params', 'gradient'),
  [
    (_narrow(make_params()), jax.grad(_often_read_loss)),
    (
      make_params(),
      jax.grad(lambda params: _often_read_loss(_narrow(params))),
    ),
    (
      make_params(),
      lambda params: _narrow(jax.grad(_often_read_loss)(params)),
    ),
  ],
  ids=['parameters', 'parameters in the loss', 'gradients'],
)
def test_finetuning_ranks_by_exact_counts_in_bfloat16(params, gradient):
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optim.sparse_memory_finetuning(ADAMW, 1, rank_by='tf'),
  )
  with jax.numpy_dtype_promotion('standard'):
    new = tables.one_step(optimizer, params, gradient(params))
  _assert_changed(params, new, {9})
  for leaf, old in zip(*map(jax.tree.leaves, (new, params)), strict=True):
    assert leaf.dtype == old.dtype


def test_finetuning_with_gradient_accumulation():
  # Rows are ranked by the counts of all micro-batches together.
  optimizer = optax.MultiSteps(_finetuning(ADAMW), every_k_schedule=2)
  params = make_params()
  state = optimizer.init(params)
  batches = [tables.accesses(2), tables.accesses(7)]
  update = jax.jit(optimizer.update)
  with jax.numpy_dtype_promotion('standard'):
    for batch in batches:
      updates, state = update(_trainer_gradient(params, *batch), state, params)
  new_params = jax.jit(optax.apply_updates)(params, updates)
  slot_ids, mask = (np.concatenate([b[i] for b in batches]) for i in (0, 3))
  together = _selected(slot_ids, mask)
  _assert_changed(params, new_params, together)
  assert _selected(batches[1][0], batches[1][3]) != together


def test_finetuning_breaks_ties_the_same_in_every_step():
  # Every slot is read five times, in one micro-batch or in several. Averages
  # of three and scales by the norm leave that inexact.
  random = np.random.default_rng(0)
  counts = random.multinomial(5, [1 / 3] * 3, size=N).T  # [3, N]
  params = {'values': tables.table(), 'access_counts': counting.make_carrier(N)}
  optimizer = optax.MultiSteps(
    optax.chain(
      optax.clip_by_global_norm(1.0),
      optim.sparse_memory_finetuning(optax.sgd(1.0), T, rank_by='tf'),
    ),
    every_k_schedule=3,
  )
  step = tables.step(optimizer)
  state = optimizer.init(params)
  with jax.numpy_dtype_promotion('standard'):
    for number in range(30):
      carrier = carried(jnp.asarray(counts[number % 3], jnp.float32))
      gradients = {'values': tables.gradient(number), 'access_counts': carrier}
      params, state = step(params, state, gradients)
  # MultiSteps turns -0.0 into +0.0, so it is numbers that are compared.
  changed = np.any(params['values'] != tables.table(), axis=1)
  assert np.flatnonzero(changed).tolist() == list(range(T))


def test_finetuning_under_outside_global_norm_clipping():
  params = make_params()
  batch = tables.accesses(0)
  gradients = _trainer_gradient(params, *batch)
  values = gradients['memory']['values']
  without_carrier = gradients | {'memory': {'values': values}}
  assert np.any(gradients['memory']['access_counts'])
  norm = jax.jit(optax.tree.norm)
  assert norm(gradients) == norm(without_carrier) > 1e-2
  optimizer = optax.chain(optax.clip_by_global_norm(1e-2), _finetuning(ADAMW))
  new_params = tables.one_step(optimizer, params, gradients)
  _assert_changed(params, new_params, _selected(batch[0], batch[3]))


def test_finetuning_equals_keep_top_slots():
  params, batch = make_params(), tables.accesses(0)
  gradients = _trainer_gradient(params, *batch)
  chain = optax.chain(tables.lenient(ADAMW), optim.keep_top_slots(T))
  got, _ = _adamw_step(params, _finetuning(ADAMW).init(params), gradients)
  table = {'values': params['memory']['values']}
  want, _ = tables.step(chain)(
    table,
    chain.init(table),
    {'values': gradients['memory']['values']},
    slot_scores={'values': tables.slot_scores(batch[0], batch[3])},
  )
  np.testing.assert_allclose(
    got['memory']['values'], want['values'], rtol=1e-6, atol=1e-6
  )


def test_finetuning_keeps_no_state_for_frozen_leaves():
  state = optim.sparse_memory_finetuning(optax.adam(0.1), T).init(make_params())
  sizes = sorted(leaf.size for leaf in jax.tree.leaves(state))
  assert sizes == [1, 1, N * V, N * V]  # two scalars and the moments


def test_clipping_sees_the_selected_rows_as_update_rows_does():
  inner = tables.lenient(tables.INNER['clipped'])
  params, batch = make_params(), tables.accesses(0)
  gradients = _trainer_gradient(params, *batch)
  new = tables.one_step(_finetuning(tables.INNER['clipped']), params, gradients)
  table = params['memory']['values']
  slots = ranking.top_slots(tables.slot_scores(batch[0], batch[3]), T)
  rows = gradients['memory']['values'][slots]
  assert jnp.linalg.norm(rows) > 1
  want, _ = optim.update_rows(
    inner, optim.init_rows(inner, table), table, slots, rows
  )
  np.testing.assert_allclose(new['memory']['values'], want, rtol=1e-5)
