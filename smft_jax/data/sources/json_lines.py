"""Reads files of JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
import io
import json
from typing import Any

from smft_jax.data.sources import files
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows

# Longer than any document; a longer line means a file without line breaks.
MAX_LINE_BYTES = 4 * 2**20


def read_lines(
  path: str, problems: problems_lib.Problems, name: str
) -> Iterator[rows.Row]:
  """Reads JSON objects, one a line, and skips blank lines.

  Holds one line at a time in memory.

  Args:
    path: A UTF-8 file, with or without a byte order mark.
    problems: Refuses or skips lines that `parse` cannot read.
    name: Begins the id of a row that has no `id`: with 'facts' the third line
      has the id 'facts:3'.

  Yields:
    The lines as rows.

  Raises:
    UserError: The file is missing.

  Example:
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = pathlib.Path(folder, 'facts.jsonl')
    ...   _ = file.write_text('{"text": "It rains."}')
    ...   refuse = problems_lib.Problems('refuse')
    ...   for row in read_lines(str(file), refuse, 'facts'):
    ...     print(row.id(), row.fields)
    facts:1 {'text': 'It rains.'}
  """
  for number, line in numbered(path):
    place = f'{path}:{number}'
    try:
      fields = parse(line)
    except problems_lib.Fault as bad:
      problems.report(bad, place)
      continue
    yield rows.Row(place=place, default_id=f'{name}:{number}', fields=fields)


def numbered(path: str) -> Iterator[tuple[int, bytes]]:
  """Yields the non-blank lines of a file, numbered from 1; cuts long ones.

  Raises:
    UserError: The file is missing.
  """
  with files.opened(path) as stream:
    for number, line in enumerate(_lines(stream), start=1):
      if line.strip():
        yield number, line


def parse(line: bytes) -> dict[str, Any]:
  """Parses a line that holds a JSON object.

  Raises:
    Fault: The line is longer than `MAX_LINE_BYTES`, not UTF-8, not JSON, or not
      an object.
  """
  if len(line) > MAX_LINE_BYTES and not line.endswith(b'\n'):
    raise problems_lib.Fault(
      'too_long',
      f'the line is longer than {MAX_LINE_BYTES // 2**20} MiB: split it into'
      ' several documents',
    )
  try:
    # Some editors put a byte order mark in front of a file.
    fields = json.loads(line.rstrip().decode('utf-8-sig'))
    if b'\\u' in line:  # '\ud800' alone is JSON, but no text
      json.dumps(fields, ensure_ascii=False).encode()
  except (ValueError, RecursionError) as error:
    raise fault(error) from error
  if not isinstance(fields, dict):
    raise not_an_object(fields)
  return fields


def not_an_object(value: Any) -> problems_lib.Fault:
  """Says that a line or a record is JSON of another form."""
  return problems_lib.Fault(
    'wrong_form',
    'a line is one JSON object, {"text": ...}, not'
    f' {problems_lib.shortened(value)}',
  )


def _lines(stream: io.BufferedReader) -> Iterator[bytes]:
  """Yields lines, those that are too long cut just past the limit.

  Reads bytes: a line with bad UTF-8 then has a number, and only a line feed
  ends a line.
  """
  while line := stream.readline(MAX_LINE_BYTES + 1):
    yield line
    while line and not line.endswith(b'\n'):
      line = stream.readline(MAX_LINE_BYTES)


def fault(error: Exception) -> problems_lib.Fault:
  """Says in one line why a line could not be parsed."""
  kind: problems_lib.Kind = 'not_json'
  if isinstance(error, UnicodeDecodeError):
    return problems_lib.not_utf8(error)
  if isinstance(error, UnicodeEncodeError):
    kind, what = 'bad_utf8', 'a text has half a character (a surrogate)'
  elif isinstance(error, json.JSONDecodeError):
    what = f'not JSON at character {error.pos + 1}: {error.msg}'
  elif isinstance(error, RecursionError):
    what = 'not JSON that can be read: nested too deep'
  else:  # a number of thousands of digits
    what = f'not JSON: {problems_lib.shortened(error)}'
  return problems_lib.Fault(kind, what)
