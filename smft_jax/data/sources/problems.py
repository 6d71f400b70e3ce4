"""Bad input: what is wrong, where, and whether to stop at it.

What cannot be read at all (no such file, a data set cut short) is always a
`schema.UserError`. One bad row among good ones is a `Fault`, which `Problems`
refuses or skips.
"""

from __future__ import annotations

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
  """What is wrong with one row, told by whoever looks at the row alone.

  Args:
    kind: Under which name it is counted.
    what: One line that says what is wrong, without the row's place.
  """

  def __init__(self, kind: Kind, what: str):
    super().__init__(what)
    self.kind: Kind = kind
    self.what = what


class Problems:
  """Refuses bad rows, or skips and counts them.

  Args:
    policy: 'refuse' stops at the first one, 'skip' leaves them out.

  Attributes:
    counts: How many were skipped of each kind that came up, by kind.

  Raises:
    UserError: There is no such policy.

  Example:
    >>> problems = Problems('skip')
    >>> problems.report('empty', 'facts.jsonl:3', 'the text is empty')
    >>> problems.counts
    {'empty': 1}
    >>> try:
    ...   Problems('refuse').report('empty', 'facts.jsonl:3', 'no text')
    ... except schema.UserError as error:
    ...   print(error)
    facts.jsonl:3: no text
  """

  def __init__(self, policy: Policy):
    self._policy = schema.one_of('policy', policy, ('refuse', 'skip'))
    self.counts: dict[str, int] = {}

  def report(self, kind: Kind, place: str, what: str) -> None:
    """Refuses or counts one bad row.

    The first ten are logged in full, those after them only counted.

    Args:
      kind: What kind of problem it is.
      place: File and line, or data set, split and example.
      what: What is wrong, in one line.

    Raises:
      UserError: The policy is 'refuse'.
    """
    if self._policy == 'refuse':
      raise schema.UserError(f'{place}: {what}')
    total = self.total()
    self.counts[kind] = self.counts.get(kind, 0) + 1
    if total < _MOST_LOGGED:
      logging.warning('skipped %s: %s', place, what)
    elif total == _MOST_LOGGED:
      logging.warning('more is skipped; from here on it is only counted')

  def total(self) -> int:
    """How many were skipped, of all kinds."""
    return sum(self.counts.values())

  def log_counts(self) -> None:
    """Logs how many were skipped of each kind."""
    counts = (f'{self.counts[kind]} {kind}' for kind in sorted(self.counts))
    logging.warning('skipped so far: %s', ', '.join(counts))


def or_else(name: str, choices: Iterable[str]) -> str:
  """What there is instead: the nearest name, or else all of them.

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
  """The names in a folder, sorted; none where there is no folder."""
  if folder.is_dir():
    yield from sorted(entry.name for entry in folder.iterdir())


def shortened(value: object) -> str:
  """An error's message, or a value as code writes it, as one short line.

  Example:
    >>> shortened(['a', 'b']), len(shortened('x' * 1000))
    ("['a', 'b']", 160)
  """
  line = repr(value)
  if isinstance(value, BaseException):
    line = schema.one_line(value)
  return line if len(line) <= 160 else f'{line[:157]}...'
