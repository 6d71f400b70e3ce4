"""Trainers that pass gradients only: t rows change, and no other bit.

Examples of whole trainers are in test_examples.py.
"""

from flax import nnx
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
# Its weight decay would change every row.
ADAMW = tables.INNER['adamw']


def _params():
  return {
    'memory': {
      'values': tables.table(),
      'access_counts': jnp.full((3, N), -0.0),
    },
    'head': jnp.full((V,), -0.0).at[0].set(1.0),
    'positions': jnp.ones((N, V)),
  }


def _trainer_loss(params, slot_ids, weights, targets, mask):
  """A model whose trainer passes gradients only."""
  reads = lookup.read_rows(params['memory']['values'], slot_ids, weights)
  reads = counting.count_carrier(
    params['memory']['access_counts'], slot_ids, reads
  )
  out = reads * (1 + params['head'][None, None, :]) + params['positions'][0, 0]
  return tables.loss(out, targets, mask)


_trainer_gradient = jax.jit(jax.grad(_trainer_loss))


def _carried(counts):
  return counting.make_carrier(N).at[0].set(counts * counting.COUNT_SCALE)


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


def _one_step(optimizer, params, gradients):
  return tables.step(optimizer)(params, optimizer.init(params), gradients)[0]


def _selected(slot_ids, mask):
  slots = ranking.top_slots(tables.slot_scores(slot_ids, mask), T).tolist()
  assert len(set(slots)) == T
  return set(slots)


@pytest.mark.parametrize('name', ['sgd', 'momentum', 'clipped'])
def test_finetuning_in_a_plain_loop(name):
  optimizer = _finetuning(tables.INNER[name])
  params = _params()
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
  start = params = _params()
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
    (_narrow(_params()), jax.grad(_often_read_loss)),
    (_params(), jax.grad(lambda params: _often_read_loss(_narrow(params)))),
    (_params(), lambda params: _narrow(jax.grad(_often_read_loss)(params))),
  ],
  ids=['parameters', 'parameters in the loss', 'gradients'],
)
def test_finetuning_ranks_by_exact_counts_in_bfloat16(params, gradient):
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optim.sparse_memory_finetuning(ADAMW, 1, rank_by='tf'),
  )
  with jax.numpy_dtype_promotion('standard'):
    new = _one_step(optimizer, params, gradient(params))
  _assert_changed(params, new, {9})
  for leaf, old in zip(*map(jax.tree.leaves, (new, params)), strict=True):
    assert leaf.dtype == old.dtype


def test_finetuning_with_gradient_accumulation():
  # Rows are ranked by the counts of all micro-batches together.
  optimizer = optax.MultiSteps(_finetuning(ADAMW), every_k_schedule=2)
  params = _params()
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
      carried = _carried(jnp.asarray(counts[number % 3], jnp.float32))
      gradients = {'values': tables.gradient(number), 'access_counts': carried}
      params, state = step(params, state, gradients)
  # MultiSteps turns -0.0 into +0.0, so it is numbers that are compared.
  changed = np.any(params['values'] != tables.table(), axis=1)
  assert np.flatnonzero(changed).tolist() == list(range(T))


def test_finetuning_under_outside_global_norm_clipping():
  params = _params()
  batch = tables.accesses(0)
  gradients = _trainer_gradient(params, *batch)
  values = gradients['memory']['values']
  without_carrier = gradients | {'memory': {'values': values}}
  assert np.any(gradients['memory']['access_counts'])
  norm = jax.jit(optax.tree.norm)
  assert norm(gradients) == norm(without_carrier) > 1e-2
  optimizer = optax.chain(optax.clip_by_global_norm(1e-2), _finetuning(ADAMW))
  new_params = _one_step(optimizer, params, gradients)
  _assert_changed(params, new_params, _selected(batch[0], batch[3]))


def test_finetuning_equals_keep_top_slots():
  params, batch = _params(), tables.accesses(0)
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
  state = optim.sparse_memory_finetuning(optax.adam(0.1), T).init(_params())
  sizes = sorted(leaf.size for leaf in jax.tree.leaves(state))
  assert sizes == [1, 1, N * V, N * V]  # two scalars and the moments


def test_clipping_sees_the_selected_rows_as_update_rows_does():
  inner = tables.lenient(tables.INNER['clipped'])
  params, batch = _params(), tables.accesses(0)
  gradients = _trainer_gradient(params, *batch)
  new = _one_step(_finetuning(tables.INNER['clipped']), params, gradients)
  table = params['memory']['values']
  slots = ranking.top_slots(tables.slot_scores(batch[0], batch[3]), T)
  rows = gradients['memory']['values'][slots]
  assert jnp.linalg.norm(rows) > 1
  want, _ = optim.update_rows(
    inner, optim.init_rows(inner, table), table, slots, rows
  )
  np.testing.assert_allclose(new['memory']['values'], want, rtol=1e-5)


def test_stacked_tables_are_ranked_layer_by_layer():
  one, two = tables.scores([6]), tables.scores([2])
  params = {
    'values': jnp.stack([tables.table()] * 2),
    'access_counts': jnp.stack([_carried(0.0)] * 2),
  }
  gradients = {
    'values': jnp.stack([tables.gradient()] * 2),
    'access_counts': jnp.stack([_carried(one), _carried(one + 2 * two)]),
  }
  frequency = jnp.zeros((2, N)).at[1, 2].set(7)
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0), 1, document_frequency=frequency, num_documents=7
  )
  new = _one_step(optimizer, params, gradients)
  for layer, slot in enumerate((6, 6)):
    old, changed = tables.table(), new['values'][layer]
    assert tables.changed(old, changed) == [slot]
  no_background = optim.sparse_memory_finetuning(optax.sgd(1.0), 1)
  new = _one_step(no_background, params, gradients)
  assert tables.changed(tables.table(), new['values'][1]) == [2]


def test_a_donated_state_leaves_the_background_to_its_owner():
  frequency, num_documents = jnp.arange(N, dtype=jnp.float32), jnp.float32(N)
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(0.1),
    T,
    document_frequency=frequency,
    num_documents=num_documents,
  )
  params = _params()
  for _ in range(2):
    state = optimizer.init(params)
    gradient = jax.tree.map(jnp.ones_like, params)
    step = jax.jit(optimizer.update, donate_argnums=1)
    step(gradient, state, params)
  assert state.document_frequency[0].is_deleted()
  assert not frequency.is_deleted()
  assert not num_documents.is_deleted()


def test_the_background_is_part_of_the_state():
  params = {'values': tables.table(), 'access_counts': _carried(0.0)}
  counts = tables.scores([3]) + tables.scores([3, 8])
  gradients = {'values': tables.gradient(), 'access_counts': _carried(counts)}
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0), 1, document_frequency=jnp.zeros(N), num_documents=7
  )
  step, state = tables.step(optimizer), optimizer.init(params)
  new, _ = step(params, state, gradients)
  assert tables.changed(params['values'], new['values']) == [3]
  [frequency] = state.document_frequency
  state = state._replace(document_frequency=(frequency.at[3].set(7),))
  new, _ = step(params, state, gradients)
  assert tables.changed(params['values'], new['values']) == [8]


class _Model(nnx.Module):
  def __init__(self):
    self.values = nnx.Param(tables.table())
    self.access_counts = nnx.Param(counting.make_carrier(N))


def test_finetuning_within_nnx_optimizer_and_without_background():
  model = _Model()
  optimizer = nnx.Optimizer(
    model, optim.sparse_memory_finetuning(optax.sgd(1.0), 2), wrt=nnx.Param
  )
  slot_ids = jnp.array([[4, 4, 9, 9, 9, 1]])

  def loss(model):
    reads = lookup.read_rows(model.values[...], slot_ids, jnp.ones((1, 6)))
    counts = model.access_counts[...]
    return jnp.sum(counting.count_carrier(counts, slot_ids, reads))

  @nnx.jit
  def step(model, optimizer):
    optimizer.update(model, nnx.grad(loss)(model))

  step(model, optimizer)
  assert tables.changed(tables.table(), model.values[...]) == [4, 9]
  assert not np.any(model.access_counts[...])


def test_finetuning_ranks_each_table_by_its_own_background():
  table = {'values': tables.table(), 'access_counts': _carried(0.0)}
  counts = jnp.zeros(N).at[jnp.array([3, 8])].set(jnp.array([2.0, 1.0]))
  gradient = {'values': tables.gradient(), 'access_counts': _carried(counts)}
  params, gradients = ({'a': one, 'b': one} for one in (table, gradient))
  frequency = jnp.zeros(N)
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0),
    1,
    document_frequency={
      "['a']['values']": frequency.at[3].set(7),
      "['b']['values']": frequency,
    },
    num_documents=7,
  )
  new = _one_step(optimizer, params, gradients)
  assert tables.changed(tables.table(), new['a']['values']) == [8]
  assert tables.changed(tables.table(), new['b']['values']) == [3]


def test_finetuning_finds_leaves_by_other_names():
  def ends_in(name):
    return lambda path: path[-1].key == name

  params = {
    'embedding': tables.table(),
    'n': _carried(0.0),
    'values': jnp.ones(3),
  }
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0),
    1,
    is_values=ends_in('embedding'),
    is_carrier=ends_in('n'),
    rank_by='tf',
  )
  carried = {'n': _carried(tables.scores([6]))}
  gradients = jax.tree.map(jnp.ones_like, params) | carried
  new = _one_step(optimizer, params, gradients)
  assert tables.changed(tables.table(), new['embedding']) == [6]
  assert tables.changed(params['values'], new['values']) == []


@pytest.mark.parametrize(
  ('kwargs', 'params', 'message'),
  [
    ({'rank_by': 'tfidf'}, _params(), "'tfidf'.*tf_idf"),
    (
      {'document_frequency': np.full(N, 7)},
      _params(),
      'is up to 7, more than num_documents = 1: give the number',
    ),
    ({}, {'head': jnp.ones(3)}, 'found 0 value tables and 0 count'),
    ({}, {'values': tables.table()}, 'found 1 value tables and 0 count'),
    (
      {},
      {'values': tables.table(), 'access_counts': jnp.zeros((3, N + 1))},
      'to count the accesses of',
    ),
    (
      {},
      {'values': jnp.ones((T - 1, V)), 'access_counts': jnp.zeros((3, T - 1))},
      f't = {T} is more than the {T - 1} slots',
    ),
  ],
)
def test_finetuning_refuses(kwargs, params, message):
  with pytest.raises(ValueError, match=message) as error:
    optim.sparse_memory_finetuning(optax.sgd(1.0), T, **kwargs).init(params)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('frequency', 'dtype', 'message'),
  [
    (jnp.zeros(N + 2), 'float32', r"\['memory'\]\['values'\] must have shape"),
    (
      {"['values']": jnp.zeros(N)},
      'float32',
      r"has no \['memory'\]\['values'\], only",
    ),
    (jnp.zeros(N), 'float16', r'float16: leave count .*cast\.$'),
  ],
  ids=['another table', 'no such table', 'cannot hold counts'],
)
def test_finetuning_refuses_to_update(frequency, dtype, message):
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0), T, document_frequency=frequency, num_documents=3
  )
  params = _params()
  gradients = jax.tree.map(lambda x: x.astype(dtype), params)
  with pytest.raises(ValueError, match=message):
    optimizer.update(gradients, optimizer.init(params), params)
