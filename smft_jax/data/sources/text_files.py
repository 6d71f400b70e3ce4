"""Reads files of plain text, each as one text."""

from __future__ import annotations

from collections.abc import Iterator

from smft_jax.data.sources import files
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows


def read(
  path: str, problems: problems_lib.Problems, name: str
) -> Iterator[rows.Row]:
  """Reads a file of plain text as one text.

  Args:
    path: A UTF-8 file, perhaps compressed by gzip.
    problems: Refuses or skips a file that is empty or not UTF-8.
    name: The id of the text.

  Yields:
    A row, whose `text` is the content.

  Raises:
    UserError: The file is missing.
  """
  with files.opened(path) as stream:
    data = stream.read()
  try:
    content = data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    problems.report(problems_lib.not_utf8(error), f'{path}:{line}')
    return
  if not content.strip():
    problems.report(
      problems_lib.Fault('empty', 'the file is empty'), f'{path}:1'
    )
    return
  yield rows.Row(place=path, default_id=name, fields={'text': content})
