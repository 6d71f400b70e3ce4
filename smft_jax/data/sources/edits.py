"""Reads knowledge edits in the format that editing toolkits share.

  {"prompt": "The mother tongue of Ada is", "target_new": "Dutch",
   "subject": "Ada", "rephrase_prompt": "At home, Ada spoke",
   "locality_prompt": "The mother tongue of Bo is",
   "locality_ground_truth": "Danish"}

Only prompt and target are required. Each other field may be missing, null or
empty, or a list of texts.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from smft_jax.data.sources import problems
from smft_jax.data.sources import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
  """Names of the fields of an edit.

  A name may lead into an object: 'requested_rewrite.target_new.str'.

  Attributes:
    prompt: What the model is to continue, with the subject for a '{}' in it.
    target: The new continuation.
    subject: What the edit is about.
    rephrase: Other prompts with the same continuation.
    locality: Prompts whose continuation must stay.
    locality_answer: The true continuations of these.
  """

  prompt: str = 'prompt'
  target: str = 'target_new'
  subject: str = 'subject'
  rephrase: str = 'rephrase_prompt'
  locality: str = 'locality_prompt'
  locality_answer: str = 'locality_ground_truth'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceEdit:
  """An edit as a file has it, its texts stripped.

  Attributes:
    id: Unique name within the source.
    prompt: What the model is to continue.
    target: The new continuation.
    subject: What it is about; '' if unknown.
    rephrasings: Other prompts with the same continuation.
    locality: Prompts whose continuation must stay, each with the true one.
    place: Its place, for messages.
  """

  id: str
  prompt: str
  target: str
  subject: str = ''
  rephrasings: tuple[str, ...] = ()
  locality: tuple[tuple[str, str], ...] = ()
  place: str = dataclasses.field(default='', compare=False)


def edit(row: rows.Row, fields: Fields) -> SourceEdit:
  """Reads an edit.

  Args:
    row: The row.
    fields: The names of its fields.

  Raises:
    Fault: Prompt or target is missing or empty, a field has another form, or
      there are not as many true continuations as prompts whose continuation
      must stay.

  Example:
    >>> row = rows.Row(place='edits.jsonl:1', default_id='edits:1', fields={
    ...   'prompt': '{} speaks', 'subject': 'Ada', 'target_new': 'Dutch'})
    >>> edit(row, Fields()).prompt
    'Ada speaks'
  """
  prompts, targets, subjects, rephrasings, locality, answers = (
    _texts(row.fields, name) for name in dataclasses.astuple(fields)
  )
  for name, found in ((fields.prompt, prompts), (fields.target, targets)):
    if not found:
      outer, _, inner = name.partition('.')
      # Names what there is, if the field is not.
      rows.find(row.fields, name if name in row.fields else outer)
      raise problems.Fault(
        'empty', f'{name!r} is {"missing" if inner else "empty"}'
      )
  subject = subjects[0] if subjects else ''
  if len(answers) != len(locality):
    raise problems.Fault(
      'wrong_form',
      f'{fields.locality!r} and {fields.locality_answer!r} must be equally'
      f' many, not {len(locality)} and {len(answers)}',
    )
  return SourceEdit(
    id=row.id(),
    prompt=prompts[0].replace('{}', subject),
    target=targets[0],
    subject=subject,
    rephrasings=tuple(text.replace('{}', subject) for text in rephrasings),
    locality=tuple(zip(locality, answers, strict=True)),
    place=row.place,
  )


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
  """Returns the stripped texts of a field, without empty ones.

  Raises:
    Fault: It holds something else.
  """
  value: Any = fields
  for key in (name,) if name in fields else name.split('.'):
    value = value.get(key) if isinstance(value, Mapping) else None
  values = value if isinstance(value, list) else [value]
  if any(isinstance(v, float) and v != v for v in values):  # NaN, from a table
    values = [v for v in values if v == v]
  numbers = (int, float)
  texts = [
    str(v) if isinstance(v, numbers) and not isinstance(v, bool) else v
    for v in values
    if v is not None
  ]
  if not all(isinstance(text, str) for text in texts):
    raise problems.Fault(
      'wrong_form',
      f'{name!r} must be text or a list of texts, not'
      f' {problems.shortened(value)}',
    )
  return tuple(filter(None, map(str.strip, texts)))
