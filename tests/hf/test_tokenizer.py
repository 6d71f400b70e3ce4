"""The tokenizer of a GGUF: splits, ids and files of the model's own."""

import itertools
import json

import pytest
import tokenizers as hf_tokenizers

from smft_jax import hf
from smft_jax import schema
from smft_jax.data import tokenizers
from tests.support import gguf_files
from tests.support import hf_folders

TEXTS = (
  "She'll pay 12345 euros, they'd say; it's 12345.",
  'naïve  cafés\n\n in 1234 towns, 12345 people',
)


def entries(pre_tokenizer, **changes):
  """Metadata of a tokenizer, and the tokenizer that it comes from."""
  trained = tokenizers.train_byte_level_bpe(TEXTS, 300)
  changes = {'pre': pre_tokenizer} | changes
  return gguf_files.tokenizer_entries(trained, **changes), trained


def write(folder, metadata):
  sizes, tensors = gguf_files.contents_of(hf_folders.FOLDER / 'llama')
  file = folder / 'model.gguf'
  return gguf_files.write(file, sizes | metadata, tensors)


def test_ids_are_those_of_the_tokenizer_it_was_made_from(tmp_path):
  metadata, trained = entries('gpt-2')
  found = hf.load_tokenizer(write(tmp_path, metadata))
  assert (found.pad, found.bos, found.eos) == (
    trained.pad,
    trained.bos,
    trained.eos,
  )
  assert found.vocab_size == trained.vocab_size + 1
  for text in TEXTS:
    assert found.encode(text) == trained.encode(text)
    assert found.decode(found.encode(text)) == text
  # Special tokens that are spelled are text; a user's own tokens are tokens.
  assert found.bos_id not in found.encode(f'{found.bos}')
  thought = found.inner.token_to_id('<think>')
  assert found.inner.encode('12<think>').ids[-1] == thought


def test_the_end_of_a_turn_ends_an_answer(tmp_path):
  metadata, trained = entries('gpt-2', eot_token_id=0)
  file = write(tmp_path, metadata)
  assert hf.load_tokenizer(file).end_ids == (trained.eos_id, 0)
  hf.save_model(hf.load_model(file), tmp_path / 'out', source=file)
  assert hf.load_tokenizer(tmp_path / 'out').end_ids == (trained.eos_id, 0)


SPLITS = {
  'gpt-2': ['She', "'ll", ' 12345', ' naïve', ',', '\n\n', ' x'],
  'smollm': [
    *('She', "'ll", ' ', *'12345', ' naïve', ',', '\n\n', ' x'),
  ],
  'llama-bpe': ['She', "'ll", ' ', '123', '45', ' naïve', ',\n\n', ' x'],
  'qwen2': ['She', "'ll", ' ', *'12345', ' naïve', ',\n\n', ' x'],
}


@pytest.mark.parametrize('pre', SPLITS)
def test_texts_are_split_as_the_model_was_trained(pre, tmp_path):
  metadata, _ = entries(pre)
  inner = hf.load_tokenizer(write(tmp_path, metadata)).inner
  text = "She'll 12345 naïve,\n\n x"
  spans = [span for _, span in inner.pre_tokenizer.pre_tokenize_str(text)]
  assert [text[start:end] for start, end in spans] == SPLITS[pre]
  composed, apart = 'caf\u00e9', 'cafe\u0301'
  is_one = inner.encode(composed).ids == inner.encode(apart).ids
  assert is_one == (pre == 'qwen2')


PIECES = ['▁a', 'na', '▁ana', 'nana', 'an', 'ba', '▁▁', '▁ba', *'▁abn']


def sentencepiece_entries(**changes):
  """A vocabulary of pieces: the first is the best to merge."""
  tokens = ['<unk>', '<s>', '</s>', *(f'<0x{i:02X}>' for i in range(256))]
  kinds, scores = [2, 3, 3] + [6] * 256, [0.0] * len(tokens)
  found = {
    'model': 'llama',
    'tokens': tokens + PIECES,
    'token_type': kinds + [1] * len(PIECES),
    'scores': scores + [-float(i) for i in range(len(PIECES))],
    'bos_token_id': 1,
    'eos_token_id': 2,
    'unknown_token_id': 0,
    **changes,
  }
  return {f'tokenizer.ggml.{key}': value for key, value in found.items()}


def merged(text):
  """Merges the best pair, again and again; other letters become bytes."""
  pieces = list(text.replace(' ', '▁'))
  while True:
    pairs = [
      (PIECES.index(a + b), i)
      for i, (a, b) in enumerate(itertools.pairwise(pieces))
      if a + b in PIECES
    ]
    if not pairs:
      break
    _, i = min(pairs)
    pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
  found = []
  for piece in pieces:
    known = piece in PIECES
    data = () if known else piece.encode()
    found += [259 + PIECES.index(piece)] if known else [3 + b for b in data]
  return found


@pytest.mark.parametrize('prefix', [True, False])
def test_pieces_are_merged_by_score(prefix, tmp_path):
  metadata = sentencepiece_entries(add_space_prefix=prefix)
  found = hf.load_tokenizer(write(tmp_path, metadata))
  assert (found.beginning, found.end_ids) == ((1,), (2,))
  for text in ('banana', 'a ana  banana', 'naïve\n<s> ba', '  nanan'):
    ids = found.encode(text)
    assert ids == merged(' ' * prefix + text)
    assert found.decode(ids) == text


@pytest.mark.parametrize(
  ('pre', 'given', 'added'),
  [
    ('smollm', {}, ''),
    ('smollm', {'add_bos_token': True}, 'b'),
    ('llama-bpe', {}, 'b'),
    ('llama-bpe', {'add_bos_token': False}, ''),
    ('qwen2', {'add_bos_token': True, 'add_eos_token': True}, 'be'),
  ],
)
def test_what_is_put_around_a_text_is_in_the_files(pre, given, added, tmp_path):
  metadata, trained = entries(pre, **given)
  metadata['tokenizer.chat_template'] = '{{ messages }}'
  file = write(tmp_path, metadata)
  out = tmp_path / 'out'
  hf.save_model(hf.load_model(file), out, source=file)
  inner = hf_tokenizers.Tokenizer.from_file(str(out / 'tokenizer.json'))
  ids = inner.encode('x', add_special_tokens=True).ids
  expected = inner.encode('x', add_special_tokens=False).ids
  expected = [trained.bos_id] * ('b' in added) + expected
  assert ids == expected + [trained.eos_id] * ('e' in added)
  config = json.loads((out / 'tokenizer_config.json').read_text())
  assert config['add_bos_token'] == ('b' in added)
  assert config['eos_token'] == trained.eos
  assert config['chat_template'] == '{{ messages }}'
  settings = json.loads((out / 'config.json').read_text())
  assert settings['eos_token_id'] == trained.eos_id
  assert settings['max_position_embeddings'] == 512
  assert hf.load_config(out) == hf.load_config(file)


@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    (
      {'model': 'bert'},
      "ggml.model = 'bert' is not supported; expected 'gpt2'",
    ),
    (
      {'pre': 'tekken'},
      "ggml.pre = 'tekken' is not supported; expected 'gpt-2'",
    ),
    ({'model': None}, 'tokenizer.ggml.model is missing'),
    ({'pre': None}, 'tokenizer.ggml.pre is missing'),
    ({'merges': None}, 'tokenizer.ggml.merges is missing'),
    ({'merges': ['ab']}, 'model.gguf: its tokenizer: not a tokenizer in JSON'),
    ({'eos_token_id': 9999}, 'eos_token_id = 9999 is not .* an id below 301'),
    ({'eos_token_id': None}, 'tokenizer.ggml.eos_token_id is missing'),
    ({'token_type': [1, 1]}, 'token_type has 2 entries for 301 tokens'),
  ],
)
def test_a_byte_level_tokenizer_that_is_not_supported(changes, match, tmp_path):
  metadata, _ = entries('gpt-2', **changes)
  with pytest.raises(schema.UserError, match=match) as caught:
    hf.load_tokenizer(write(tmp_path, metadata))
  assert '\n' not in str(caught.value)


def test_pieces_without_scores(tmp_path):
  file = write(tmp_path, sentencepiece_entries(scores=[0.0]))
  with pytest.raises(schema.UserError, match='scores has 1 entries for 271'):
    hf.load_tokenizer(file)
