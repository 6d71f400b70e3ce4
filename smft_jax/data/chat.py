"""Asks a question in the form that a model was tuned to answer: a chat.

The form is the Jinja template of the tokenizer. It is rendered once, in a
sandbox, with a mark in place of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import datetime
import json
import re
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from smft_jax import schema
from smft_jax.data import tokenizers
from smft_jax.data.world import words

# From the private use area, so that no template has them.
_MESSAGE, _ANSWER = '\ue0f0', '\ue0f1'

# The day that templates are told, so that a run asks the same tomorrow. It is
# the one that Llama 3.2's has for want of another.
_DAY = datetime.datetime(2024, 7, 26)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Chat:
  """A conversation with one message, to be answered.

  Attributes:
    tokenizer: The tokenizer, whose template was rendered.
    before: What comes before the message: text and special tokens in turn.
    after: The same for what comes after it.
    end_id: Id that ends an answer in the template.

  Example:
    >>> tokenizer = tokenizers.train_word_level(['user Where is Ada'])
    >>> chat = make(dataclasses.replace(
    ...   tokenizer, chat_template='<|bos|>user {{ messages[0].content }}'))
    >>> ids, _ = chat.encode('Question: Where is Ada? Answer:')
    >>> ids[0] == tokenizer.bos_id, chat.message('Question: Where? Answer:')
    (True, 'Where?')
  """

  tokenizer: tokenizers.Tokenizer
  before: tuple[str, ...]
  after: tuple[str, ...]
  end_id: int

  @property
  def end_ids(self) -> tuple[int, ...]:
    """The ids that end an answer."""
    return tuple(dict.fromkeys((*self.tokenizer.end_ids, self.end_id)))

  def encode(
    self, prompt: str, answer: str = ''
  ) -> tuple[list[int], list[tuple[int, int]]]:
    """Returns the token ids of a chat, and the span of characters of each.

    Spans count from the start of the answer; those before it are negative.
    Special tokens count in the template only, not in the prompt or the answer.

    Args:
      prompt: The prompt of a question.
      answer: The answer.
    """
    # Texts are at even places, special tokens at odd ones.
    joined = self.before[-1] + self.message(prompt) + self.after[0]
    pieces = [*self.before[:-1], joined, *self.after[1:]]
    pieces[-1] += answer
    texts = self.tokenizer.encode_batch_with_offsets(pieces[::2])
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    start = len(answer) - sum(map(len, pieces))
    for place, piece in enumerate(pieces):
      if place % 2:
        ids.append(self.tokenizer.special_id(piece))
        offsets.append((start, start + len(piece)))
      elif piece:
        found, spans = texts[place // 2]
        ids += found
        offsets += [(start + s, start + e) for s, e in spans]
      start += len(piece)
    return ids, offsets

  def message(self, prompt: str) -> str:
    """Returns what a person would write: the question without its frame."""
    prompt = prompt.strip()
    before, after = words.QUESTION_FORMAT.split('{question}')
    if prompt.startswith(before) and prompt.endswith(after):
      prompt = prompt[len(before) : -len(after)]
    return prompt.strip()


def make(
  tokenizer: tokenizers.Tokenizer, vocab_size: int | None = None
) -> Chat:
  """Renders the chat template of a tokenizer.

  Args:
    tokenizer: The tokenizer.
    vocab_size: Tokens of the model, if the tokenizer may have more.

  Raises:
    UserError: There is none, it cannot be rendered, or it has special tokens
      that the model does not know.
  """
  if tokenizer.chat_template is None:
    raise schema.UserError('the tokenizer has no default chat template')
  asked = [{'role': 'user', 'content': _MESSAGE}]
  answered = [*asked, {'role': 'assistant', 'content': _ANSWER}]
  before, *after = _render(tokenizer, asked, True).split(_MESSAGE)
  if len(after) != 1:
    raise schema.UserError(
      f'the chat template shows a message {len(after)} times; expected once'
    )
  _, _, rest = _render(tokenizer, answered, False).partition(_ANSWER)
  text, *following = _split(tokenizer, rest)
  end = following[0] if following and not text.strip() else tokenizer.eos
  chat = Chat(
    tokenizer=tokenizer,
    before=_split(tokenizer, before),
    after=_split(tokenizer, after[0]),
    end_id=tokenizer.special_id(end),
  )
  for token in (*chat.before[1::2], *chat.after[1::2], end):
    if vocab_size is not None and tokenizer.special_id(token) >= vocab_size:
      raise schema.UserError(
        f'the chat template has the token {token!r} with the id'
        f' {tokenizer.special_id(token)}, but the model has vocab_size ='
        f' {vocab_size}'
      )
  return chat


def _split(tokenizer: tokenizers.Tokenizer, text: str) -> tuple[str, ...]:
  """Splits a text at special tokens, which are then at odd places.

  A token may take the space on one side of it along.
  """
  added = tokenizer.inner.get_added_tokens_decoder().values()
  special = {token.content: token for token in added if token.special}
  # Longer tokens first: one may begin with another.
  names = map(re.escape, sorted(special, key=len, reverse=True))
  pieces = re.split(f'({"|".join(names)})', text)
  for place in range(1, len(pieces), 2):
    token = special[pieces[place]]
    if token.lstrip:
      pieces[place - 1] = pieces[place - 1].rstrip()
    if token.rstrip:
      pieces[place + 1] = pieces[place + 1].lstrip()
  return tuple(pieces)


def _render(
  tokenizer: tokenizers.Tokenizer,
  messages: Sequence[dict[str, Any]],
  add_generation_prompt: bool,
) -> str:
  # As `transformers` renders templates, which are written for it.
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[jinja2.ext.loopcontrols, _Generation],
  )
  environment.globals['raise_exception'] = _refuse
  environment.globals['strftime_now'] = _DAY.strftime
  environment.filters['tojson'] = _to_json
  try:
    template = environment.from_string(tokenizer.chat_template or '')
    return template.render(
      messages=messages,
      tools=None,
      documents=None,
      add_generation_prompt=add_generation_prompt,
      bos_token=tokenizer.bos,
      eos_token=tokenizer.eos,
      pad_token=tokenizer.pad,
    )
  except Exception as error:  # A template may fail in any way.
    raise schema.UserError(
      f'the chat template cannot be rendered: {schema.one_line(error)}'
    ) from None


class _Generation(jinja2.ext.Extension):
  """A tag around what an assistant says, for trainers that mask the rest."""

  tags = {'generation'}  # noqa: RUF012 (as jinja2 declares it)

  def parse(self, parser):
    """Returns the nodes within the tag."""
    next(parser.stream)
    return parser.parse_statements(('name:endgeneration',), drop_needle=True)


def _to_json(value: Any, indent: int | None = None, **settings: Any) -> str:
  return json.dumps(value, ensure_ascii=False, indent=indent, **settings)


def _refuse(message: str) -> None:
  raise jinja2.TemplateError(message)
