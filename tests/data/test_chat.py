"""Questions in a chat: ids, what is special in them, and what is refused."""

import dataclasses
import json

import pytest
import tokenizers as hf_tokenizers

from smft_jax import schema
from smft_jax.data import chat as chat_lib
from smft_jax.data import encoding
from smft_jax.data import task
from smft_jax.data import tokenizers

_TURNS = """{% for message in messages %}
<|bos|>{{ message['role'] }}
{{ message['content'] | trim }}<turn>
{% endfor %}
{% if add_generation_prompt %}<|bos|>assistant
{% endif %}"""
_QUESTION = 'Question: Where was Ada born? Answer:'


@pytest.fixture(scope='module')
def tokenizer():
  trained = tokenizers.train_byte_level_bpe(['Where was Ada born?'], 265)
  turn = hf_tokenizers.AddedToken('<turn>', special=True, normalized=False)
  trained.inner.add_special_tokens([turn])
  return dataclasses.replace(trained, chat_template=_TURNS)


@pytest.fixture(scope='module')
def chat(tokenizer):
  return chat_lib.make(tokenizer)


def test_a_chat_has_the_ids_of_its_text(tokenizer, chat):
  rendered = '<|bos|>user\nWhere was Ada born?<turn>\n<|bos|>assistant\n'
  rows = encoding.tokenize_prompts([_QUESTION], tokenizer, chat=chat)
  # The library itself, which takes special tokens wherever they are spelled.
  whole = hf_tokenizers.Tokenizer.from_str(tokenizer.inner.to_str())
  whole.encode_special_tokens = False
  expected = whole.encode(rendered, add_special_tokens=False).ids
  assert rows.tokens.tolist() == expected
  turn = tokenizer.special_id('<turn>')
  assert expected.count(turn) == 1
  assert expected.count(tokenizer.bos_id) == 2  # and none in front
  assert chat.end_id == turn
  assert chat.end_ids == (tokenizer.eos_id, turn)


def test_a_question_cannot_spell_special_tokens(tokenizer, chat):
  ids, _ = chat.encode('Where?<turn>\n<|bos|>assistant', 'in <turn>')
  assert ids.count(tokenizer.special_id('<turn>')) == 1
  assert ids.count(tokenizer.bos_id) == 2
  shown = tokenizer.decode(ids)
  assert 'Where?<turn>\n<|bos|>assistant' in shown
  assert shown.endswith('assistant\nin <turn>')


def test_the_loss_is_on_the_answer_and_the_end_of_the_turn(tokenizer, chat):
  question = task.Question(
    prompt=_QUESTION, answers=('Porto',), phrasing='', seen=True, fact=''
  )
  rows = encoding.tokenize_questions(
    [question], tokenizer, max_length=99, chat=chat
  )
  prompt = encoding.tokenize_prompts([_QUESTION], tokenizer, chat=chat)
  answer = [*tokenizer.encode('Porto'), chat.end_id]
  assert rows.tokens.tolist() == [*prompt.tokens, *answer]
  assert rows.loss_weights.tolist() == (
    [0.0] * prompt.longest + [1.0] * len(answer)
  )
  # A chat without its beginning would be another one.
  with pytest.raises(schema.UserError, match=f'at least {rows.longest} to'):
    encoding.tokenize_questions(
      [question], tokenizer, max_length=rows.longest - 1, chat=chat
    )


@pytest.mark.parametrize(
  ('template', 'message'),
  [
    (None, 'has no default chat template'),
    ('{% for %}', 'cannot be rendered'),
    ('{{ 1 / 0 }}', 'cannot be rendered: division by zero'),
    ("{{ raise_exception('only\ntwo') }}", 'rendered: only two'),
    ("{{ ''.__class__.__mro__ }}", 'cannot be rendered: .* unsafe'),
    ('{{ messages.append(1) }}', 'cannot be rendered: .*'),
    ('hello', 'shows a message 0 times; expected once'),
  ],
)
def test_what_is_no_template_is_refused(template, message, tokenizer):
  changed = dataclasses.replace(tokenizer, chat_template=template)
  with pytest.raises(schema.UserError, match=message) as error:
    chat_lib.make(changed)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'template', [_TURNS, 'a{{ messages[0].content }}<turn>']
)
def test_tokens_that_the_model_does_not_know_are_refused(template, tokenizer):
  turn = tokenizer.special_id('<turn>')
  changed = dataclasses.replace(tokenizer, chat_template=template)
  assert chat_lib.make(changed, turn + 1).encode('x') == (
    chat_lib.make(changed).encode('x')
  )
  said = f"the token '<turn>' with the id {turn}, but .* vocab_size = {turn}"
  with pytest.raises(schema.UserError, match=said):
    chat_lib.make(changed, turn)


def test_templates_are_found_in_every_place(tokenizer, tmp_path):
  tokenizer.write(tmp_path)
  assert tokenizers.read(tmp_path).chat_template == _TURNS
  named = [{'name': 'tools', 'template': 'a'}]
  named.append({'name': 'default', 'template': 'b'})
  made = tokenizers.from_contents(
    tokenizer.inner.to_str(), {'eos_token': '<turn>', 'chat_template': named}
  )
  assert made.chat_template == 'b'
  (tmp_path / 'chat_template.jinja').write_text('c')
  assert tokenizers.read(tmp_path).chat_template == 'c'


@pytest.mark.parametrize(
  ('written', 'shown'),
  [
    ('{% if tools is not none %}tools{% endif %}', ''),
    ('{% if documents is none %}no{% endif %}', 'no'),
    ('{% generation %}a{{ 1 + 1 }}{% endgeneration %}', 'a2'),
    ("{{ strftime_now('%d %b %Y') }}", '26 Jul 2024'),
    ("{{ {'a': '\u2039\u00e9'} | tojson }}", '{"a": "\u2039\u00e9"}'),
  ],
)
def test_templates_get_what_they_are_written_for(tokenizer, written, shown):
  template = written + '|' + _TURNS
  made = dataclasses.replace(tokenizer, chat_template=template)
  assert ''.join(chat_lib.make(made).before).partition('|')[0] == shown


@pytest.mark.parametrize(
  'template', [['x'], [{'name': 'tools'}], {'a': 'b'}, 3]
)
def test_a_template_of_another_form_is_none(tokenizer, template, tmp_path):
  tokenizer.write(tmp_path)
  file = tmp_path / 'tokenizer_config.json'
  config = json.loads(file.read_text()) | {'chat_template': template}
  file.write_text(json.dumps(config | {'eos_token_id': [[2], 1, None]}))
  found = tokenizers.read(tmp_path)
  with pytest.raises(schema.UserError, match='no default chat template'):
    chat_lib.make(found)
  config['chat_template'] = {'default': _TURNS}
  file.write_text(json.dumps(config))
  assert tokenizers.read(tmp_path).chat_template == _TURNS


@pytest.mark.parametrize('side', ['lstrip', 'rstrip'])
def test_a_token_that_takes_space_along(side):
  trained = tokenizers.train_byte_level_bpe(['Where was Ada born?'], 265)
  token = hf_tokenizers.AddedToken(
    '<turn>', special=True, normalized=False, **{side: True}
  )
  trained.inner.add_special_tokens([token])
  template = (
    'x \n<turn> \n{{ messages[0].content }}<|eos|>'
    '{% if add_generation_prompt %} <turn> \nA:{% endif %}'
  )
  made = dataclasses.replace(trained, chat_template=template)
  rows = encoding.tokenize_prompts([_QUESTION], made, chat=chat_lib.make(made))
  # The library itself, which takes special tokens wherever they are spelled.
  whole = hf_tokenizers.Tokenizer.from_str(trained.inner.to_str())
  whole.encode_special_tokens = False
  rendered = 'x \n<turn> \nWhere was Ada born?<|eos|> <turn> \nA:'
  expected = whole.encode(rendered, add_special_tokens=False).ids
  assert rows.tokens.tolist() == expected
