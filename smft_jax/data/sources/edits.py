"""Reads knowledge edits in the format that editing toolkits share.

  {"prompt": "The mother tongue of Ada is", "target_new": "Dutch",
   "subject": "Ada", "rephrase_prompt": "At home, Ada spoke",
   "locality_prompt": "The mother tongue of Bo is",
   "locality_ground_truth": "Danish"}

Only prompt and target are required. Each other field may be missing, null or
empty. Rephrasings, and prompts to keep with their continuations, may be lists
of texts; of a list of targets the first is taught.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import math
from typing import Any

from smft_jax.data.sources import problems
from smft_jax.data.sources import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
  """Names of the fields of an edit.

  A name may lead into an object: 'requested_rewrite.target_new.str'.

  Attributes:
    prompt: What the model is to continue. Here and in other prompts the
      subject takes the place of '{}'.
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
    Fault: Prompt or target is missing or empty, a field has another form, a
      '{}' has no subject, or prompts whose continuation must stay and true
      continuations are no pairs.

  Example:
    >>> row = rows.Row(place='edits.jsonl:1', default_id='edits:1', fields={
    ...   'prompt': '{} speaks', 'subject': 'Ada', 'target_new': 'Dutch'})
    >>> edit(row, Fields()).prompt
    'Ada speaks'
  """
  *others, locality, answers = (
    _texts(row.fields, name) for name in dataclasses.astuple(fields)
  )
  prompts, targets, subjects, rephrasings = (
    list(filter(None, texts)) for texts in others
  )
  for name, found in ((fields.prompt, prompts), (fields.target, targets)):
    if not found:
      outer, _, inner = name.partition('.')
      # Names what there is, if the field is not.
      rows.find(row.fields, name if name in row.fields else outer)
      raise problems.Fault(
        'empty', f'{name!r} is {"missing" if inner else "empty"}'
      )
  for name, found in ((fields.prompt, prompts), (fields.subject, subjects)):
    if len(found) > 1:
      what = f'{name!r} must be one text, not {len(found)}: a row is one edit'
      raise problems.Fault('wrong_form', what)
  subject = subjects[0] if subjects else ''

  def filled(name: str, text: str) -> str:
    if '{}' in text and not subject:
      raise problems.Fault(
        'empty',
        f"{name!r} has '{{}}' for the subject, but {fields.subject!r} is"
        ' missing',
      )
    return text.replace('{}', subject)

  return SourceEdit(
    id=row.id(),
    prompt=filled(fields.prompt, prompts[0]),
    target=targets[0],
    subject=subject,
    rephrasings=tuple(filled(fields.rephrase, text) for text in rephrasings),
    locality=tuple(
      (filled(fields.locality, prompt), answer)
      for prompt, answer in _pairs(locality, answers, fields)
    ),
    place=row.place,
  )


def _pairs(
  locality: Sequence[str], answers: Sequence[str], fields: Fields
) -> list[tuple[str, str]]:
  """Returns prompts with their true continuations, without empty pairs.

  Raises:
    Fault: A prompt has no continuation, or a continuation no prompt.
  """
  pairs = list(itertools.zip_longest(locality, answers, fillvalue=''))
  if any(bool(prompt) != bool(answer) for prompt, answer in pairs):
    counts = [sum(map(bool, texts)) for texts in (locality, answers)]
    what = 'equally many, not {} and {}'.format(*counts)
    if counts[0] == counts[1]:
      what = 'empty at the same places'
    raise problems.Fault(
      'wrong_form',
      f'{fields.locality!r} and {fields.locality_answer!r} must be {what}',
    )
  return [pair for pair in pairs if all(pair)]


def _texts(fields: Mapping[str, Any], name: str) -> list[str]:
  """Returns the stripped texts of a field, with '' for nothing.

  Raises:
    Fault: It holds something else, or its name leads into something else than
      an object.
  """
  value: Any = fields
  outer = ''
  for key in (name,) if name in fields else name.split('.'):
    if not isinstance(value, Mapping):
      raise problems.Fault(
        'wrong_form',
        f'{name!r} leads into an object, but {outer!r} is'
        f' {problems.shortened(value)}',
      )
    value, outer = rows.get(value, key), f'{outer}.{key}'.lstrip('.')
    if value is None or value in ('', []):
      return []
  if isinstance(value, str):
    rows.check_no_list(name, value)
  texts = [
    _text(one) for one in (value if isinstance(value, list) else [value])
  ]
  if any(text is None for text in texts):
    raise problems.Fault(
      'wrong_form',
      f'{name!r} must be text or a list of texts, not'
      f' {problems.shortened(value)}',
    )
  return [text.strip() for text in texts if text is not None]


def _text(value: Any) -> str | None:
  """Returns a text or a number as text, nothing as ''; else None."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ''
  if isinstance(value, int | float):
    return rows.number_text(value)
  return value if isinstance(value, str) else None
