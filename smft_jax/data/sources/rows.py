"""Reads a row of a data set or file by its fields.

Data sets name the same thing differently, such as `question` and `problem`; the
functions here read them alike. Their errors are `problems.Fault`s.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
import re
from typing import Any

from smft_jax.data.sources import problems

# GSM8K separates solution and result by the one, and marks computations as in
# the other.
_RESULT_MARK = '####'
_CALCULATION = re.compile(r'<<.*?>>')
_BRACKETS = re.compile(r'\[.*?\]')
# What a table makes of a list of texts, or of SQuAD's answers.
_WRITTEN_LIST = re.compile(
  r"""\[\s*['"].*\]|\{\s*['"]text['"]\s*:.*\}""", re.DOTALL
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """An example of a data set, or a line of a file.

  Attributes:
    place: Its place, for messages.
    default_id: Its id if it has no field `id`.
    fields: Its values, by name.
  """

  place: str
  default_id: str
  fields: Mapping[str, Any]

  def id(self) -> str:
    """Returns the field `id` as text, or else the default.

    Raises:
      Fault: The field is neither text nor a whole number.
    """
    value = get(self.fields, 'id')
    if value is None:
      return self.default_id
    if isinstance(value, int) and not isinstance(value, bool):
      return str(value)
    if not isinstance(value, str) or not value.strip():
      raise _wrong('id', 'text or a whole number', value)
    return value


def get(fields: Mapping[str, Any], name: str) -> Any:
  """Returns a field's value; None if there is no such field.

  A field that is null or NaN does not exist: exports write these for those that
  a row lacks.
  """
  value = fields.get(name)
  return None if isinstance(value, float) and math.isnan(value) else value


def find(fields: Mapping[str, Any], *names: str) -> tuple[str, Any]:
  """Returns name and value of the first of these fields that exists, as `get`.

  Raises:
    Fault: None exists; the message lists those that do.
  """
  for name in names:
    value = get(fields, name)
    if value is not None:
      return name, value
  wanted = ' or '.join(map(repr, names))
  # All of them: the right field is rarely a similar spelling.
  named = (name for name in fields if get(fields, name) is not None)
  existing = ', '.join(named) or 'nothing'
  raise problems.Fault(
    'wrong_form', f'{wanted} is missing; there is {existing}'
  )


def text(fields: Mapping[str, Any], *names: str) -> str:
  """Returns the text in the first of these fields that exists, unchanged.

  Raises:
    Fault: None exists, or its value is not text, or blank.
  """
  name, value = find(fields, *names)
  if not isinstance(value, str):
    raise _wrong(name, 'text', value)
  if not value.strip():
    raise problems.Fault('empty', f'{name!r} is empty')
  return value


def title(fields: Mapping[str, Any]) -> str:
  """Returns the field `title`, or ''.

  Raises:
    Fault: It is not text.
  """
  value = get(fields, 'title')
  if not isinstance(value, str | None):
    raise _wrong('title', 'text', value)
  return value or ''


def answers(fields: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
  """Returns the accepted answers, and the worked solution if there is one.

  Args:
    fields: A row with `answers` or `answer`: a text or a number, an object
      `{'text': ...}` or `{'value': ..., 'aliases': [...]}`, or a list of any of
      these. A text with a result after '####' is a solution of GSM8K; its
      answer is the result.

  Returns:
    The distinct answers in their order, without empty ones; and the solution
    without its result and the calculator's marks, or ''.

  Raises:
    Fault: There is no answer, or it has another form.

  Example:
    >>> answers({'answer': {'value': 'Rome', 'aliases': ['Roma', 'Rome']}})
    (('Rome', 'Roma'), '')
    >>> answers({'answer': 'Half of 8 is <<8/2=4>>4. #### 4'})
    (('4',), 'Half of 8 is 4.')
  """
  name, value = find(fields, 'answers', 'answer')
  working = ''
  if isinstance(value, str):
    check_no_list(name, value)
    working, _, value = value.rpartition(_RESULT_MARK)
  found = _flat_answers(value)
  if found is None:
    raise _wrong(name, 'a text or a list of texts', value)
  distinct = tuple(filter(None, dict.fromkeys(map(str.strip, found))))
  if not distinct:
    raise problems.Fault('no_answer', f'{name!r} has no answer')
  return distinct, _CALCULATION.sub('', working).strip()


def check_no_list(name: str, value: str) -> None:
  """Refuses a list that was written as text, as tables are made to hold one.

  Raises:
    Fault: The text is such a list.

  Example:
    >>> check_no_list('answers', 'Lisbon [capital]')
    >>> try:
    ...   check_no_list('answers', "['Lisbon', 'Lisboa']")
    ... except problems.Fault as fault:
    ...   print(str(fault)[:52])
    'answers' is a list written as text, "['Lisbon', 'Li
  """
  if _WRITTEN_LIST.fullmatch(value.strip()):
    raise problems.Fault(
      'wrong_form',
      f'{name!r} is a list written as text, {problems.shortened(value)}: give'
      ' JSON lines or Parquet, which hold lists; if this is the text, put it'
      ' into a list',
    )


def number_text(value: float) -> str | None:
  """Returns a number as text; None for one that is not finite, or a boolean.

  Example:
    >>> number_text(1987.0), number_text(2.5), number_text(True)
    ('1987', '2.5', None)
  """
  if isinstance(value, bool):
    return None
  if isinstance(value, float):
    if not math.isfinite(value):
      return None
    # Exports write whole numbers as floats where some are missing.
    value = int(value) if value.is_integer() else value
  return str(value)


def _flat_answers(value: Any) -> list[str] | None:
  """Returns the texts in one of the forms of `answers`; None for another."""
  if isinstance(value, str):
    return [value]
  if isinstance(value, float) and math.isnan(value):
    return []
  if isinstance(value, int | float):
    number = number_text(value)
    return None if number is None else [number]
  if isinstance(value, Mapping):
    value = [find(value, 'value', 'text')[1], *(get(value, 'aliases') or ())]
  if not isinstance(value, list):
    return None
  found = []
  for one in value:
    texts = _flat_answers(one)
    if texts is None:
      return None
    found += texts
  return found


def choice(fields: Mapping[str, Any]) -> tuple[str, tuple[str, ...], int]:
  """Returns the prompt of a choice, its endings, and the right one's index.

  The prompt is that of lm-evaluation-harness for HellaSwag: the activity, a
  colon and the context, its second part capitalised, without WikiHow's marks. A
  context in one field is not capitalised: the second part's start is unknown.

  Args:
    fields: A row with `activity_label`, `endings`, `label` (a number or its
      digits), and `ctx_a` and `ctx_b`, `ctx` or `context`.

  Raises:
    Fault: A field is missing or has another form, or no ending is right.

  Example:
    >>> choice({'activity_label': 'Tea', 'ctx_a': 'Boil water. [step] Wait.',
    ...         'ctx_b': 'then', 'endings': ['pour.', 'fly.'], 'label': '0'})
    ('Tea: Boil water. Wait. Then', ('pour.', 'fly.'), 0)
  """
  activity = text(fields, 'activity_label')
  if isinstance(fields.get('ctx_b'), str) and get(fields, 'ctx_a') is not None:
    context = f'{text(fields, "ctx_a")} {fields["ctx_b"].capitalize()}'
  else:
    context = text(fields, 'context', 'ctx')
  _, endings = find(fields, 'endings')
  if not _are_texts(endings) or len(endings) < 2:
    raise _wrong('endings', 'a list of two texts or more', endings)
  cleaned = tuple(_without_marks(ending) for ending in endings)
  if not all(cleaned):
    raise problems.Fault('empty', "'endings' has an empty one")
  prompt = _without_marks(f'{activity}: {context}')
  return prompt, cleaned, _label(fields, len(endings))


def _without_marks(marked: str) -> str:
  """Removes the bracketed marks of WikiHow, such as ' [title]' and '[step]'.

  Replaces double spaces once and keeps trailing ones, so that every character
  is as in published evaluations.
  """
  plain = marked.strip().replace(' [title]', '. ')
  return _BRACKETS.sub('', plain).replace('  ', ' ')


def _label(fields: Mapping[str, Any], num_endings: int) -> int:
  _, label = find(fields, 'label')
  # Test splits hide the answer as '' or -1.
  if label is None or label in ('', -1, '-1'):
    raise problems.Fault('no_answer', "'label' names no right ending")
  if isinstance(label, str) and label.isdecimal():
    label = int(label)
  is_int = isinstance(label, int) and not isinstance(label, bool)
  if not is_int or not 0 <= label < num_endings:
    raise _wrong('label', f'from 0 to {num_endings - 1}', label)
  return label


def _are_texts(value: Any) -> bool:
  return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _wrong(name: str, expected: str, value: Any) -> problems.Fault:
  return problems.Fault(
    'wrong_form',
    f'{name!r} must be {expected}, not {problems.shortened(value)}',
  )
