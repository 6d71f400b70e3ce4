"""Packed rows: every text whole and once, and as if it were alone."""

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax.compile import shapes
from smft_jax.config import experiment as config_lib
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import packing
from smft_jax.data import tokenizers
from smft_jax.methods import pretraining
from smft_jax.runs import base as base_lib
from smft_jax.runs import finetune
from smft_jax.store import records as records_lib
from smft_jax.training import forward
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import decoders
from tests.support import meshes
from tests.support import tiny_run


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly; Adam of optax mixes dtypes."""
  with jax.numpy_dtype_promotion('standard'):
    yield


def make_rows(lengths, seed=0):
  """Rows of random tokens and weights; nothing predicts a row's first."""
  random = np.random.default_rng(seed)
  starts = np.cumsum([0, *lengths])
  tokens = random.integers(0, decoders.SIZES['vocab_size'], starts[-1])
  weights = random.uniform(0.2, 2.0, starts[-1]).astype(np.float32)
  weights[starts[:-1]] = 0
  return encoding.Encoded(
    tokens=tokens.astype(np.int32),
    loss_weights=weights,
    starts=starts.astype(np.int64),
    sources=np.arange(len(lengths)),
  )


def texts_in(rows):
  """The texts of each row: tokens and weights of one after another."""
  found = []
  for r in range(len(rows)):
    part = slice(rows.starts[r], rows.starts[r + 1])
    segments = rows.segments[part]
    assert set(segments) == set(range(1, segments.max() + 1))
    assert (np.diff(segments) >= 0).all()
    found.append(
      [
        (
          tuple(rows.tokens[part][segments == s].tolist()),
          tuple(rows.loss_weights[part][segments == s].tolist()),
        )
        for s in range(1, segments.max() + 1)
      ]
    )
  return found


def test_every_text_is_there_whole_and_once():
  rows = make_rows(np.random.default_rng(1).integers(2, 24, 503))
  packed = packing.pack(rows, 23, seed=3)
  assert packed.longest <= 23
  assert len(packed) < len(rows) / 1.5
  assert len(packed.tokens) / (len(packed) * 23) > 0.95
  assert packed.segments.dtype == np.int32
  assert packed.starts.dtype == packed.sources.dtype == np.int64
  alone = dataclasses.replace(rows, segments=np.ones_like(rows.tokens))
  expected = [text for [text] in texts_in(alone)]
  found = texts_in(packed)
  assert sorted(text for row in found for text in row) == sorted(expected)
  assert [row[0] for row in found] == [expected[s] for s in packed.sources]


def test_the_seed_decides_and_neighbours_mix():
  rows = make_rows([5] * 60)
  one, same, other = (packing.pack(rows, 23, seed) for seed in (7, 7, 8))
  jax.tree.map(np.testing.assert_array_equal, vars(one), vars(same))
  assert one.tokens.tolist() != other.tokens.tolist()
  assert one.sources.tolist() != sorted(one.sources)


def test_a_row_goes_where_it_leaves_the_least_room():
  # The first that has room would be the row of 5, and 5 then begins a third.
  assert packing._best_fit([5, 6, 4, 5], 10) == [[0, 3], [1, 2]]
  assert packing._best_fit([3, 3, 3, 3], 6) == [[0, 1], [2, 3]]
  assert packing._best_fit([10, 1, 9, 2], 10) == [[0], [1, 2], [3]]


def test_edges():
  assert len(packing.pack(make_rows([]), 5, seed=0)) == 0
  whole = packing.pack(make_rows([5, 5]), 5, seed=0)
  assert whole.lengths.tolist() == [5, 5]
  assert whole.segments.tolist() == [1] * 10
  with pytest.raises(ValueError, match='6 tokens does not fit length 5'):
    packing.pack(make_rows([3, 6]), 5, seed=0)


def test_segments_go_along_into_batches():
  packed = packing.pack(make_rows([2, 4, 3, 5, 2]), 7, seed=0)
  order = [len(packed) - 1, 0, 0]
  taken = packed.take(order)
  batch = batches.pad(taken, 11, 0)
  assert batch.segments.dtype == np.int32
  for row, source in zip(batch.segments, order, strict=True):
    part = packed.segments[packed.starts[source] : packed.starts[source + 1]]
    assert row.tolist() == part.tolist() + [0] * (11 - len(part))
  np.testing.assert_array_equal(batch.segments > 0, batch.mask)
  assert packed.take([]).segments.dtype == np.int32
  # Rows of one text know of no segments: their batches are as ever.
  plain = batches.pad(make_rows([3, 5]), 7, 0)
  assert plain.segments is None
  assert len(jax.tree.leaves(plain)) == 3


def test_little_of_real_text_is_padding(real_task):
  # A prime stride takes running text, paragraphs and questions as they come.
  texts = real_task.pretraining[::31]
  tokenizer = tokenizers.train_byte_level_bpe((t.text for t in texts), 512)
  rows = encoding.tokenize(texts, tokenizer, max_length=256)
  packed = packing.pack(rows, 256, seed=0)
  assert len(rows.tokens) / (len(rows) * 256) < 0.9
  assert len(packed.tokens) / (len(packed) * 256) > 0.95


LENGTHS = (7, 2, 5, 3, 11, 2, 4, 6, 3, 2, 9)
MODELS = {
  'memory in place': decoders.WITH_MEMORY,
  'memory beside': {
    'memory': decoders.MEMORY,
    'memory_layers': (0, 1),
    'memory_placement': 'beside',
    'qkv_bias': True,
    'qk_norm': True,
  },
}


@functools.partial(jax.jit, static_argnums=0)
def logits_of(graphdef, params, batch):
  model = nnx.merge(graphdef, params)
  more = {} if batch.segments is None else {'segments': batch.segments}
  return model(batch.tokens, batch.mask, **more)


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(graphdef, params, batch):
  """The loss, summed over the weights, and its gradient."""

  def loss(params):
    mean, accesses = forward.loss_and_accesses(graphdef, params, batch)
    return mean * jnp.sum(batch.loss_weights), accesses

  return jax.value_and_grad(loss, has_aux=True)(params)


def packed_and_alone():
  """A batch of packed rows, and one of the same texts, one in a row."""
  rows = make_rows(LENGTHS)
  packed = packing.pack(rows, 17, seed=2)
  assert len(packed) == 4
  return batches.pad(packed, 19, 0), batches.pad(rows, 11, 0)


@pytest.mark.parametrize('options', MODELS)
def test_logits_are_those_of_each_text_alone(options):
  model = nnx.split(decoders.make_model(**MODELS[options]))
  packed, alone = packed_and_alone()
  found, expected = (np.asarray(logits_of(*model, b)) for b in (packed, alone))
  assert np.isfinite(found).all()
  places = {tuple(alone.tokens[r][alone.mask[r]]): r for r in range(11)}
  assert len(places) == len(LENGTHS)
  for row in range(len(packed.tokens)):
    for segment in range(1, packed.segments[row].max() + 1):
      mine = packed.segments[row] == segment
      own = places[tuple(packed.tokens[row][mine])]
      np.testing.assert_allclose(
        found[row][mine], expected[own, : mine.sum()], rtol=1e-5, atol=1e-5
      )
  # Without segments a text sees what stands before it.
  blind = logits_of(*model, packed._replace(segments=None))
  second = packed.segments == 2
  assert np.abs(np.asarray(blind) - found)[second].min(axis=-1).max() > 1e-3


def test_gradients_are_those_of_the_texts_alone():
  # The model that has all there is: segments only enter attention.
  model = nnx.split(decoders.make_model(**MODELS['memory beside']))
  packed, alone = packed_and_alone()
  (loss, accesses), gradient = loss_and_gradient(*model, packed)
  (expected, theirs), wanted = loss_and_gradient(*model, alone)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  for ours, other in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True
  ):
    scale = np.abs(other).max()
    np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-5 * scale)
  for ours, other in zip(accesses.slot_ids, theirs.slot_ids, strict=True):
    counts, wanted_counts = (
      np.bincount(np.asarray(ids)[batch.mask].ravel(), minlength=49)
      for ids, batch in ((ours, packed), (other, alone))
    )
    np.testing.assert_array_equal(counts, wanted_counts)


RATES = {'learning_rate': 1e-2, 'value_learning_rate': 1e-2}


def test_a_mesh_takes_the_step_of_one_device():
  packed = packing.pack(make_rows(LENGTHS * 3), 17, seed=2)
  batch = batches.pad(packed.take(np.arange(8)), 19, 0)

  def step(layout):
    model = decoders.make_model(
      num_layers=1,
      memory=dataclasses.replace(meshes.MEMORY, layout=layout),
      memory_layers=(0,),
    )
    method = pretraining.make(
      steps=3, warmup_steps=0, weight_decay=0.1, **RATES
    )
    state = state_lib.init(model, method)
    state, metrics = step_lib.train_step(state, batch)
    params = jax.tree.map(np.asarray, state.params)
    return float(metrics['loss']), int(metrics['tokens']), params

  loss, tokens, params = step(None)
  layout = meshes.make_layout('rows, replicas')
  got = step(layout)
  assert tokens == got[1] == batch.mask.sum()
  assert got[0] == pytest.approx(loss, rel=1e-6)
  # Adam's first step is the sign of a gradient, which rounding may turn.
  for ours, theirs in zip(*map(jax.tree.leaves, (got[2], params)), strict=True):
    assert np.mean(np.abs(ours - theirs) > 1e-4) < 1e-2


def test_a_base_is_pretrained_on_packed_rows_and_facts_by_default_are_not(
  tmp_path, monkeypatch
):
  sizes = {'base__packed': True, 'base__cache_dir': str(tmp_path / 'cache')}
  made = tiny_run.make(method__replay_fraction=0.4, **sizes)
  experiment = config_lib.from_config_dict(made)
  seen, take = [], step_lib.train_step

  def looked_at(state, batch):
    seen.append(batch)
    return take(state, batch)

  monkeypatch.setattr(step_lib, 'train_step', looked_at)
  with records_lib.MetricsWriter(tmp_path) as writer:
    base = base_lib.find_or_make(
      experiment, base_lib.make_task(experiment), writer
    )
  assert len(seen) == 5
  assert all(batch.segments.max() > 1 for batch in seen)
  assert base_lib.pretraining_rows(base, 29).segments is None
  batch, _, _ = finetune.make_learner(experiment, base).batches.step(0, 0)
  assert batch.ranked is not None
  assert batch.segments is None
  # What a step is compiled for is what it gets.
  made = tiny_run.make(stream=None, method=None, background=None, **sizes)
  alone = config_lib.from_config_dict(made)
  _, length = shapes.vocab_size_and_length(alone)
  for name, made in shapes.batch(alone, length, None)._asdict().items():
    given = getattr(seen[0], name)
    assert (made is None) == (given is None), name
    if made is not None:
      assert (made.shape, made.dtype) == (given.shape, given.dtype), name
  # All that tokenized the pretraining texts found the rows of the first.
  assert len(list(base.folder.glob('tokens-*'))) == 1
  records = records_lib.read_records(tmp_path)
  assert all(record['input_wait_s'] > 0 for record in records)
  assert [record['step'] for record in records] == [5]
