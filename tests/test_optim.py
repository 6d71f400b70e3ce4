"""Optax contracts, and that only the selected rows change a bit.

Rows' own gradients are in test_update_rows.py, trainers that pass gradients
only in test_sparse_memory_finetuning.py.
"""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import optim
from tests.support import value_tables as tables

N, V, T = tables.N, tables.V, tables.T
all_inner = pytest.mark.parametrize('name', list(tables.INNER))

pytestmark = pytest.mark.usefixtures('quick_compilation')


@tables.inner_and_dtype
def test_keep_top_slots_changes_selected_rows_only(name, dtype):
  optimizer = optax.chain(
    tables.lenient(tables.INNER[name]), optim.keep_top_slots(3)
  )
  params = {'values': tables.table(dtype)}
  state = optimizer.init(params)
  step = tables.step(optimizer)
  # Row 2 has moments when it is not selected, and keeps still all the same.
  for seed, slots in enumerate([(2, 5, 11), (5, 7), (19, 5, 0)]):
    new_params, state = step(
      params,
      state,
      {'values': tables.gradient(seed, dtype)},
      slot_scores={'values': tables.scores(slots)},
    )
    assert new_params['values'].dtype == dtype
    assert tables.changed(params['values'], new_params['values']) == sorted(
      slots
    )
    params = new_params
  assert step._cache_size() == 1  # traced once


def test_keep_top_slots_not_last_moves_other_rows():
  # Why it must be last, and that the test above can fail.
  optimizer = optax.chain(
    optim.keep_top_slots(1), tables.lenient(optax.adamw(0.1, weight_decay=0.1))
  )
  params = {'values': tables.table()}
  new_params, _ = tables.step(optimizer)(
    params,
    optimizer.init(params),
    {'values': tables.gradient()},
    slot_scores={'values': tables.scores([3])},
  )
  assert len(tables.changed(params['values'], new_params['values'])) == N


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
def test_keep_top_slots_keeps_dtype_and_drops_nan_of_other_rows(dtype):
  optimizer, rows = optim.keep_top_slots(2), jnp.array([4, 9])
  gradient = tables.gradient(dtype=dtype)
  updates = jnp.full_like(gradient, jnp.nan).at[rows].set(gradient[rows])
  kept, _ = optimizer.update(
    updates, optimizer.init(updates), slot_scores=tables.scores([4, 9])
  )
  assert kept.dtype == dtype
  want = jnp.full_like(updates, -0.0).at[rows].set(gradient[rows])
  np.testing.assert_array_equal(tables.bits(kept), tables.bits(want))


def test_keep_top_slots_takes_the_best_scores_of_each_table():
  optimizer = optim.keep_top_slots(2)
  params = {'a': jnp.zeros((3, 2)), 'b': [jnp.zeros((5, 1))]}
  kept, _ = optimizer.update(
    jax.tree.map(jnp.ones_like, params),
    optimizer.init(params),
    slot_scores={
      'a': jnp.array([0.0, 0.3, jnp.nan]),
      'b': [jnp.array([0.1, 0.2, 0.2, 0.2, 0.1])],
    },
  )
  assert kept['a'][:, 0].tolist() == [0, 1, 0]
  assert kept['b'][0][:, 0].tolist() == [0, 1, 1, 0, 0]


def test_keep_top_slots_keeps_t_rows_of_each_stacked_table():
  optimizer = optim.keep_top_slots(2)
  params = jnp.zeros((3, N, V))
  slots = ([1, 4], [22], [0, 9])
  kept, _ = optimizer.update(
    jnp.ones_like(params),
    optimizer.init(params),
    slot_scores=jnp.stack([tables.scores(one) for one in slots]),
  )
  for layer, one in zip(kept, slots, strict=True):
    assert jnp.flatnonzero(layer[:, 0]).tolist() == one
  with pytest.raises(ValueError, match=r'must have shape \(3, 23\), got .*23'):
    optimizer.update(
      params, optimizer.init(params), slot_scores=tables.scores([1])
    )


def test_keep_top_slots_ignores_unknown_extras():
  optimizer = optax.chain(optax.sgd(0.5), optim.keep_top_slots(2))
  updates, _ = optimizer.update(
    tables.gradient(),
    optimizer.init(tables.table()),
    tables.table(),
    slot_scores=tables.scores([1]),
    loss=jnp.array(3.0),
    value_fn=lambda x: x,
  )
  assert tables.changed(jnp.full((N, V), -0.0), updates) == [1]


def test_keep_top_slots_without_scores_is_a_type_error():
  optimizer = optim.keep_top_slots(2)
  state = optimizer.init(tables.table())
  with pytest.raises(TypeError, match='slot_scores'):
    optimizer.update(tables.gradient(), state, tables.table())


@all_inner
def test_abstract_init(name):
  params = {'values': tables.table(), 'access_counts': jnp.zeros((3, N))}
  optimizer = optim.sparse_memory_finetuning(tables.INNER[name], 2)
  chain = optax.chain(tables.INNER[name], optim.keep_top_slots(2))
  for transform, tree in (
    (optimizer, params),
    (chain, {'values': tables.table()}),
  ):
    abstract = jax.eval_shape(transform.init, tree)
    concrete = transform.init(tree)
    assert jax.tree.structure(abstract) == jax.tree.structure(concrete)
    for a, c in zip(
      jax.tree.leaves(abstract), jax.tree.leaves(concrete), strict=True
    ):
      assert (a.shape, a.dtype) == (c.shape, c.dtype)


@pytest.mark.parametrize('whole_tree', [True, False])
@pytest.mark.parametrize('wrap', ['masked', 'partition'])
def test_keep_top_slots_within_masked_and_partition(wrap, whole_tree):
  inner = optax.chain(
    tables.lenient(optax.adamw(0.1, weight_decay=0.1)), optim.keep_top_slots(2)
  )
  is_table = {'memory': {'values': True, 'gate': False}, 'head': False}
  if wrap == 'masked':
    optimizer = optax.masked(inner, is_table)
  else:
    optimizer = optax.partition(
      {'table': inner, 'rest': optax.sgd(1.0)},
      jax.tree.map(lambda table: 'table' if table else 'rest', is_table),
    )
  params = {
    'memory': {'values': tables.table(), 'gate': jnp.ones((V, V))},
    'head': jnp.ones(3),
  }
  gradients = jax.tree.map(jnp.ones_like, params)
  scores = {'memory': {'values': tables.scores([8, 2])}}
  if whole_tree:
    scores = {
      'memory': scores['memory'] | {'gate': jnp.ones(V)},
      'head': jnp.ones(1),
    }
  new_params, _ = tables.step(optimizer)(
    params, optimizer.init(params), gradients, slot_scores=scores
  )
  assert tables.changed(
    params['memory']['values'], new_params['memory']['values']
  ) == [2, 8]
  # masked passes the gradients of the rest through, partition's SGD descends.
  want = 2.0 if wrap == 'masked' else 0.0
  np.testing.assert_array_equal(new_params['head'], want)


class _Model(nnx.Module):
  def __init__(self):
    self.values = nnx.Param(tables.table())


def test_keep_top_slots_within_nnx_optimizer():
  model = _Model()
  of_table = nnx.All(nnx.Param, nnx.PathContains('values'))
  optimizer = nnx.Optimizer(
    model,
    optax.chain(tables.lenient(optax.adamw(0.1)), optim.keep_top_slots(2)),
    wrt=of_table,
  )
  gradients = jax.tree.map(jnp.ones_like, nnx.state(model, of_table))
  scores = jax.tree.map(lambda _: tables.scores([8, 2]), gradients)
  optimizer.update(model, gradients, slot_scores=scores)
  assert tables.changed(tables.table(), model.values[...]) == [2, 8]


@pytest.mark.parametrize('phase', ['init', 'update'])
@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((2, V), 't = 3 is more than the 2 slots'),
    ((N,), r"\['values'\] must be a value table"),
    ((N, 2, 1), 't = 3 is more than the 2 slots'),
  ],
)
def test_keep_top_slots_refuses_what_is_no_table(phase, shape, message):
  optimizer = optim.keep_top_slots(3)
  tree = {'values': jnp.ones(shape)}
  scores = {'values': jnp.ones(shape[0])}
  call = {
    'init': lambda: optimizer.init(tree),
    'update': lambda: optimizer.update(
      tree, optax.EmptyState(), slot_scores=scores
    ),
  }[phase]
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.parametrize(
  'scores',
  [
    {},
    {'value': tables.scores([1])},
    {'values': jnp.ones(N + 1)},
    {'values': None},
  ],
)
def test_keep_top_slots_refuses_scores_that_do_not_fit(scores):
  optimizer = optim.keep_top_slots(3)
  tree = {'values': tables.table()}
  with pytest.raises(ValueError, match=r"slot_scores\['values'\] must have"):
    optimizer.update(tree, optimizer.init(tree), slot_scores=scores)


def test_t_below_one_is_refused_at_once():
  with pytest.raises(ValueError, match='t = 0'):
    optim.keep_top_slots(0)
  with pytest.raises(ValueError, match='t = 0'):
    optim.sparse_memory_finetuning(optax.sgd(1.0), 0)
