"""Batches of the steps on a document."""

import dataclasses

import jax
import numpy as np
import pytest

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.runs import finetune
from smft_jax.runs import lesson_batches
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.training import state as state_lib
from tests.support import steps
from tests.support import tiny_run

# Half as many texts again as packed rows, at least.
LENGTH = 29


@pytest.fixture(scope='module')
def experiment(tmp_path_factory, quick_compilation):
  cache = tmp_path_factory.mktemp('batches') / 'cache'
  return config_lib.from_config_dict(
    tiny_run.make(
      base__cache_dir=str(cache), model__num_layers=2, model__memory_layers=(1,)
    )
  )


@pytest.fixture(scope='module')
def base(experiment, tmp_path_factory):
  with steps.optax_promotion():
    return saved_run.load_base(experiment, tmp_path_factory.mktemp('none'))


def with_stream(experiment, method, **stream):
  return dataclasses.replace(
    config_lib.from_config_dict(
      config_lib.to_dict(experiment) | {'method': method}
    ),
    stream=dataclasses.replace(experiment.stream, **stream),
  )


@pytest.mark.parametrize('reuses_hidden', [True, False])
@pytest.mark.parametrize(
  'method',
  [
    {'name': 'sparse_memory', 't': 7, 'learning_rate': 3.0},
    {
      'name': 'sparse_memory',
      't': 7,
      'learning_rate': 0.1,
      'optimizer': 'adam',
      'select': 'document',
      'grows_background': True,
    },
    {'name': 'full', 'learning_rate': 1e-2},
  ],
  ids=['each step', 'each document', 'full'],
)
def test_texts_that_share_rows_teach_the_same(
  experiment, base, method, reuses_hidden
):
  found = []
  for packed in (False, True):
    sizes = {'packed': packed, 'max_length': LENGTH, 'steps_per_document': 3}
    made = with_stream(experiment, method, **sizes)
    count = len(finetune.make_learner(made, base).batches._rows[0])
    # Every step sees the whole document.
    made = with_stream(experiment, method, **sizes, batch_size=count)
    student = finetune.make_learner(made, base)
    student._reuses_hidden &= reuses_hidden
    with steps.optax_promotion():
      state = states.first_state(made, base)
      state, numbers = student.learn(state, 0)
    found.append((count, numbers, state))
  (num_texts, alone, first), (num_rows, together, second) = found
  assert num_rows < num_texts / 1.5
  assert alone['tokens'] == together['tokens']
  assert alone['loss'] == pytest.approx(together['loss'], rel=1e-4)
  # Adam divides gradients by their size, noise of rounding too.
  for one, other, before in zip(
    *(jax.tree.leaves(s.params) for s in (first, second, base)), strict=True
  ):
    moved = np.abs(np.asarray(one) - np.asarray(before)).max()
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * moved + 1e-7)
  assert np.any(
    state_lib.value_table(first.params) != state_lib.value_table(base.params)
  )
  if first.background is not None:
    jax.tree.map(
      np.testing.assert_array_equal, first.background, second.background
    )


def test_replayed_text_has_rows_of_its_own(experiment, base):
  method = {'name': 'sparse_memory', 't': 7, 'replay_fraction': 0.4}
  made = with_stream(experiment, method, packed=True, max_length=LENGTH)
  batch, own, _ = finetune.make_learner(made, base).batches.step(0, 0)
  segments = np.asarray(batch.segments)
  assert segments[: len(own)].max() > 1
  np.testing.assert_array_equal(segments[len(own) :], batch.mask[len(own) :])
  assert batch.mask[len(own) :].any()


def test_packed_rows_need_a_length():
  with pytest.raises(schema.UserError, match='packed needs max_length'):
    sections.StreamConfig(steps_per_document=1, batch_size=2, packed=True)


@pytest.mark.parametrize(
  ('batch_size', 'micro'), [(2, None), (5, None), (13, None), (6, 2), (4, 1)]
)
def test_no_batch_has_more_losses_than_there_is_room_for(batch_size, micro):
  texts = [task_lib.Text(text=' '.join(['Fog'] * n)) for n in (1, 9, 2, 4, 3)]
  tokenizer = tokenizers.train_word_level(['Fog'])
  rows = encoding.tokenize(texts, tokenizer, max_length=16)
  settings = sections.StreamConfig(
    steps_per_document=1, batch_size=batch_size, micro_batch_size=micro
  )
  num = settings.num_micro_batches
  drawn = [
    rows.counted[
      batches.row_indices(len(rows), step, batch_size, 3)[part::num]
    ].sum()
    for step in range(40)
    for part in range(num)
  ]
  most = lesson_batches._most_counted(rows, settings)
  assert max(drawn) <= most <= 2 * max(drawn)
