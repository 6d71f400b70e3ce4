"""Reads JSON lines and plain text from files."""

from __future__ import annotations

from collections.abc import Iterator
import io
import json
import pathlib
from typing import Any

from smft_jax import schema
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows
from smft_jax.store import paths

# Longer than any document; a longer line means a file without line breaks.
MAX_LINE_BYTES = 4 * 2**20

TEXT_SUFFIXES = ('.txt', '.md')
"""Endings of files of plain text."""


def read_lines(
  path: str, problems: problems_lib.Problems
) -> Iterator[rows.Row]:
  """Reads JSON objects, one a line, and skips blank lines.

  Holds one line at a time in memory.

  Args:
    path: A UTF-8 file, with or without a byte order mark.
    problems: Refuses or skips lines that `parse` cannot read.

  Yields:
    The lines as rows. Unless it has an `id`, the third line of 'facts.jsonl'
    has the id 'facts:3'.

  Raises:
    UserError: The file is missing.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = pathlib.Path(folder, 'facts.jsonl')
    ...   _ = file.write_text('{"text": "It rains."}')
    ...   for row in read_lines(str(file), problems_lib.Problems('refuse')):
    ...     print(row.id(), row.fields)
    facts:1 {'text': 'It rains.'}
  """
  stem = pathlib.Path(path).stem
  for number, line in numbered(path):
    place = f'{path}:{number}'
    try:
      fields = parse(line)
    except problems_lib.Fault as fault:
      problems.report(fault, place)
      continue
    yield rows.Row(place=place, default_id=f'{stem}:{number}', fields=fields)


def numbered(path: str) -> Iterator[tuple[int, bytes]]:
  """Yields the non-blank lines of a file, numbered from 1; cuts long ones.

  Raises:
    UserError: The file is missing.
  """
  with _existing(path).open('rb') as stream:
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
    raise _fault(error) from error
  if not isinstance(fields, dict):
    raise problems_lib.Fault(
      'wrong_form',
      'a line is one JSON object, {"text": ...}, not'
      f' {problems_lib.shortened(fields)}',
    )
  return fields


def read_texts(
  path: str, problems: problems_lib.Problems
) -> Iterator[rows.Row]:
  """Reads a file of plain text as one text, or a folder of such files.

  Args:
    path: A UTF-8 file that ends in .txt or .md, or a folder of such files, read
      in the order of their names.
    problems: Refuses or skips files that are empty or not UTF-8.

  Yields:
    A row for each file: `text` is its content, the id its name without ending.

  Raises:
    UserError: The file is missing, or the folder has none.
  """
  folder = paths.expand(path)
  if folder.is_dir():
    files = sorted(
      file for file in folder.glob('*') if file.suffix in TEXT_SUFFIXES
    )
    if not files:
      raise schema.UserError(
        f'folder {path} holds no .txt or .md file; if the TFDS data set is'
        f' meant, name its split: {path}:SPLIT'
      )
  else:
    files = [_existing(path)]
  for file in files:
    data = file.read_bytes()
    try:
      content = data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
      line = data.count(b'\n', 0, error.start) + 1
      fault = problems_lib.Fault('bad_utf8', problems_lib.shortened(error))
      problems.report(fault, f'{file}:{line}')
      continue
    if not content.strip():
      fault = problems_lib.Fault('empty', 'the file is empty')
      problems.report(fault, f'{file}:1')
      continue
    yield rows.Row(
      place=str(file), default_id=file.stem, fields={'text': content}
    )


def _existing(path: str) -> pathlib.Path:
  file = paths.expand(path)
  if not file.is_file():
    names = problems_lib.entries(file.parent)
    raise schema.UserError(
      f'there is no file {path}; {problems_lib.or_else(file.name, names)}'
    )
  return file


def _lines(stream: io.BufferedReader) -> Iterator[bytes]:
  """Yields lines, those that are too long cut just past the limit.

  Reads bytes: a line with bad UTF-8 then has a number, and only a line feed
  ends a line.
  """
  while line := stream.readline(MAX_LINE_BYTES + 1):
    yield line
    while line and not line.endswith(b'\n'):
      line = stream.readline(MAX_LINE_BYTES)


def _fault(error: Exception) -> problems_lib.Fault:
  """Says in one line why a line could not be parsed."""
  kind: problems_lib.Kind = 'not_json'
  if isinstance(error, UnicodeDecodeError):
    kind, what = 'bad_utf8', f'not UTF-8 at byte {error.start + 1}'
  elif isinstance(error, UnicodeEncodeError):
    kind, what = 'bad_utf8', 'a text has half a character (a surrogate)'
  elif isinstance(error, json.JSONDecodeError):
    what = f'not JSON at character {error.pos + 1}: {error.msg}'
  elif isinstance(error, RecursionError):
    what = 'not JSON that can be read: nested too deep'
  else:  # a number of thousands of digits
    what = f'not JSON: {problems_lib.shortened(error)}'
  return problems_lib.Fault(kind, what)
