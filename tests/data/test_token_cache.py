"""Rows that a base keeps: made once, made again when damaged, never wrong."""

import dataclasses

import numpy as np
import pytest

from smft_jax.data import encoding
from smft_jax.data import task
from smft_jax.data import token_cache
from smft_jax.data import tokenizers
from smft_jax.runtime import processes

TEXTS = (
  task.Text(text='Ada Keller lives in Cape Town.', answer=(20, 29)),
  task.Text(text='Fog is common in Porto, and in Cape Town it is not.'),
)


@pytest.fixture(scope='module')
def tokenizer():
  return tokenizers.train_word_level([text.text for text in TEXTS])


def assert_same(one, other):
  for field in dataclasses.fields(encoding.Encoded):
    ours, theirs = getattr(one, field.name), getattr(other, field.name)
    np.testing.assert_array_equal(ours, theirs)
    assert getattr(ours, 'dtype', None) == getattr(theirs, 'dtype', None)


def files(folder):
  return sorted(path.name for path in folder.iterdir())


def test_rows_are_made_once(tokenizer, tmp_path, monkeypatch):
  expected = encoding.tokenize(TEXTS, tokenizer, max_length=7)
  assert_same(token_cache.tokenized(tmp_path, TEXTS, tokenizer, 7), expected)
  [name] = files(tmp_path)
  assert name.startswith('tokens-')
  monkeypatch.setattr(encoding, 'tokenize', None)
  again = tokenizers.train_word_level([text.text for text in TEXTS])
  assert_same(token_cache.tokenized(tmp_path, TEXTS, again, 7), expected)
  assert files(tmp_path) == [name]


def test_what_rows_depend_on_makes_others(tokenizer, tmp_path):
  other = tokenizers.train_word_level(['Ada is not in Porto.'])
  split = task.Text(text=TEXTS[0].text + TEXTS[1].text)
  kinds = [
    (TEXTS, tokenizer, 7),
    (TEXTS, tokenizer, 8),
    (TEXTS, other, 7),
    (TEXTS[::-1], tokenizer, 7),
    ((split,), tokenizer, 7),
    ((), tokenizer, 7),
  ]
  for index, (texts, by, max_length) in enumerate(kinds, start=1):
    for _ in range(2):
      assert_same(
        token_cache.tokenized(tmp_path, texts, by, max_length),
        encoding.tokenize(texts, by, max_length=max_length),
      )
    assert len(files(tmp_path)) == index


def test_damage_is_reported_and_mended(tokenizer, tmp_path, caplog):
  caplog.set_level('WARNING')
  expected = token_cache.tokenized(tmp_path, TEXTS, tokenizer, 7)
  [path] = tmp_path.iterdir()
  whole = path.read_bytes()
  damaged = [b'', b'no archive', *(whole[:n] for n in (3, 500, len(whole) - 1))]
  for content in damaged:
    path.write_bytes(content)
    caplog.clear()
    assert_same(token_cache.tokenized(tmp_path, TEXTS, tokenizer, 7), expected)
    [record] = caplog.records
    assert f'{path} is damaged, and made again' in record.getMessage()
    assert '\n' not in record.getMessage()
    assert_same(token_cache._load_rows(path), expected)
  np.savez(path, tokens=expected.tokens)
  assert_same(token_cache.tokenized(tmp_path, TEXTS, tokenizer, 7), expected)
  np.savez(path, **{name: np.array([{}]) for name in token_cache._ARRAYS})
  assert_same(token_cache.tokenized(tmp_path, TEXTS, tokenizer, 7), expected)


def test_no_flipped_bit_is_taken_for_rows(tokenizer, tmp_path):
  expected = token_cache.tokenized(tmp_path, TEXTS, tokenizer, 7)
  [path] = tmp_path.iterdir()
  whole = path.read_bytes()
  noticed = 0
  places = range(0, len(whole), 5)  # and every bit of a byte in turn
  for place in places:
    content = bytearray(whole)
    content[place] ^= 1 << (place % 8)
    path.write_bytes(content)
    rows = token_cache._load_rows(path)
    noticed += rows is None
    if rows is not None:  # in redundant fields, such as a date
      assert_same(rows, expected)
  assert noticed > len(places) / 2


def test_a_save_that_is_interrupted_leaves_no_file(
  tokenizer, tmp_path, monkeypatch
):
  def interrupted(file, **arrays):
    file.write(b'a part')
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(np, 'savez', interrupted)
    with pytest.raises(KeyboardInterrupt):
      token_cache.tokenized(tmp_path, TEXTS, tokenizer, 7)
  assert not list(tmp_path.glob('*.npz'))
  token_cache.tokenized(tmp_path, TEXTS, tokenizer, 7)
  [name] = files(tmp_path)
  assert name.endswith('.npz')


def test_process_0_alone_writes(tokenizer, tmp_path, monkeypatch):
  monkeypatch.setattr(processes, 'is_main', lambda: False)
  assert_same(
    token_cache.tokenized(tmp_path, TEXTS, tokenizer, 7),
    encoding.tokenize(TEXTS, tokenizer, max_length=7),
  )
  assert not files(tmp_path)
