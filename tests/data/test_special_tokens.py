"""Which special tokens a checkpoint's files name, and where its rows begin.

The folders are small forms of those of Llama 2, Llama 3, Qwen and SmolLM.
"""

import itertools
import json
import os
import pathlib

import numpy as np
import pytest
import tokenizers as hf_tokenizers

from smft_jax import schema
from smft_jax.data import chat as chat_lib
from smft_jax.data import encoding
from smft_jax.data import task
from smft_jax.data import tokenizers

_PROMPTS = (
  'Question: Where was Ada born? Answer:',
  'The capital of France is',
  "Don't stop: it's 1984, 3.14 and 42%!",
  '  two  spaces\tand a tab\n\nnew line',
  'caf\u00e9 na\u00efve \U0001f600 \u4f60\u597d',
  'def f(x):\n    return x ** 2\n',
  'Who wrote Hamlet?\nAnswer:',
  'A. B. C.',
  'x',
  'Question: One? Answer: two\n\nQuestion: Three? Answer:',
)
_TEXT = 'Ada was born in Porto.'
_SPECIAL = ('<pad>', '<b>', '<e>', '<turn>')
_BEGIN = {
  'type': 'TemplateProcessing',
  'single': [
    {'SpecialToken': {'id': '<b>', 'type_id': 0}},
    {'Sequence': {'id': 'A', 'type_id': 0}},
  ],
  'pair': [
    {'Sequence': {'id': 'A', 'type_id': 0}},
    {'Sequence': {'id': 'B', 'type_id': 0}},
  ],
  'special_tokens': {'<b>': {'id': '<b>', 'ids': [1], 'tokens': ['<b>']}},
}
_BYTES = {
  'type': 'ByteLevel',
  'add_prefix_space': True,
  'trim_offsets': False,
  'use_regex': True,
}
_LLAMA_3 = {'type': 'Sequence', 'processors': [_BYTES, _BEGIN]}
_NAMED = {'bos_token': '<b>', 'eos_token': '<e>'}


def write(folder, post_processor, **files):
  """Writes a folder; each file is given by its name without the suffix."""
  inner = hf_tokenizers.Tokenizer(hf_tokenizers.models.BPE())
  inner.pre_tokenizer = hf_tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  inner.decoder = hf_tokenizers.decoders.ByteLevel()
  trainer = hf_tokenizers.trainers.BpeTrainer(
    special_tokens=list(_SPECIAL),
    initial_alphabet=hf_tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  inner.train_from_iterator([_TEXT], trainer)
  files['tokenizer'] = json.loads(inner.to_str())
  files['tokenizer']['post_processor'] = post_processor
  for name, content in files.items():
    (folder / f'{name}.json').write_text(json.dumps(content))
  return tokenizers.read(folder)


@pytest.mark.parametrize(
  ('post_processor', 'config', 'begins'),
  [
    (_LLAMA_3, _NAMED, True),
    (_BEGIN, {'eos_token': '<e>'}, True),  # and no name
    (_BYTES, _NAMED, False),
    (None, _NAMED | {'add_bos_token': None}, False),
    # As Qwen's: without a beginning token.
    (_BYTES, {'eos_token': '<e>', 'bos_token': None}, False),
    # As Llama 2's and SmolLM's: the key goes before the post-processor.
    (None, _NAMED | {'add_bos_token': True}, True),
    (_BEGIN, _NAMED | {'add_bos_token': False}, False),
  ],
)
def test_rows_begin_as_the_checkpoints_do(
  post_processor, config, begins, tmp_path
):
  found = write(tmp_path, post_processor, tokenizer_config=config)
  ids = found.encode(_TEXT)
  assert not {0, 1, 2, 3} & set(ids)
  begin = [1] if begins else []
  assert list(found.beginning) == begin
  assert found.bos_id == (1 if begins else None)
  assert found.end_ids == (2,)
  (prompt,) = rows_of(encoding.tokenize_prompts([_TEXT], found))
  assert prompt[0] == begin + ids
  if 'add_bos_token' not in config:
    assert prompt[0] == found.inner.encode(_TEXT).ids
  (row,) = rows_of(
    encoding.tokenize([task.Text(text=_TEXT)], found, max_length=99)
  )
  assert row[0] == begin + ids + [2]
  # The first token of a row has nothing before it to be predicted from.
  assert row[1] == [0.0] + [1.0] * (len(row[0]) - 1)
  text = task.Text(text=_TEXT, answer=(16, 21))
  (whole,) = rows_of(
    encoding.tokenize_answers([text], found, max_length=99, end=True)
  )
  assert whole[0] == row[0]
  found.write(tmp_path)
  again = tokenizers.read(tmp_path)
  assert again.fingerprint() == found.fingerprint()
  assert again.beginning == found.beginning


def rows_of(rows):
  cuts = list(rows.starts)
  return [
    (rows.tokens[a:b].tolist(), rows.loss_weights[a:b].tolist())
    for a, b in itertools.pairwise(cuts)
  ]


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # not ours to keep free of them
@pytest.mark.parametrize('kind', ['words', 'bytes'])
def test_transformers_begins_the_rows_of_our_tokenizers(kind, tmp_path):
  transformers = pytest.importorskip('transformers')
  made = (
    tokenizers.train_word_level(_PROMPTS)
    if kind == 'words'
    else tokenizers.train_byte_level_bpe(_PROMPTS, 270)
  )
  made.write(tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  rows = rows_of(encoding.tokenize_prompts(_PROMPTS, made))
  assert [ids for ids, _ in rows] == [theirs(p)['input_ids'] for p in _PROMPTS]


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # not ours to keep free of them
@pytest.mark.parametrize('kind', ['llama_2', 'llama_3', 'qwen', 'folder'])
def test_ids_are_those_of_transformers(kind, tmp_path):
  """`SMFT_TEST_HF_FOLDER` may name a real folder with a tokenizer."""
  transformers = pytest.importorskip('transformers')
  template = (
    '{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<e>\n'
    '{% endfor %}{% if add_generation_prompt %}<turn>assistant\n{% endif %}'
  )
  config = _NAMED | {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'chat_template': template,
  }
  folder = tmp_path
  if kind == 'llama_2':
    config['add_bos_token'] = True
    write(tmp_path, _BEGIN, tokenizer_config=config)
  elif kind == 'llama_3':
    write(tmp_path, _LLAMA_3, tokenizer_config=config)
  elif kind == 'qwen':
    write(tmp_path, _BYTES, tokenizer_config=config | {'bos_token': None})
  elif not (folder := os.environ.get('SMFT_TEST_HF_FOLDER', '')):
    pytest.skip('SMFT_TEST_HF_FOLDER is not set')
  ours = tokenizers.read(pathlib.Path(folder))
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  rows = rows_of(encoding.tokenize_prompts(_PROMPTS, ours))
  assert [ids for ids, _ in rows] == [theirs(p)['input_ids'] for p in _PROMPTS]
  chat = chat_lib.make(ours)
  for prompt in _PROMPTS:
    message = [{'role': 'user', 'content': chat.message(prompt)}]
    rendered = theirs.apply_chat_template(
      message, add_generation_prompt=True, tokenize=False
    )
    expected = theirs(rendered, add_special_tokens=False)['input_ids']
    assert chat.encode(prompt)[0] == expected


def test_long_texts_without_a_beginning_are_cut_whole(tmp_path):
  found = write(tmp_path, None, tokenizer_config=_NAMED)
  ids = [*found.encode(_TEXT), 2]
  rows = encoding.tokenize([task.Text(text=_TEXT)], found, max_length=3)
  assert rows.tokens.tolist() == ids
  assert rows.longest == 3
  np.testing.assert_array_equal(rows.loss_weights[rows.starts[:-1]], 0.0)
  # An answer's first token needs one before it.
  answer = task.Text(text=_TEXT, answer=(16, 21))
  least = len(ids) - len(found.encode('Ada was born in')) + 1
  cut = encoding.tokenize_answers([answer], found, max_length=least, end=True)
  assert cut.tokens.tolist() == ids[-least:]
  assert cut.loss_weights[0] == 0.0
  assert cut.loss_weights[1] == 1.0
  with pytest.raises(schema.UserError, match=f'at least {least} to hold'):
    encoding.tokenize_answers([answer], found, max_length=least - 1, end=True)


def test_every_file_may_name_tokens_that_end_an_answer(tmp_path):
  found = write(
    tmp_path,
    None,
    special_tokens_map=_NAMED | {'pad_token': {'content': '<pad>'}},
    generation_config={'eos_token_id': [3, 2]},
    # An ordinary token is no end, even if a config says so.
    config={'eos_token_id': 5, 'bos_token_id': 1},
  )
  assert found.end_ids == (2, 3)
  assert (found.pad, found.bos, found.eos) == ('<pad>', '<b>', '<e>')
  (tmp_path / 'copy').mkdir()
  found.write(tmp_path / 'copy')
  assert tokenizers.read(tmp_path / 'copy').end_ids == (2, 3)


def test_ids_name_tokens_where_names_are_missing(tmp_path):
  config = {'eos_token_id': [3, 2], 'bos_token_id': 1, 'pad_token_id': 0}
  found = write(tmp_path, _LLAMA_3, config=config)
  assert (found.pad, found.bos, found.eos) == ('<pad>', '<b>', '<turn>')
  assert found.end_ids == (3, 2)


@pytest.mark.parametrize(
  ('post_processor', 'config', 'message'),
  [
    (
      None,
      {'eos_token': '<e>', 'add_bos_token': True},
      r'tokenizer_config\.json: .*, but bos_token is missing',
    ),
    (
      {'type': 'Sequence', 'processors': [_BEGIN, _BEGIN]},
      _NAMED,
      'several special tokens',
    ),
  ],
)
def test_contradictions_are_refused(post_processor, config, message, tmp_path):
  with pytest.raises(schema.UserError, match=message) as error:
    write(tmp_path, post_processor, tokenizer_config=config)
  assert str(tmp_path) in str(error.value)
