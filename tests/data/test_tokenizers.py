"""Tokenizers: trained ones, those of checkpoints, and what is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tokenizers as hf_tokenizers

from smft_jax import schema
from smft_jax.data import shard
from smft_jax.data import tokenizers

_TEXTS = (
  'Ada Keller was born in Porto.',
  'Question: Where was Ada Keller born? Answer: Porto',
  'In winter, fog is common; the road is closed!',
)
_ODD_TEXTS = (
  'caf\u00e9 na\u00efve \U0001f600 \u4f60\u597d',
  '  two  spaces\tand a tab\n\n',
  '<|eos|> <|pad|><|bos|> <unk> = = Title = =',
  "don't @-@ stop",
  '\x00\x7f\u200b',
)


@pytest.fixture(scope='module')
def bpe():
  return tokenizers.train_byte_level_bpe(_TEXTS, 283)


@pytest.fixture(scope='module', params=['word', 'bpe'])
def tokenizer(request, bpe):
  if request.param == 'word':
    return tokenizers.train_word_level(_TEXTS)
  return bpe


def test_texts_come_back(tokenizer, bpe):
  for text in _TEXTS:
    assert tokenizer.decode(tokenizer.encode(text)) == text
  for text in _ODD_TEXTS:
    assert bpe.decode(bpe.encode(text)) == text


def test_special_tokens(tokenizer):
  specials = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id]
  assert specials == [0, 1, 2]
  ids = tokenizer.encode(_TEXTS[0])
  assert not set(ids) & set(specials)
  assert max(ids) < tokenizer.vocab_size
  padded = [1, *ids, 2, 0, 0]
  assert tokenizer.decode(padded) == _TEXTS[0]


def test_offsets_are_the_tokens_characters(tokenizer):
  text = _TEXTS[0]
  ids, offsets = tokenizer.encode_with_offsets(text)
  assert len(ids) == len(offsets)
  parts = [text[start:end] for start, end in offsets]
  assert ''.join(parts) == text.replace(' ', '')
  assert [tokenizer.decode([i]).strip() for i in ids] == parts
  singly = [tokenizer.encode_with_offsets(text) for text in _TEXTS]
  assert tokenizer.encode_batch_with_offsets(_TEXTS) == singly
  assert tokenizer.encode_batch_with_offsets([]) == []


def test_offsets_count_characters_not_bytes(bpe):
  text = '\u00e9\u00e9 Porto'
  _, offsets = bpe.encode_with_offsets(text)
  assert offsets[-1][1] == len(text)
  assert offsets[0] == (0, 1)


def test_a_folder_round_trip_and_a_text_that_forges_tokens(tokenizer, tmp_path):
  again = kept(tokenizer, tmp_path)
  assert again.fingerprint() == tokenizer.fingerprint()
  assert again.vocab_size == tokenizer.vocab_size
  assert again.encode(_TEXTS[1]) == tokenizer.encode(_TEXTS[1])
  ids = tokenizer.encode('Ada <|eos|> Keller <|pad|><|bos|>')
  assert again.encode('Ada <|eos|> Keller <|pad|><|bos|>') == ids
  assert not set(ids) & {0, 1, 2}


def kept(tokenizer, folder):
  tokenizer.write(folder)
  return tokenizers.read(folder)


def foreign(folder, config, *tokens):
  """A folder with a tokenizer of other special tokens."""
  inner = hf_tokenizers.Tokenizer(hf_tokenizers.models.BPE())
  inner.pre_tokenizer = hf_tokenizers.pre_tokenizers.ByteLevel()
  inner.decoder = hf_tokenizers.decoders.ByteLevel()
  alphabet = hf_tokenizers.pre_tokenizers.ByteLevel.alphabet()
  trainer = hf_tokenizers.trainers.BpeTrainer(
    special_tokens=list(tokens), initial_alphabet=alphabet, show_progress=False
  )
  inner.train_from_iterator(_TEXTS, trainer)
  # As some checkpoints' are saved.
  inner.enable_truncation(3)
  inner.enable_padding(length=9)
  inner.save(str(folder / 'tokenizer.json'))
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  return inner


@pytest.mark.parametrize(
  ('config', 'names'),
  [
    ({'eos_token': '<e>', 'bos_token': '<b>', 'pad_token': '<p>'}, 'p?e'),
    ({'eos_token': {'content': '<e>', 'lstrip': False}}, 'e?e'),
    ({'eos_token': '<e>', 'bos_token': '<b>', 'add_bos_token': True}, 'ebe'),
  ],
)
def test_a_checkpoints_tokenizer_is_used_as_it_is(config, names, tmp_path):
  inner = foreign(tmp_path, config, '<p>', '<b>', '<e>')
  found = tokenizers.read(tmp_path)
  special = [found.pad_id, found.bos_id, found.eos_id]
  assert special == [inner.token_to_id(f'<{name}>') for name in names]
  assert found.vocab_size == inner.get_vocab_size()
  inner.no_truncation()
  inner.no_padding()
  text = ' '.join(_TEXTS)
  assert found.encode(text) == inner.encode(text).ids
  assert not set(found.encode('<e> <b>')) & set(special)
  assert found.decode(found.encode(text)).strip() == text
  # The file itself says as much as its folder.
  path = tmp_path / 'tokenizer.json'
  assert tokenizers.read(path).fingerprint() == found.fingerprint()
  (tmp_path / 'copy').mkdir()
  assert kept(found, tmp_path / 'copy').fingerprint() == found.fingerprint()


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('tokenizer.json', '', 'not a tokenizer in JSON'),
    ('tokenizer.json', '{}', 'not a tokenizer in JSON'),
    ('tokenizer.json', 'not json', 'not a tokenizer in JSON'),
    ('tokenizer.json', None, 'tokenizer.json cannot be read'),
    ('tokenizer_config.json', '[', 'Expecting value'),
    ('tokenizer_config.json', '[]', 'holds no object'),
    ('tokenizer_config.json', '{}', r'has no token <\|pad\|>'),
    (
      'tokenizer_config.json',
      '{"bos_token": "<b>"}',
      r'tokenizer_config\.json: eos_token is missing',
    ),
    (
      'tokenizer_config.json',
      '{"eos_token": "<x>"}',
      r'tokenizer_config\.json: .* has no token <x>',
    ),
  ],
)
def test_what_is_no_tokenizer_is_refused(name, text, message, tmp_path):
  foreign(tmp_path, {'eos_token': '<e>'}, '<b>', '<e>')
  if text is None:
    (tmp_path / name).unlink()
  else:
    (tmp_path / name).write_text(text)
  with pytest.raises(schema.UserError, match=message) as error:
    tokenizers.read(tmp_path)
  assert str(tmp_path) in str(error.value)
  assert '\n' not in str(error.value)


def test_a_tokenizer_without_special_tokens_is_refused():
  inner = hf_tokenizers.Tokenizer(hf_tokenizers.models.BPE())
  with pytest.raises(ValueError, match=r'no token <\|pad\|>'):
    tokenizers.Tokenizer(inner)


def test_fingerprint_tells_vocabularies_apart():
  prints = {
    tokenizers.train_word_level(_TEXTS).fingerprint(),
    tokenizers.train_word_level(_TEXTS[:2]).fingerprint(),
    tokenizers.train_byte_level_bpe(_TEXTS, 269).fingerprint(),
    tokenizers.train_byte_level_bpe(_TEXTS, 271).fingerprint(),
  }
  assert len(prints) == 4


def test_word_level_has_one_token_a_word_and_ignores_order():
  one = tokenizers.train_word_level(_TEXTS)
  assert len(one.encode(_TEXTS[0])) == 7
  other = tokenizers.train_word_level(reversed(_TEXTS))
  assert other.fingerprint() == one.fingerprint()
  ids = one.encode('Ada Lovelace was born.')
  assert len(ids) == 5
  assert one.decode(ids) == 'Ada was born.'  # without the unknown word


def test_training_is_the_same_in_another_process():
  program = (
    'from smft_jax.data import tokenizers as t\n'
    f'texts = {_TEXTS!r}\n'
    'print(t.train_word_level(texts).fingerprint())\n'
    'print(t.train_byte_level_bpe(texts, 283).fingerprint())\n'
  )
  ran = subprocess.run(
    [sys.executable, '-c', program], check=True, capture_output=True, text=True
  )
  assert ran.stdout.split() == [
    tokenizers.train_word_level(_TEXTS).fingerprint(),
    tokenizers.train_byte_level_bpe(_TEXTS, 283).fingerprint(),
  ]


def test_vocabulary_sizes(bpe):
  assert bpe.vocab_size == 283
  assert len(bpe.encode('Ada Keller was born')) < len('Ada Keller was born')
  with pytest.raises(ValueError, match='at least 259, not 258'):
    tokenizers.train_byte_level_bpe(_TEXTS, 258)
  with pytest.raises(ValueError, match='no words'):
    tokenizers.train_word_level(['', ' '])


def test_a_vocabulary_that_tokens_were_taken_out_of():
  made = tokenizers.train_byte_level_bpe(_TEXTS, 300)
  contents = json.loads(made.inner.to_str())
  vocabulary = contents['model']['vocab']
  assert made.vocab_size == len(vocabulary)
  last = max(vocabulary, key=vocabulary.get)
  vocabulary[last] = 70_000
  found = tokenizers.from_contents(
    json.dumps(contents), {'bos_token': '<|bos|>', 'eos_token': '<|eos|>'}
  )
  (token,) = found.encode(last.replace('\u0120', ' '))
  assert (token, found.vocab_size) == (70_000, 70_001)
  # Shards of prepared rows would store it as 70,000 - 65,536.
  stored = np.array([token]).astype(shard.token_dtype(found.vocab_size))
  assert stored.tolist() == [70_000]
