"""One step: its two forms against each other and against plain numpy."""

import dataclasses
import functools
import re

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import memory
from smft_jax import ranking
from smft_jax import selection
from smft_jax.methods import pretraining
from smft_jax.training import forward
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import compilation
from tests.support import decoders
from tests.support import steps

N, V, T = steps.N, steps.V, steps.T


@pytest.fixture(autouse=True)
def quickly(request):
  """But for the test that looks at what the compiler makes of a step."""
  with compilation.quick('makes_no_array' not in request.node.name):
    yield


def oracle(model, batch, t, background):
  """Rows that one SGD step should change, and what the table should become."""
  gradient, accesses = steps.loss_gradient(*nnx.split(model), batch)
  counts = np.zeros(N)
  for slot_ids in accesses.slot_ids:
    np.add.at(counts, np.asarray(slot_ids)[np.asarray(batch.mask)], 1)
  frequency = np.asarray(background.document_frequency, np.float64)
  documents = float(background.num_documents)
  scores = counts / counts.sum() * np.log((documents + 1) / (frequency + 1))
  # Equal products of whole numbers and logarithms must tie in float64 too.
  order = np.lexsort([np.arange(N), -scores.round(12)])
  slots = [i for i in order[:t] if scores[i] > 0]
  expected = np.array(state_lib.value_table(nnx.state(model)))
  expected[slots] -= steps.RATE * np.asarray(gradient)[slots]
  return sorted(slots), expected, np.count_nonzero(counts)


def alike_heads(model):
  """The model with all heads searching alike: a token reads slots thrice."""
  graphdef, params = nnx.split(model)
  block = params['blocks'][0]['memory']
  for name, axis in (('query', 1), ('subkeys', 0), ('query_scale', 0)):
    whole = np.asarray(block[name][...])
    first = np.take(whole, [0], axis)
    block[name][...] = jnp.asarray(np.broadcast_to(first, whole.shape))
  return nnx.merge(graphdef, params)


def make_case(case):
  """Model, batch, t and background of a case that has gone wrong somewhere."""
  model, batch = steps.make_model(), steps.make_batch()
  t, background = T, steps.make_background()
  if case == 'nothing padded':
    batch = steps.make_batch(lengths=(7, 7, 7))
  elif case == 'rows repeated':
    batch = jax.tree.map(lambda x: np.repeat(x[:1], 3, axis=0), batch)
  elif case == 'slots repeated in a token':
    model = alike_heads(model)
  elif case == 'ties':
    background = method_lib.Background(jnp.zeros(N), jnp.float32(7))
  elif case == 'fewer accessed than t':
    batch = steps.make_batch(lengths=(1, 0, 0))
    batch.loss_weights[0, 1] = 1.0  # or there would be nothing to learn
  elif case == 't = N':
    t = N
  elif case == 'two layers':
    model = steps.make_model(num_layers=2)
  return model, batch, t, background


# 'listed' is the rows form as it ranks in a large table: the accessed slots.
FORMS = ('rows', 'listed', 'dense')


@functools.cache
def method_of(form, t=T):
  method = steps.make_method('dense' if form == 'dense' else 'rows', t)
  if form != 'listed':
    return method
  # As equal methods share a program, which does not know of a patch: another.
  return dataclasses.replace(method, score=functools.partial(method.score))


@pytest.mark.parametrize(
  'case',
  [
    'padded',
    'nothing padded',
    'rows repeated',
    'slots repeated in a token',
    'ties',
    'fewer accessed than t',
    't = N',
    'two layers',
  ],
)
def test_rows_and_dense_are_the_step_of_the_paper(case, monkeypatch):
  model, batch, t, background = make_case(case)
  slots, expected, accessed = oracle(model, batch, t, background)
  old = np.asarray(state_lib.value_table(nnx.state(model)))
  few = case in ('fewer accessed than t', 't = N')
  assert len(slots) < t if few else len(slots) == t < accessed
  assert (expected != old).any()
  new = {}
  for update in FORMS:
    state = steps.init(model, method_of(update, t), background)
    with monkeypatch.context() as patch:
      if update == 'listed':
        patch.setattr(selection, '_SLOTS_PER_LISTED_ACCESS', 0)
      state, metrics = step_lib.train_step(state, batch)
    new[update] = np.asarray(state_lib.value_table(state.params))
    np.testing.assert_allclose(new[update], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(new[update] != old, expected != old)
    assert int(metrics['slots_updated']) == len(slots)
    assert int(metrics['slots_accessed']) == accessed
    assert int(metrics['tokens']) == batch.mask.sum()
    assert int(state.step) == 1
  np.testing.assert_allclose(new['rows'], new['dense'], rtol=1e-6, atol=1e-7)
  np.testing.assert_array_equal(new['rows'], new['listed'])


@pytest.mark.parametrize('update', ['rows', 'dense'])
def test_all_but_the_top_slots_keep_their_bits(update):
  model = steps.make_model()
  old = jax.tree.map(np.asarray, nnx.state(model))
  state = steps.init(model, steps.make_method(update, optimizer='adamw'))
  touched = set()
  for step in range(3):
    batch = steps.make_batch(seed=step)
    before = np.array(state_lib.value_table(state.params))
    slots, _, _ = oracle(
      nnx.merge(state.graphdef, state.params), batch, T, steps.make_background()
    )
    with steps.optax_promotion():
      state, _ = step_lib.train_step(state, batch)
    after = np.asarray(state_lib.value_table(state.params))
    # Weight decay moves every selected row, whatever its gradient.
    changed = np.flatnonzero((before != after).any(axis=-1))
    assert changed.tolist() == slots
    touched |= set(slots)
  assert T < len(touched) < N
  new = jax.tree.map(np.asarray, state.params)
  for path, was in jax.tree_util.tree_leaves_with_path(old):
    now = dict(jax.tree_util.tree_leaves_with_path(new))[path]
    if was.shape == (N, V):
      rest = sorted(set(range(N)) - touched)
      was, now = was[rest], now[rest]
    assert was.tobytes() == now.tobytes(), jax.tree_util.keystr(path)


def test_padding_changes_neither_loss_nor_counts_nor_update():
  method = method_of('rows')
  batch = steps.make_batch()
  wider = jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 4))), batch)
  other = batch._replace(tokens=np.where(batch.mask, batch.tokens, 3))
  results = {}
  for name, each in (('as is', batch), ('other', other), ('wider', wider)):
    state, metrics = step_lib.train_step(
      steps.init(steps.make_model(), method), each
    )
    results[name] = (np.asarray(state_lib.value_table(state.params)), metrics)
  table, metrics = results['as is']
  for name, tolerance in (('other', 0), ('wider', 1e-6)):
    assert int(results[name][1]['slots_accessed']) == metrics['slots_accessed']
    assert int(results[name][1]['tokens']) == metrics['tokens']
    np.testing.assert_allclose(
      results[name][1]['loss'], metrics['loss'], rtol=tolerance
    )
    np.testing.assert_allclose(
      results[name][0], table, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize('update', ['rows', 'dense'])
def test_hidden_states_reused_give_the_same_step(update):
  model = decoders.make_model(
    num_layers=3,
    memory=steps.MEMORY,
    memory_layers=(1, 2),
    memory_placement='beside',
  )
  batch = steps.make_batch()
  graphdef, params = nnx.split(model)
  hidden = forward.hidden_below_memory(
    graphdef, params, batch.tokens, batch.mask
  )
  method = steps.make_method(update)
  tables = []
  for reused in (None, hidden, -hidden):
    state, _ = step_lib.train_step(steps.init(model, method), batch, reused)
    tables.append(np.asarray(state_lib.value_table(state.params)))
  np.testing.assert_allclose(tables[1], tables[0], rtol=1e-6, atol=1e-6)
  # They are what is used, or this would be no other step.
  assert np.abs(tables[2] - tables[0]).max() > 1e-3


def test_loss_is_the_mean_over_the_loss_weights():
  model, batch = steps.make_model(), steps.make_batch()
  logits = np.asarray(
    decoders.logits_of(model, batch.tokens, batch.mask), np.float64
  )
  total = 0.0
  for row, column in np.argwhere(batch.loss_weights > 0):
    before = logits[row, column - 1]
    nll = np.log(np.exp(before).sum()) - before[batch.tokens[row, column]]
    total += batch.loss_weights[row, column] * nll
  _, metrics = step_lib.train_step(steps.init(model, method_of('rows')), batch)
  np.testing.assert_allclose(
    metrics['loss'], total / batch.loss_weights.sum(), rtol=2e-6
  )


def test_state_is_donated_the_step_traced_once_and_keys_differ():
  traces = []

  def score(key, counts, background):
    traces.append(key)
    return ranking.random_scores(key, counts)

  method = dataclasses.replace(method_of('rows'), score=score)
  state, chosen = steps.init(steps.make_model(), method), set()
  for step in range(3):
    # Of a copy: a buffer that numpy looks into cannot be donated.
    before = np.asarray(jnp.copy(state_lib.value_table(state.params)))
    old = state
    state, metrics = step_lib.train_step(old, steps.make_batch())
    assert state_lib.value_table(old.params).is_deleted()
    assert int(metrics['slots_updated']) == T < int(metrics['slots_accessed'])
    after = np.asarray(jnp.copy(state_lib.value_table(state.params)))
    chosen.add(tuple(np.flatnonzero((before != after).any(axis=-1))))
    assert int(state.step) == step + 1
  assert len(traces) == 1
  assert len(chosen) == 3


def compiled(update, slots, value_dim):
  config = dataclasses.replace(
    steps.MEMORY, num_slots=slots, value_dim=value_dim
  )
  background = method_lib.Background(jnp.zeros(slots), jnp.float32(7))
  state = steps.init(
    steps.make_model(config), steps.make_method(update), background
  )
  return step_lib.train_step.lower(state, steps.make_batch()).compile()


def test_rows_step_makes_no_array_of_the_size_of_the_table():
  slots, value_dim = 101**2, 67
  table_bytes = slots * value_dim * 4
  program = compiled('rows', slots, value_dim)
  analysis = program.memory_analysis()
  assert analysis.temp_size_in_bytes < table_bytes / 2
  assert analysis.alias_size_in_bytes >= table_bytes  # written in place
  text = program.as_text()
  made = re.findall(rf'= f32\[{slots},{value_dim}\]\S* ([\w-]+)\(', text)
  assert 'parameter' in made
  assert not {'broadcast', 'copy', 'add', 'multiply', 'select'} & set(made)
  # The weights of the FFN [14, 19] come in, and no gradient of them is made.
  made = re.findall(r'= f32\[14,19\]\S* ([\w-]+)\(', text)
  assert 'parameter' in made
  assert not {'dot', 'add', 'multiply'} & set(made)
  # So that the numbers above mean something: the dense form breaks them.
  dense = compiled('dense', slots, value_dim)
  assert dense.memory_analysis().temp_size_in_bytes > table_bytes


@pytest.mark.parametrize('update', ['rows', 'dense'])
def test_methods_that_cannot_work_are_refused(update):
  model = steps.make_model()
  with pytest.raises(ValueError, match=f'num_slots = {N}, got {N + 1}'):
    steps.init(model, steps.make_method(update, t=N + 1))
  with pytest.raises(ValueError, match="'sparse_memory' needs a background"):
    state_lib.init(model, steps.make_method(update))
  plain = decoders.make_model(num_layers=2)
  with pytest.raises(ValueError, match='one value table, found 0'):
    steps.init(plain, steps.make_method(update))


def test_full_training_leaves_unread_rows():
  method = pretraining.make(
    steps=7,
    warmup_steps=1,
    learning_rate=1e-2,
    value_learning_rate=4e-2,
    weight_decay=0.5,
  )
  model = steps.make_model()
  old = np.asarray(state_lib.value_table(nnx.state(model)))
  embedding = np.asarray(model.embedding[...])
  batch = steps.make_batch()
  gradient, _ = steps.loss_gradient(*nnx.split(model), batch)
  state = steps.init(model, method)
  losses = []
  for _ in range(2):  # the first only warms up, so the second reads the same
    with steps.optax_promotion():
      state, metrics = step_lib.train_step(state, batch)
    losses.append(float(metrics['loss']))
  new = np.asarray(state_lib.value_table(state.params))
  # Without weight decay a row without a gradient stays as it was.
  gradient = np.asarray(gradient)
  np.testing.assert_array_equal(old != new, gradient != 0)
  # Adam moves every number by its rate as long as gradients stay the same.
  np.testing.assert_allclose(
    (new - old)[gradient != 0], -4e-2 * np.sign(gradient[gradient != 0]), 2e-2
  )
  assert losses[0] == losses[1]
  assert np.abs(state.params['embedding'][...] - embedding).min() > 0


def test_the_oracle_is_the_slope_of_the_loss():
  graphdef, params = nnx.split(steps.make_model())
  batch = steps.make_batch()
  gradient, _ = steps.loss_gradient(graphdef, params, batch)
  # The steepest, of which differences of float32 numbers say most.
  slot, channel = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
  values, frozen = nnx.split_state(params, memory.MemoryValue, ...)

  @jax.jit
  def loss(by):
    moved = jax.tree.map(lambda x: x.at[slot, channel].add(by), values)
    params = nnx.merge_state(moved, frozen)
    return forward.loss_and_accesses(graphdef, params, batch)[0]

  slope = (float(loss(0.03)) - float(loss(-0.03))) / 0.06
  assert float(gradient[slot, channel]) == pytest.approx(slope, rel=1e-3)
