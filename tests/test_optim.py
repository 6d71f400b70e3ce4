"""Optax contracts, and that nothing but the selected rows changes a bit."""

import functools

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

N, V, T = 23, 5, 7


def _lenient(inner):
  """Runs foreign code that mixes dtypes, as optax's Adam does, leniently."""
  inner = optax.with_extra_args_support(inner)

  def update(*args, **kwargs):
    with jax.numpy_dtype_promotion('standard'):
      return inner.update(*args, **kwargs)

  return optax.GradientTransformationExtraArgs(inner.init, update)


INNER = {
  'sgd': optax.sgd(0.5),
  'momentum': optax.sgd(0.5, momentum=0.9),
  'adam': optax.adam(0.1),
  'adamw': optax.adamw(0.1, weight_decay=0.1),
  'clipped': optax.chain(
    optax.add_decayed_weights(0.1),
    optax.clip_by_global_norm(1.0),
    optax.sgd(0.5),
  ),
}
all_inner = pytest.mark.parametrize('name', list(INNER))


def _table(dtype=jnp.float32, seed=0):
  table = np.random.default_rng(seed).normal(size=(N, V))
  # x + 0.0 is not x for x = -0.0: the usual way to lose bits.
  table[:, 0] = -0.0
  return jnp.asarray(table, dtype)


def _gradient(seed=1, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(N, V)), dtype)


def _scores(slots):
  """Scores by which exactly `slots` are selected."""
  return jnp.asarray(np.isin(np.arange(N), slots), jnp.float32)


def _bits(array):
  return np.asarray(array).view(np.uint8).reshape(len(array), -1)


def _changed(old, new):
  """Indices of the rows of which any bit differs."""
  return np.flatnonzero(np.any(_bits(old) != _bits(new), axis=1)).tolist()


def _step(optimizer):
  @jax.jit
  def step(params, state, gradients, **extra):
    updates, state = optimizer.update(gradients, state, params, **extra)
    return optax.apply_updates(params, updates), state

  return step


@all_inner
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_keep_top_slots_changes_selected_rows_only(name, dtype):
  optimizer = optax.chain(_lenient(INNER[name]), optim.keep_top_slots(3))
  params = {'values': _table(dtype)}
  state = optimizer.init(params)
  step = _step(optimizer)
  # Row 2 has moments when it is not selected, and keeps still all the same.
  for seed, slots in enumerate([(2, 5, 11), (5, 7), (19, 5, 0)]):
    new_params, state = step(
      params,
      state,
      {'values': _gradient(seed, dtype)},
      slot_scores={'values': _scores(slots)},
    )
    assert new_params['values'].dtype == dtype
    assert _changed(params['values'], new_params['values']) == sorted(slots)
    params = new_params


def test_keep_top_slots_not_last_moves_other_rows():
  # Why it must be last, and that the test above can fail.
  optimizer = optax.chain(
    optim.keep_top_slots(1), _lenient(optax.adamw(0.1, weight_decay=0.1))
  )
  params = {'values': _table()}
  new_params, _ = _step(optimizer)(
    params,
    optimizer.init(params),
    {'values': _gradient()},
    slot_scores={'values': _scores([3])},
  )
  assert len(_changed(params['values'], new_params['values'])) == N


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
def test_keep_top_slots_keeps_dtype_and_kept_updates(dtype):
  optimizer = optim.keep_top_slots(2)
  updates = _gradient(dtype=dtype)
  kept, _ = optimizer.update(
    updates, optimizer.init(updates), slot_scores=_scores([4, 9])
  )
  assert kept.dtype == dtype
  want = (
    jnp.full_like(updates, -0.0)
    .at[jnp.array([4, 9])]
    .set(updates[jnp.array([4, 9])])
  )
  np.testing.assert_array_equal(_bits(kept), _bits(want))


def test_keep_top_slots_drops_nan_of_other_rows():
  optimizer = optim.keep_top_slots(1)
  updates = jnp.full((N, V), jnp.nan).at[3].set(1.0)
  kept, _ = optimizer.update(
    updates, optimizer.init(updates), slot_scores=_scores([3])
  )
  assert np.all(np.isfinite(kept))


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


def test_keep_top_slots_ignores_unknown_extras():
  optimizer = optax.chain(optax.sgd(0.5), optim.keep_top_slots(2))
  updates, _ = optimizer.update(
    _gradient(),
    optimizer.init(_table()),
    _table(),
    slot_scores=_scores([1]),
    loss=jnp.array(3.0),
    value_fn=lambda x: x,
  )
  assert _changed(jnp.full((N, V), -0.0), updates) == [1]


def test_keep_top_slots_without_scores_is_a_type_error():
  optimizer = optim.keep_top_slots(2)
  state = optimizer.init(_table())
  with pytest.raises(TypeError, match='slot_scores'):
    optimizer.update(_gradient(), state, _table())


def test_keep_top_slots_traces_once():
  optimizer = optax.chain(optax.sgd(0.5), optim.keep_top_slots(2))
  traces = []

  @jax.jit
  def step(table, state, gradient, scores):
    traces.append(1)
    updates, state = optimizer.update(
      gradient, state, table, slot_scores=scores
    )
    return optax.apply_updates(table, updates), state

  table, state = _table(), optimizer.init(_table())
  for seed in range(3):
    table, state = step(table, state, _gradient(seed), _scores([seed]))
  assert len(traces) == 1


@all_inner
def test_abstract_init(name):
  params = {'values': _table(), 'access_counts': jnp.zeros(N)}
  optimizer = optim.sparse_memory_finetuning(INNER[name], 2)
  chain = optax.chain(INNER[name], optim.keep_top_slots(2))
  for transform, tree in ((optimizer, params), (chain, {'values': _table()})):
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
  tables = optax.chain(
    _lenient(optax.adamw(0.1, weight_decay=0.1)), optim.keep_top_slots(2)
  )
  is_table = {'memory': {'values': True, 'gate': False}, 'head': False}
  if wrap == 'masked':
    optimizer = optax.masked(tables, is_table)
  else:
    optimizer = optax.partition(
      {'table': tables, 'rest': optax.sgd(1.0)},
      jax.tree.map(lambda table: 'table' if table else 'rest', is_table),
    )
  params = {
    'memory': {'values': _table(), 'gate': jnp.ones((V, V))},
    'head': jnp.ones(3),
  }
  gradients = jax.tree.map(jnp.ones_like, params)
  scores = {'memory': {'values': _scores([8, 2])}}
  if whole_tree:
    scores = {
      'memory': scores['memory'] | {'gate': jnp.ones(V)},
      'head': jnp.ones(1),
    }
  new_params, _ = _step(optimizer)(
    params, optimizer.init(params), gradients, slot_scores=scores
  )
  assert _changed(
    params['memory']['values'], new_params['memory']['values']
  ) == [2, 8]
  # masked passes the gradients of the rest through, partition's SGD descends.
  want = 2.0 if wrap == 'masked' else 0.0
  np.testing.assert_array_equal(new_params['head'], want)


class _Model(nnx.Module):
  def __init__(self):
    self.values = nnx.Param(_table())
    self.access_counts = nnx.Param(jnp.zeros(N))


def test_keep_top_slots_within_nnx_optimizer():
  model = _Model()
  of_table = nnx.All(nnx.Param, nnx.PathContains('values'))
  optimizer = nnx.Optimizer(
    model,
    optax.chain(_lenient(optax.adamw(0.1)), optim.keep_top_slots(2)),
    wrt=of_table,
  )
  gradients = jax.tree.map(jnp.ones_like, nnx.state(model, of_table))
  scores = jax.tree.map(lambda _: _scores([8, 2]), gradients)
  optimizer.update(model, gradients, slot_scores=scores)
  assert _changed(_table(), model.values[...]) == [2, 8]


@pytest.mark.parametrize('phase', ['init', 'update'])
@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((2, V), 't = 3 is more than the 2 slots'),
    ((N,), r"\['values'\] must be a value table"),
    ((N, V, 1), r"\['values'\] must be a value table"),
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
  [{}, {'value': _scores([1])}, {'values': jnp.ones(N + 1)}, {'values': None}],
)
def test_keep_top_slots_refuses_scores_that_do_not_fit(scores):
  optimizer = optim.keep_top_slots(3)
  tree = {'values': _table()}
  with pytest.raises(ValueError, match=r"slot_scores\['values'\] must have"):
    optimizer.update(tree, optimizer.init(tree), slot_scores=scores)


@pytest.mark.parametrize(
  'factory',
  [
    lambda: optim.keep_top_slots(0),
    lambda: optim.sparse_memory_finetuning(optax.sgd(1.0), 0),
  ],
)
def test_t_below_one_is_refused_at_once(factory):
  with pytest.raises(ValueError, match='t = 0'):
    factory()


# --- update_rows ---


@all_inner
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_update_rows_is_lazy(name, dtype):
  inner = _lenient(INNER[name])
  step = jax.jit(functools.partial(optim.update_rows, inner))
  table = _table(dtype)
  state = inner.init(table)
  for seed, slots in enumerate([(2, 5, 11), (7, 5, N), (19, 0, N)]):
    gradients = _gradient(seed)[: len(slots)]
    new_table, new_state = step(state, table, np.int32(slots), gradients)
    selected = sorted(set(slots) - {N})
    assert new_table.dtype == dtype
    assert _changed(table, new_table) == selected
    for old, new in zip(
      jax.tree.leaves(state), jax.tree.leaves(new_state), strict=True
    ):
      assert (old.shape, old.dtype) == (new.shape, new.dtype)
      if old.ndim:
        assert _changed(old, new) == selected  # moments
      else:
        assert new == old + 1  # step counts
    table, state = new_table, new_state


@all_inner
def test_update_rows_with_all_rows_is_the_dense_optimizer(name):
  inner = _lenient(INNER[name])
  order = np.random.default_rng(3).permutation(N)
  step = jax.jit(functools.partial(optim.update_rows, inner))
  dense_step = _step(inner)
  table = dense = _table()
  state = dense_state = inner.init(table)
  for seed in range(3):
    gradient = _gradient(seed)
    table, state = step(state, table, order, gradient[order])
    dense, dense_state = dense_step(dense, dense_state, gradient)
  for got, want in zip(
    jax.tree.leaves((table, state)),
    jax.tree.leaves((dense, dense_state)),
    strict=True,
  ):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


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
  inner = INNER['clipped']
  table, state = _table(), INNER['clipped'].init(_table())
  gradients = _gradient()[:3].at[1:].set(0)
  step = jax.jit(functools.partial(optim.update_rows, inner))
  alone, _ = step(state, table, jnp.array([4]), gradients[:1])
  padded, _ = step(state, table, jnp.array([4, N, N]), gradients)
  np.testing.assert_allclose(padded, alone, rtol=1e-6)


@all_inner
def test_update_rows_works_in_place(name):
  inner = _lenient(INNER[name])
  table = jnp.zeros((10_007, V))

  @functools.partial(jax.jit, donate_argnums=0)
  def step(table_and_state, slots, gradients):
    table, state = table_and_state
    return optim.update_rows(inner, state, table, slots, gradients)

  compiled = step.lower(
    (table, inner.init(table)), jnp.arange(T), jnp.ones((T, V))
  ).compile()
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
      inner.init(_table()),
      _table(),
      jnp.zeros(slots, jnp.int32),
      jnp.ones(gradients),
    )


def test_update_rows_refuses_factored_state():
  inner = optax.scale_by_factored_rms(min_dim_size_to_factor=1)
  with pytest.raises(ValueError, match='elementwise optimizer'):
    optim.update_rows(
      inner, inner.init(_table()), _table(), jnp.array([1]), jnp.ones((1, V))
    )


def _accesses(step):
  random = np.random.default_rng(step)
  slot_ids = jnp.asarray(random.integers(0, N, (3, 11, 4)), jnp.int32)
  weights = jnp.asarray(random.uniform(size=(3, 11, 4)), jnp.float32)
  targets = jnp.asarray(random.normal(size=(3, 11, V)), jnp.float32)
  return slot_ids, weights, targets, jnp.asarray(random.random((3, 11)) < 0.7)


def _loss(reads, targets, mask):
  return jnp.sum(jnp.where(mask[..., None], (reads - targets) ** 2, 0))


FREQUENCY = jnp.arange(N, dtype=jnp.float32) % 7


@jax.jit
def _slot_scores(slot_ids, mask):
  counts = ranking.count_accesses(slot_ids, N, mask)
  return ranking.tf_idf(counts, FREQUENCY, 7)


def test_dense_and_rows_agree_under_sgd():
  sgd = optax.sgd(0.03)
  dense_optimizer = optax.chain(sgd, optim.keep_top_slots(T))

  @jax.jit
  def dense_step(table, state, slot_ids, weights, targets, mask):
    gradient = jax.grad(
      lambda v: _loss(lookup.read_rows(v, slot_ids, weights), targets, mask)
    )(table)
    updates, state = dense_optimizer.update(
      gradient, state, table, slot_scores=_slot_scores(slot_ids, mask)
    )
    return optax.apply_updates(table, updates), state

  @jax.jit
  def rows_step(table, state, slot_ids, weights, targets, mask):
    reads = lookup.read_rows(table, slot_ids, weights)
    slots = ranking.top_slots(_slot_scores(slot_ids, mask), T)
    gradients = lookup.row_gradient(
      jax.grad(_loss)(reads, targets, mask), slot_ids, weights, slots
    )
    return optim.update_rows(sgd, state, table, slots, gradients)

  dense = rows = start = _table()
  dense_state, rows_state = dense_optimizer.init(start), sgd.init(start)
  for step in range(5):
    dense, dense_state = dense_step(dense, dense_state, *_accesses(step))
    rows, rows_state = rows_step(rows, rows_state, *_accesses(step))
  assert _changed(start, rows) == _changed(start, dense)
  assert 0 < len(_changed(start, rows)) < N
  np.testing.assert_allclose(rows, dense, rtol=1e-6, atol=1e-6)


# --- sparse_memory_finetuning ---


def _params():
  return {
    'memory': {'values': _table(), 'access_counts': jnp.full(N, -0.0)},
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
  return _loss(out, targets, mask)


_trainer_gradient = jax.jit(jax.grad(_trainer_loss))


def _finetuning(inner, **kwargs):
  return optim.sparse_memory_finetuning(
    _lenient(inner),
    T,
    document_frequency=FREQUENCY,
    num_documents=7,
    **kwargs,
  )


def _check_step(old, new, slot_ids, mask):
  """Exactly the top-t rows changed, and no other bit anywhere."""
  want = ranking.top_slots(_slot_scores(slot_ids, mask), T)
  assert len(set(want.tolist())) == T
  assert _changed(old['memory']['values'], new['memory']['values']) == sorted(
    want.tolist()
  )
  for pick in (
    lambda p: p['memory']['access_counts'],
    lambda p: p['head'],
    lambda p: p['positions'],
  ):
    assert _changed(pick(old), pick(new)) == []


@all_inner
def test_finetuning_in_a_plain_loop(name):
  optimizer = _finetuning(INNER[name])
  params = _params()
  state = optimizer.init(params)
  step = _step(optimizer)
  for number in range(3):
    batch = _accesses(number)
    new_params, state = step(params, state, _trainer_gradient(params, *batch))
    _check_step(params, new_params, batch[0], batch[3])
    params = new_params


def test_finetuning_with_gradient_accumulation():
  # Rows are ranked by the counts of all micro-batches together.
  optimizer = optax.MultiSteps(
    _finetuning(optax.adamw(0.1, weight_decay=0.1)), every_k_schedule=2
  )
  params = _params()
  state = optimizer.init(params)
  batches = [_accesses(2), _accesses(5)]
  update = jax.jit(optimizer.update)
  with jax.numpy_dtype_promotion('standard'):
    for batch in batches:
      updates, state = update(_trainer_gradient(params, *batch), state, params)
  new_params = optax.apply_updates(params, updates)
  slot_ids, mask = (
    jnp.concatenate([b[part] for b in batches]) for part in (0, 3)
  )
  _check_step(params, new_params, slot_ids, mask)
  alone = ranking.top_slots(_slot_scores(batches[1][0], batches[1][3]), T)
  assert set(alone.tolist()) != set(
    _changed(params['memory']['values'], new_params['memory']['values'])
  )


def test_finetuning_under_outside_global_norm_clipping():
  params = _params()
  batch = _accesses(0)
  gradients = _trainer_gradient(params, *batch)
  without_carrier = {
    **gradients,
    'memory': {'values': gradients['memory']['values']},
  }
  assert np.any(gradients['memory']['access_counts'])
  assert optax.tree.norm(gradients) == optax.tree.norm(without_carrier)
  assert optax.tree.norm(gradients) > 1e-2
  optimizer = optax.chain(
    optax.clip_by_global_norm(1e-2),
    _finetuning(optax.adamw(0.1, weight_decay=0.1)),
  )
  new_params, _ = _step(optimizer)(params, optimizer.init(params), gradients)
  _check_step(params, new_params, batch[0], batch[3])


def test_finetuning_equals_keep_top_slots():
  params, batch = _params(), _accesses(0)
  gradients = _trainer_gradient(params, *batch)
  inner = _lenient(optax.adamw(0.1, weight_decay=0.1))
  wrapped = _finetuning(optax.adamw(0.1, weight_decay=0.1))
  chain = optax.chain(inner, optim.keep_top_slots(T))
  got, _ = _step(wrapped)(params, wrapped.init(params), gradients)
  tables = {'values': params['memory']['values']}
  want, _ = _step(chain)(
    tables,
    chain.init(tables),
    {'values': gradients['memory']['values']},
    slot_scores={'values': _slot_scores(batch[0], batch[3])},
  )
  np.testing.assert_allclose(
    got['memory']['values'], want['values'], rtol=1e-6, atol=1e-6
  )


def test_finetuning_keeps_no_state_for_frozen_leaves():
  state = optim.sparse_memory_finetuning(optax.adam(0.1), T).init(_params())
  assert sorted(leaf.size for leaf in jax.tree.leaves(state)) == [
    1,
    N * V,
    N * V,
  ]


def test_finetuning_within_nnx_optimizer_and_without_background():
  model = _Model()
  optimizer = nnx.Optimizer(
    model, optim.sparse_memory_finetuning(optax.sgd(1.0), 2), wrt=nnx.Param
  )
  slot_ids = jnp.array([[4, 4, 9, 9, 9, 1]])

  def loss(model):
    reads = lookup.read_rows(
      model.values[...], slot_ids, jnp.ones(slot_ids.shape)
    )
    return jnp.sum(
      counting.count_carrier(model.access_counts[...], slot_ids, reads)
    )

  optimizer.update(model, nnx.jit(nnx.grad(loss))(model))
  assert _changed(_table(), model.values[...]) == [4, 9]
  assert not np.any(model.access_counts[...])


def test_finetuning_ranks_each_table_by_its_own_background():
  params = {
    name: {'values': _table(), 'access_counts': jnp.zeros(N)}
    for name in ('a', 'b')
  }
  counts = jnp.zeros(N).at[jnp.array([3, 8])].set(jnp.array([2.0, 1.0]))
  gradients = {
    name: {
      'values': _gradient(),
      'access_counts': counts * counting.COUNT_SCALE,
    }
    for name in ('a', 'b')
  }
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
  new, _ = _step(optimizer)(params, optimizer.init(params), gradients)
  assert _changed(_table(), new['a']['values']) == [8]
  assert _changed(_table(), new['b']['values']) == [3]


def test_finetuning_finds_leaves_by_other_names():
  def ends_in(name):
    return lambda path: path[-1].key == name

  params = {'embedding': _table(), 'n': jnp.zeros(N), 'values': jnp.ones(3)}
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0),
    1,
    is_values=ends_in('embedding'),
    is_carrier=ends_in('n'),
    rank_by='tf',
  )
  gradients = jax.tree.map(jnp.ones_like, params) | {'n': _scores([6])}
  new, _ = _step(optimizer)(params, optimizer.init(params), gradients)
  assert _changed(_table(), new['embedding']) == [6]
  assert _changed(params['values'], new['values']) == []


@pytest.mark.parametrize(
  ('kwargs', 'params', 'message'),
  [
    ({'rank_by': 'tfidf'}, _params(), "'tfidf'.*tf_idf"),
    ({}, {'head': jnp.ones(3)}, 'found 0 value tables and 0 count'),
    ({}, {'values': _table()}, 'found 1 value tables and 0 count'),
    (
      {},
      {'values': _table(), 'access_counts': jnp.zeros(N + 1)},
      'to count the accesses of',
    ),
    (
      {},
      {'values': jnp.ones((T - 1, V)), 'access_counts': jnp.zeros(T - 1)},
      f't = {T} is more than the {T - 1} slots',
    ),
  ],
)
def test_finetuning_refuses(kwargs, params, message):
  with pytest.raises(ValueError, match=message) as error:
    optim.sparse_memory_finetuning(optax.sgd(1.0), T, **kwargs).init(params)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('frequency', 'message'),
  [
    (jnp.zeros(N + 2), r"for \['memory'\]\['values'\] must have shape"),
    ({"['values']": jnp.zeros(N)}, r"has no \['memory'\]\['values'\], only"),
  ],
)
def test_finetuning_refuses_a_background_of_another_table(frequency, message):
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0), T, document_frequency=frequency, num_documents=3
  )
  params = _params()
  state = optimizer.init(params)
  with pytest.raises(ValueError, match=message):
    optimizer.update(params, state, params)
