"""Finds the data set or files that a source names, and reads their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import pathlib
from typing import TypeVar

from smft_jax import schema
from smft_jax.data.sources import json_lines
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows
from smft_jax.data.sources import tfds_files

_Made = TypeVar('_Made')


def read(
  name: str,
  data_dir: str,
  problems: problems_lib.Problems,
  make: Callable[[rows.Row], _Made | None],
  what: str,
) -> list[_Made]:
  """Reads a source row by row.

  Args:
    name: The source, see `data.sources`.
    data_dir: The TFDS data directory; files need none.
    problems: Refuses or skips bad rows.
    make: Makes an item of a row; raises a `Fault` for a bad row, and returns
      None for a row to skip silently.
    what: Name of an item, for the message if there is none.

  Returns:
    The items, in the order of the source.

  Raises:
    UserError: The source is missing, broken or empty; or a row is bad, or has
      the id of another row, and `problems` refuses it.
  """
  found = []
  skipped_before = problems.total()
  places: dict[str, str] = {}
  for row in _rows(name, data_dir, problems):
    try:
      item = make(row)
      if item is not None and row.id() in places:
        raise problems_lib.Fault(
          'duplicate_id', f'id {row.id()!r} repeats {places[row.id()]}'
        )
    except problems_lib.Fault as fault:
      problems.report(fault, row.place)
      continue
    if item is not None:
      places[row.id()] = row.place
      found.append(item)
  skipped = problems.total() - skipped_before
  if skipped:
    problems.log_counts()
  if not found:
    raise schema.UserError(
      f'{name} holds no {what} that can be read; bad rows: {skipped}'
    )
  return found


def _rows(
  name: str, data_dir: str, problems: problems_lib.Problems
) -> Iterator[rows.Row]:
  """Reads the rows of a source of any kind."""
  path = pathlib.Path(name).expanduser()
  if path.suffix in ('.jsonl', '.json'):
    return json_lines.read_lines(name, problems)
  if path.suffix == '.txt' or ('/' in name and path.is_dir()):
    return json_lines.read_texts(name, problems)
  if path.is_file():
    raise schema.UserError(
      f'{name} is a file of an unknown kind: JSON lines end in .jsonl or .json,'
      ' plain text in .txt'
    )
  data_set, _, split = name.partition(':')
  return tfds_files.read_examples(data_set, split, data_dir, problems)
