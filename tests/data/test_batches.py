"""Rows of token ids, padding, and the batches of steps."""

import functools

import numpy as np
import pytest

from smft_jax import schema
from smft_jax.data import batches
from smft_jax.data import encoded
from smft_jax.data import encoding
from smft_jax.data import stream
from smft_jax.data import task
from smft_jax.data import tokenizers

_TEXTS = (
  task.Text(text='Ada Keller lives in Cape Town.', answer=(20, 29)),
  task.Text(text='Answer: Cape Town', answer=(8, 17)),
  task.Text(text='Fog is common in Porto.'),
)


@pytest.fixture(scope='module')
def tokenizer():
  return tokenizers.train_word_level([text.text for text in _TEXTS])


@pytest.fixture(scope='module')
def rows(tokenizer):
  """Eleven rows; row r is one beginning, r + 1 times the same word, one end."""
  texts = [task.Text(text=' '.join(['Fog'] * (r + 1))) for r in range(11)]
  return encoding.tokenize(texts, tokenizer, max_length=32)


def _row(rows, r):
  part = slice(rows.starts[r], rows.starts[r + 1])
  return rows.tokens[part].tolist(), rows.loss_weights[part].tolist()


def test_a_row_is_beginning_tokens_end(tokenizer):
  rows = encoding.tokenize(_TEXTS, tokenizer, max_length=64)
  assert rows.sources.tolist() == [0, 1, 2]
  for r, text in enumerate(_TEXTS):
    assert _row(rows, r)[0] == [1, *tokenizer.encode(text.text), 2]
  assert (rows.tokens.dtype, rows.loss_weights.dtype) == (np.int32, np.float32)
  assert rows.longest == 9
  assert rows.lengths.tolist() == [9, 6, 8]


def test_answer_tokens_and_the_one_after_weigh_their_own(tokenizer):
  rows = encoding.tokenize(
    _TEXTS, tokenizer, max_length=64, context_weight=0.25, answer_weight=3.0
  )
  # Ada Keller lives in [Cape Town .] end
  assert _row(rows, 0)[1] == [0, 0.25, 0.25, 0.25, 0.25, 3, 3, 3, 0.25]
  # Answer : [Cape Town end]
  assert _row(rows, 1)[1] == [0, 0.25, 0.25, 3, 3, 3]
  # No answer: nothing is special.
  assert _row(rows, 2)[1] == [0, 1, 1, 1, 1, 1, 1, 1]


def test_a_token_that_is_partly_answer_counts_as_answer(tokenizer):
  rows = encoding.tokenize(
    [task.Text(text='Ada Keller lives', answer=(5, 7))],
    tokenizer,
    max_length=64,
    context_weight=0.0,
  )
  assert _row(rows, 0)[1] == [0, 0, 1, 1, 0]


@pytest.mark.parametrize('max_length', [2, 3, 5, 7, 8, 9, 64])
def test_long_texts_are_split_and_nothing_is_lost(tokenizer, max_length):
  whole, rows = (
    encoding.tokenize(
      _TEXTS, tokenizer, max_length=n, context_weight=0.5, answer_weight=2.0
    )
    for n in (64, max_length)
  )
  assert rows.longest <= max_length
  for source in range(3):
    mine = [_row(rows, r) for r in np.flatnonzero(rows.sources == source)]
    assert all(tokens[0] == 1 and len(tokens) > 1 for tokens, _ in mine)
    assert all(weights[0] == 0 for _, weights in mine)
    tokens, weights = _row(whole, source)
    assert [t for piece, _ in mine for t in piece[1:]] == tokens[1:]
    assert [w for _, piece in mine for w in piece[1:]] == weights[1:]
    lengths = [len(piece) for piece, _ in mine]
    assert max(lengths) - min(lengths) <= 1
    assert len(mine) == -(-(len(tokens) - 1) // (max_length - 1))


@pytest.mark.parametrize('end', [False, True])
def test_rows_of_answers_are_those_of_texts_where_they_fit(tokenizer, end):
  answered = _TEXTS[:2]
  whole = encoding.tokenize(
    answered, tokenizer, max_length=64, context_weight=0.0
  )
  rows = encoding.tokenize_answers(answered, tokenizer, max_length=64, end=end)
  assert rows.sources.tolist() == [0, 1]
  assert (rows.tokens.dtype, rows.loss_weights.dtype) == (np.int32, np.float32)
  for r in range(2):
    tokens, weights = _row(whole, r)
    length = len(tokens) - (not end)
    assert _row(rows, r) == (tokens[:length], weights[:length])
  # Answer : [Cape Town] and perhaps an end
  assert _row(rows, 1)[1] == [0, 0, 0, 1, 1, *([1] if end else [])]


@pytest.mark.parametrize('end', [False, True])
def test_a_long_row_of_an_answer_loses_its_first_tokens(tokenizer, end):
  text = task.Text(text='Ada Keller lives in Cape Town', answer=(20, 29))
  tokens = tokenizer.encode(text.text) + [2] * end
  least = 3 + end  # with its beginning
  for max_length in range(least, 10):
    rows = encoding.tokenize_answers(
      [text, text], tokenizer, max_length=max_length, end=end
    )
    kept = tokens[-(max_length - 1) :]
    counted = [0] * (len(kept) - 2 - end) + [1] * (2 + end)
    assert _row(rows, 0) == ([1, *kept], [0, *counted])
    assert _row(rows, 1) == _row(rows, 0)
  for max_length in range(least):
    said = f'max_length = {max_length} must be at least {least}.*Cape Town'
    with pytest.raises(schema.UserError, match=said):
      encoding.tokenize_answers(
        [text], tokenizer, max_length=max_length, end=end
      )


def test_no_texts_give_no_rows(tokenizer):
  rows = encoding.tokenize([], tokenizer, max_length=5)
  assert len(rows) == rows.longest == 0
  assert rows.tokens.dtype == np.int32


def test_prompts_have_a_beginning_and_no_end(tokenizer):
  prompts = ['Answer:', 'Ada Keller lives in']
  rows = encoding.tokenize_prompts(prompts, tokenizer)
  assert len(rows) == 2
  for r, prompt in enumerate(prompts):
    tokens, weights = _row(rows, r)
    assert tokens == [1, *tokenizer.encode(prompt)]
    assert not any(weights)


def test_padding_fills_the_end(tokenizer):
  rows = encoding.tokenize(_TEXTS, tokenizer, max_length=64, answer_weight=2.0)
  batch = batches.pad(rows, 11, tokenizer.pad_id)
  assert [a.shape for a in batch[:3]] == [(3, 11)] * 3
  assert batch.ranked is None
  assert [str(a.dtype) for a in batch[:3]] == ['int32', 'bool', 'float32']
  for r in range(3):
    tokens, weights = _row(rows, r)
    padding = 11 - len(tokens)
    assert batch.tokens[r].tolist() == tokens + [0] * padding
    assert batch.loss_weights[r].tolist() == weights + [0.0] * padding
    assert batch.mask[r].tolist() == [True] * len(tokens) + [False] * padding


def test_padding_never_cuts(tokenizer):
  rows = encoding.tokenize(_TEXTS, tokenizer, max_length=64)
  assert batches.pad(rows, 9, 0).mask[0].all()
  with pytest.raises(ValueError, match='9 tokens does not fit length 8'):
    batches.pad(rows, 8, 0)


def test_rows_are_taken_in_any_order_with_repeats(rows):
  taken = rows.take([7, 0, 7])
  assert taken.sources.tolist() == [7, 0, 7]
  assert _row(taken, 2) == _row(taken, 0) == _row(rows, 7)
  assert len(rows.take([])) == 0


def _drawn(rows, steps, batch_size, seed=5):
  """The rows of these steps' batches, recognised by their lengths."""
  drawn = []
  made = stream.Batches(rows=rows, batch_size=batch_size, seed=seed, pad_id=0)
  for step in steps:
    batch = made.batch(step)
    assert batch.tokens.shape == (batch_size, 16)
    assert made.num_tokens(step) == batch.mask.sum()
    found = (batch.mask.sum(axis=1) - 3).tolist()
    assert made.row_indices(step).tolist() == found
    drawn += found
  return drawn


@pytest.mark.parametrize('batch_size', [1, 3, 11, 13, 29])
def test_every_epoch_has_every_row_once(rows, batch_size):
  drawn = _drawn(rows, range(33), batch_size)
  epochs = [drawn[i : i + 11] for i in range(0, len(drawn) - 10, 11)]
  assert len(epochs) >= 3
  for epoch in epochs:
    assert sorted(epoch) == list(range(11))
  assert epochs[0] != epochs[1]


def test_batches_depend_on_the_step_alone(rows):
  forth = _drawn(rows, [0, 1, 2, 3, 4, 5, 6], 4)
  back = [_drawn(rows, [step], 4) for step in (6, 5, 4, 3, 2, 1, 0)]
  assert forth == [r for batch in reversed(back) for r in batch]
  assert forth != _drawn(rows, range(7), 4, seed=6)


@pytest.mark.parametrize(
  ('num_rows', 'step', 'batch_size', 'message'),
  [(11, -1, 2, 'at least'), (11, 0, 0, 'at least'), (0, 0, 2, 'no rows')],
)
def test_steps_and_sizes_out_of_range_are_refused(
  num_rows, step, batch_size, message
):
  with pytest.raises(ValueError, match=message):
    batches.row_indices(num_rows, step, batch_size, seed=0)


@pytest.mark.parametrize(
  'settings', [{'context_weight': -1.0}, {'answer_weight': float('nan')}]
)
def test_bad_settings_are_refused(tokenizer, settings):
  with pytest.raises(ValueError, match='must be at least 0'):
    encoding.tokenize(_TEXTS, tokenizer, max_length=8, **settings)
  with pytest.raises(ValueError, match='must be at least 2, not 1'):
    encoding.tokenize(_TEXTS, tokenizer, max_length=1)


def test_bucket_lengths():
  assert [batches.bucket_length(n) for n in (1, 8, 9, 16)] == [8, 8, 16, 16]
  assert batches.bucket_length(7, multiple=5) == 10


def test_sorted_steps_have_the_same_rows_with_less_padding():
  texts = [task.Text(text=' '.join(['Fog'] * n)) for n in range(1, 61)]
  tokenizer = tokenizers.train_word_level(['Fog'])
  rows = encoding.tokenize(texts, tokenizer, max_length=64)
  make = functools.partial(
    stream.Batches, rows=rows, batch_size=10, seed=3, pad_id=0
  )
  random, ordered = make(), make(sorted_steps=5)
  drawn = [
    np.concatenate([b.row_indices(s) for s in range(5)])
    for b in (random, ordered)
  ]
  assert sorted(drawn[0]) == sorted(drawn[1])
  shapes = [ordered.batch(s).tokens.shape for s in range(5)]
  assert shapes[0] == (10, 64)
  assert shapes[-1] == (10, 32)
  assert np.diff(rows.lengths[drawn[1]]).max() <= 0


def test_the_beginning_that_saves_most_leaves_a_token_without_loss():
  rows = encoded.join(
    [
      np.array([1, 2, 3, 4]),  # answers with its last token
      np.array([1, 2, 3, 5, 6]),
      np.array([9]),
      np.array([1, 2, 3, 5, 7, 8]),
    ],
    [
      np.array([0, 0, 0, 1.0]),
      np.array([0, 0, 0, 0, 1.0]),
      np.zeros(1),
      np.array([0, 0, 0, 0, 0, 1.0]),
    ],
    np.arange(4),
  )
  beginning, having = rows.shared_beginning()
  assert beginning.tolist() == [1, 2]
  assert having.tolist() == [True, True, False, True]
  rest = rows.take([0, 3]).without_first(2)
  assert rest.tokens.tolist() == [3, 4, 3, 5, 7, 8]
  assert rest.loss_weights.tolist() == [0, 1, 0, 0, 0, 1]
  assert rest.starts.tolist() == [0, 2, 6]


def test_texts_share_no_beginning():
  rows = encoded.join(
    [np.array([1, 2, 3])] * 3, [np.array([0, 1.0, 1.0])] * 3, np.arange(3)
  )
  beginning, _ = rows.shared_beginning()
  assert not len(beginning)
  nothing = rows.take(np.zeros(0, np.int64))
  assert not len(nothing.shared_beginning()[0])
