"""Reports bad input: what is wrong, where, and whether to stop.

A source that cannot be read at all (a missing file, a truncated data set) is
always a `schema.UserError`. One bad row among good ones is a `Fault`, which
`Problems` refuses or skips.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
import pathlib
from typing import Literal

from absl import logging

from smft_jax import schema

Kind = Literal[
  'bad_utf8',
  'duplicate_id',
  'empty',
  'no_answer',
  'not_json',
  'too_long',
  'wrong_form',
]
Policy = Literal['refuse', 'skip']

_MOST_LOGGED = 10


class Fault(Exception):
  """An error in one row.

  Args:
    kind: The kind of error, under which it is counted.
    what: One line that says what is wrong, without the row's place.
  """

  def __init__(self, kind: Kind, what: str):
    super().__init__(what)
    self.kind: Kind = kind


def not_utf8(error: UnicodeDecodeError) -> Fault:
  """Says where in a line bytes are not UTF-8, and if they seem to be UTF-16.

  Example:
    >>> try:
    ...   'fog'.encode('utf-16').decode()
    ... except UnicodeDecodeError as error:
    ...   print(not_utf8(error))
    not UTF-8 at byte 1, but UTF-16 as it seems: save it as UTF-8
  """
  line = error.object.rfind(b'\n', 0, error.start) + 1
  what = f'not UTF-8 at byte {error.start - line + 1}'
  if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    what += ', but UTF-16 as it seems: save it as UTF-8'
  return Fault('bad_utf8', what)


class Problems:
  """Refuses bad rows, or skips and counts them.

  Args:
    policy: 'refuse' stops at the first one, 'skip' leaves them out.

  Attributes:
    counts: Number of skipped rows of each kind that occurred.

  Raises:
    UserError: There is no such policy.

  Example:
    >>> problems = Problems('skip')
    >>> fault = Fault('empty', 'the text is empty')
    >>> problems.report(fault, 'facts.jsonl:3')
    >>> problems.counts
    {'empty': 1}
    >>> try:
    ...   Problems('refuse').report(fault, 'facts.jsonl:3')
    ... except schema.UserError as error:
    ...   print(error)
    facts.jsonl:3: the text is empty
  """

  def __init__(self, policy: Policy):
    self._policy = schema.one_of('policy', policy, ('refuse', 'skip'))
    self.counts: dict[str, int] = {}

  def report(self, fault: Fault, place: str) -> None:
    """Refuses or counts one bad row; logs the first ten.

    Args:
      fault: The error.
      place: File and line, or data set, split and example.

    Raises:
      UserError: The policy is 'refuse'.
    """
    if self._policy == 'refuse':
      raise schema.UserError(f'{place}: {fault}')
    total = self.total()
    self.counts[fault.kind] = self.counts.get(fault.kind, 0) + 1
    if total < _MOST_LOGGED:
      logging.warning('skipped %s: %s', place, fault)
    elif total == _MOST_LOGGED:
      logging.warning('further bad rows are skipped and only counted')

  def total(self) -> int:
    """Returns the number of skipped rows."""
    return sum(self.counts.values())

  def record(self) -> dict[str, int]:
    """Returns the counts under names for a record, such as 'skipped_empty'."""
    return {f'skipped_{kind}': n for kind, n in self.counts.items()}

  def log_counts(self) -> None:
    """Logs the number of skipped rows of each kind."""
    counts = (f'{self.counts[kind]} {kind}' for kind in sorted(self.counts))
    logging.warning('skipped so far: %s', ', '.join(counts))


def or_else(name: str, choices: Iterable[str]) -> str:
  """Suggests the nearest name, or else lists all of them.

  Example:
    >>> or_else('tset', ['train', 'test']), or_else('zzz', ['train', 'test'])
    ("did you mean 'test'?", 'there is train, test')
  """
  choices = list(choices)
  close = schema.nearest(name, choices)
  if close:
    return f'did you mean {close!r}?'
  return f'there is {", ".join(choices) or "nothing"}'


def entries(folder: pathlib.Path) -> Iterator[str]:
  """Yields the names in a folder, sorted; none if it does not exist."""
  if folder.is_dir():
    yield from sorted(entry.name for entry in folder.iterdir())


def shortened(value: object) -> str:
  """Returns an error's message, or a value's repr, as one short line.

  Example:
    >>> shortened(['a', 'b']), len(shortened('x' * 1000))
    ("['a', 'b']", 160)
  """
  line = repr(value)
  if isinstance(value, BaseException):
    line = schema.one_line(value)
  return line if len(line) <= 160 else f'{line[:157]}...'
