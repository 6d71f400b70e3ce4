"""Trainers that pass gradients only: which tables, and which background."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import counting
from smft_jax import lookup
from smft_jax import optim
from tests.support import value_tables as tables

pytestmark = pytest.mark.usefixtures('quick_compilation')

N, V, T = tables.N, tables.V, tables.T
carried = tables.carried
make_params = tables.params


def test_stacked_tables_are_ranked_layer_by_layer():
  one, two = tables.scores([6]), tables.scores([2])
  params = {
    'values': jnp.stack([tables.table()] * 2),
    'access_counts': jnp.stack([carried(0.0)] * 2),
  }
  gradients = {
    'values': jnp.stack([tables.gradient()] * 2),
    'access_counts': jnp.stack([carried(one), carried(one + 2 * two)]),
  }
  frequency = jnp.zeros((2, N)).at[1, 2].set(7)
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0), 1, document_frequency=frequency, num_documents=7
  )
  new = tables.one_step(optimizer, params, gradients)
  for layer, slot in enumerate((6, 6)):
    old, changed = tables.table(), new['values'][layer]
    assert tables.changed(old, changed) == [slot]
  no_background = optim.sparse_memory_finetuning(optax.sgd(1.0), 1)
  new = tables.one_step(no_background, params, gradients)
  assert tables.changed(tables.table(), new['values'][1]) == [2]


def test_a_donated_state_leaves_the_background_to_its_owner():
  frequency, num_documents = jnp.arange(N, dtype=jnp.float32), jnp.float32(N)
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(0.1),
    T,
    document_frequency=frequency,
    num_documents=num_documents,
  )
  params = make_params()
  for _ in range(2):
    state = optimizer.init(params)
    gradient = jax.tree.map(jnp.ones_like, params)
    step = jax.jit(optimizer.update, donate_argnums=1)
    step(gradient, state, params)
  assert state.document_frequency[0].is_deleted()
  assert not frequency.is_deleted()
  assert not num_documents.is_deleted()


def test_the_background_is_part_of_the_state():
  params = {'values': tables.table(), 'access_counts': carried(0.0)}
  counts = tables.scores([3]) + tables.scores([3, 8])
  gradients = {
    'values': tables.gradient(),
    'access_counts': carried(counts),
  }
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
  table = {'values': tables.table(), 'access_counts': carried(0.0)}
  counts = jnp.zeros(N).at[jnp.array([3, 8])].set(jnp.array([2.0, 1.0]))
  gradient = {
    'values': tables.gradient(),
    'access_counts': carried(counts),
  }
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
  new = tables.one_step(optimizer, params, gradients)
  assert tables.changed(tables.table(), new['a']['values']) == [8]
  assert tables.changed(tables.table(), new['b']['values']) == [3]


def test_finetuning_finds_leaves_by_other_names():
  def ends_in(name):
    return lambda path: path[-1].key == name

  params = {
    'embedding': tables.table(),
    'n': carried(0.0),
    'values': jnp.ones(3),
  }
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0),
    1,
    is_values=ends_in('embedding'),
    is_carrier=ends_in('n'),
    rank_by='tf',
  )
  counted = {'n': carried(tables.scores([6]))}
  gradients = jax.tree.map(jnp.ones_like, params) | counted
  new = tables.one_step(optimizer, params, gradients)
  assert tables.changed(tables.table(), new['embedding']) == [6]
  assert tables.changed(params['values'], new['values']) == []


@pytest.mark.parametrize(
  ('kwargs', 'params', 'message'),
  [
    ({'rank_by': 'tfidf'}, make_params(), "'tfidf'.*tf_idf"),
    (
      {'document_frequency': np.full(N, 7)},
      make_params(),
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
  params = make_params()
  gradients = jax.tree.map(lambda x: x.astype(dtype), params)
  with pytest.raises(ValueError, match=message):
    optimizer.update(gradients, optimizer.init(params), params)
