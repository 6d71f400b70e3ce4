"""Rows of a data set or file, before anyone knows what shape they have.

The functions here find things in a row by its fields. Sets that say the same in
other words, such as `question` and `problem`, then read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from smft_jax.data.sources import problems

# What GSM8K puts between a solution and its result, and around a computation.
_RESULT_MARK = '####'
_CALCULATION = re.compile(r'<<.*?>>')
_BRACKETS = re.compile(r'\[.*?\]')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """An example of a data set, or a line of a file.

  Attributes:
    place: Where it lies, as messages say it.
    default_id: Its id if no field says one.
    fields: What it holds, by name.
  """

  place: str
  default_id: str
  fields: Mapping[str, Any]

  def id(self) -> str:
    """Its field `id` as text, or else the id that its place gives.

    Raises:
      Fault: The field is neither text nor a whole number.
    """
    value = self.fields.get('id')
    if value is None:
      return self.default_id
    if isinstance(value, int) and not isinstance(value, bool):
      return str(value)
    if not isinstance(value, str) or not value.strip():
      raise problems.Fault(
        'wrong_form',
        f"'id' must be text or a whole number, not {problems.shortened(value)}",
      )
    return value


def find(fields: Mapping[str, Any], *names: str) -> tuple[str, Any]:
  """The first of these fields that is there: its name and value.

  Raises:
    Fault: None is there; it says what is.

  Example:
    >>> find({'id': 3, 'problem': 'Why?'}, 'question', 'problem')
    ('problem', 'Why?')
  """
  for name in names:
    if name in fields:
      return name, fields[name]
  wanted = ' or '.join(map(repr, names))
  # All of them: what is near in spelling is seldom what is meant here.
  there = ', '.join(fields) or 'nothing'
  raise problems.Fault('wrong_form', f'{wanted} is missing; there is {there}')


def text(fields: Mapping[str, Any], *names: str) -> str:
  """The text in the first of these fields that is there, as it is.

  Raises:
    Fault: None is there, or it is not text, or blank.

  Example:
    >>> text({'text': ' It rains. '}, 'text')
    ' It rains. '
  """
  name, value = find(fields, *names)
  if not isinstance(value, str):
    raise problems.Fault(
      'wrong_form', f'{name!r} must be text, not {problems.shortened(value)}'
    )
  if not value.strip():
    raise problems.Fault('empty', f'{name!r} is empty')
  return value


def title(fields: Mapping[str, Any]) -> str:
  """The field `title`; '' where there is none.

  Raises:
    Fault: It is not text.
  """
  value = fields.get('title')
  if not isinstance(value, str | None):
    raise problems.Fault(
      'wrong_form', f"'title' must be text, not {problems.shortened(value)}"
    )
  return value or ''


def answers(fields: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
  """What counts as a right answer, and the way to it where that is told.

  Args:
    fields: With `answers` or `answer`: a text, a list of them,
      `{'text': [...]}` or `{'value': ..., 'aliases': [...]}`. A text with a
      result after '####' is a solution as GSM8K writes it: the answer is the
      result alone.

  Returns:
    The answers, each once and the first one first; and the solution without
    its result and the calculator's marks, or ''.

  Raises:
    Fault: There is no answer, an empty one, or it has another form.

  Example:
    >>> answers({'answer': {'value': 'Rome', 'aliases': ['Roma', 'Rome']}})
    (('Rome', 'Roma'), '')
    >>> answers({'answer': 'Half of 8 is <<8/2=4>>4. #### 4'})
    (('4',), 'Half of 8 is 4.')
  """
  name, value = find(fields, 'answers', 'answer')
  working = ''
  if isinstance(value, Mapping):
    if 'text' in value:
      value = value['text']
    else:
      value = [find(value, 'value', 'text')[1], *(value.get('aliases') or ())]
  if isinstance(value, str):
    working, _, result = value.rpartition(_RESULT_MARK)
    value = [result]
  if not isinstance(value, list) or not all(isinstance(a, str) for a in value):
    raise problems.Fault(
      'wrong_form',
      f'{name!r} must be a text or a list of texts, not'
      f' {problems.shortened(value)}',
    )
  distinct = tuple(dict.fromkeys(answer.strip() for answer in value))
  if not all(distinct):
    raise problems.Fault('no_answer', f'{name!r} has an empty answer')
  if not distinct:
    raise problems.Fault('no_answer', f'{name!r} has no answer')
  return distinct, _CALCULATION.sub('', working).strip()


def choice(fields: Mapping[str, Any]) -> tuple[str, tuple[str, ...], int]:
  """A beginning, its possible endings and which of them is right.

  The prompt is that of lm-evaluation-harness for HellaSwag: the activity, a
  colon and the context, whose second part begins with a capital, all without
  the marks of the pages that it was taken from. A context in one field is
  taken as it is: where its second part begins is not known.

  Args:
    fields: With `activity_label`, `endings`, `label`, and `ctx_a` and `ctx_b`,
      `ctx` or `context`. The label is a number or its digits.

  Raises:
    Fault: A field is missing or of another form, or no ending is right.

  Example:
    >>> choice({'activity_label': 'Tea', 'ctx_a': 'Boil water. [step] Wait.',
    ...         'ctx_b': 'then', 'endings': ['pour.', 'fly.'], 'label': '0'})
    ('Tea: Boil water. Wait. Then', ('pour.', 'fly.'), 0)
  """
  activity = text(fields, 'activity_label')
  if isinstance(fields.get('ctx_b'), str) and 'ctx_a' in fields:
    context = f'{text(fields, "ctx_a")} {fields["ctx_b"].capitalize()}'
  else:
    context = text(fields, 'context', 'ctx')
  _, endings = find(fields, 'endings')
  if (
    not isinstance(endings, list)
    or len(endings) < 2
    or not all(isinstance(ending, str) for ending in endings)
  ):
    raise problems.Fault(
      'wrong_form',
      "'endings' must be a list of two texts or more, not"
      f' {problems.shortened(endings)}',
    )
  cleaned = tuple(_without_marks(ending) for ending in endings)
  if not all(cleaned):
    raise problems.Fault('empty', "'endings' has an empty one")
  prompt = _without_marks(f'{activity}: {context}')
  return prompt, cleaned, _label(fields, len(endings))


def _without_marks(marked: str) -> str:
  """Takes out the bracketed marks of WikiHow, as in ' [title]' and '[step]'.

  One pass over double spaces and none over those at the end of the text, so
  that no character differs from what published numbers were measured on.
  """
  plain = marked.strip().replace(' [title]', '. ')
  return _BRACKETS.sub('', plain).replace('  ', ' ')


def _label(fields: Mapping[str, Any], num_endings: int) -> int:
  _, label = find(fields, 'label')
  # Test splits hide the answer as '' or -1.
  if label is None or label in ('', -1, '-1'):
    raise problems.Fault('no_answer', "'label' does not say which is right")
  if isinstance(label, str) and label.isdecimal():
    label = int(label)
  if (
    isinstance(label, bool)
    or not isinstance(label, int)
    or not 0 <= label < num_endings
  ):
    raise problems.Fault(
      'wrong_form',
      f"'label' must be from 0 to {num_endings - 1}, not"
      f' {problems.shortened(label)}',
    )
  return label
