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

# No document of text is longer; a file without line breaks is.
MAX_LINE_BYTES = 4 * 2**20


def read_lines(
  path: str, problems: problems_lib.Problems
) -> Iterator[rows.Row]:
  """Reads JSON objects, one a line; blank lines are left out.

  No more of a file than one line is held at a time.

  Args:
    path: A UTF-8 file. A byte order mark in front of it does no harm.
    problems: What to do with a line that is longer than `MAX_LINE_BYTES`, not
      UTF-8, not JSON, or not an object.

  Yields:
    The lines as rows; the third line of 'facts.jsonl' has the id 'facts:3'
    unless it says another.

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
      problems.report(fault.kind, place, fault.what)
      continue
    yield rows.Row(place=place, default_id=f'{stem}:{number}', fields=fields)


def numbered(path: str) -> Iterator[tuple[int, bytes]]:
  """The lines of a file that are not blank, counted from 1; long ones cut.

  Raises:
    UserError: The file is missing.
  """
  with _existing(path).open('rb') as stream:
    for number, line in enumerate(_lines(stream), start=1):
      if line.strip():
        yield number, line


def read_texts(
  path: str, problems: problems_lib.Problems
) -> Iterator[rows.Row]:
  """Reads a file of plain text as one text, or a folder of them.

  Args:
    path: A UTF-8 file that ends in .txt, or a folder with such files, which
      are read in the order of their names.
    problems: What to do with a file that is empty or not UTF-8.

  Yields:
    Rows whose `text` is a whole file and whose id is its name without '.txt'.

  Raises:
    UserError: There is no such file, or none in the folder.
  """
  folder = pathlib.Path(path).expanduser()
  if folder.is_dir():
    files = sorted(folder.glob('*.txt'))
    if not files:
      raise schema.UserError(
        f'folder {path} holds no .txt file; if the TFDS data set is meant, name'
        f' its split: {path}:SPLIT'
      )
  else:
    files = [_existing(path)]
  for file in files:
    data = file.read_bytes()
    try:
      content = data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
      line = data.count(b'\n', 0, error.start) + 1
      what = problems_lib.shortened(error)
      problems.report('bad_utf8', f'{file}:{line}', what)
      continue
    if not content.strip():
      problems.report('empty', f'{file}:1', 'the file is empty')
      continue
    yield rows.Row(
      place=str(file), default_id=file.stem, fields={'text': content}
    )


def _existing(path: str) -> pathlib.Path:
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    there = problems_lib.entries(file.parent)
    raise schema.UserError(
      f'there is no file {path}; {problems_lib.or_else(file.name, there)}'
    )
  return file


def _lines(stream: io.BufferedReader) -> Iterator[bytes]:
  """The lines, those that are too long cut where that can be told.

  Bytes, so that a line with bad UTF-8 can be told by its number, and so that
  only a line feed ends a line.
  """
  while line := stream.readline(MAX_LINE_BYTES + 1):
    yield line
    while line and not line.endswith(b'\n'):
      line = stream.readline(MAX_LINE_BYTES)


def parse(line: bytes) -> dict[str, Any]:
  """The JSON object of a line.

  Raises:
    Fault: The line is longer than `MAX_LINE_BYTES`, not UTF-8, not JSON, or not
      an object.

  Example:
    >>> parse(b'{"text": "It rains."}')
    {'text': 'It rains.'}
  """
  if len(line) > MAX_LINE_BYTES and not line.endswith(b'\n'):
    raise problems_lib.Fault(
      'too_long',
      f'the line is longer than {MAX_LINE_BYTES // 2**20} MiB: split it into'
      ' several documents',
    )
  try:
    # A byte order mark, as some editors put in front of a file, is no error.
    fields = json.loads(line.rstrip().decode('utf-8-sig'))
    if b'\\u' in line:  # '\ud800' alone is JSON, but no text
      json.dumps(fields, ensure_ascii=False).encode()
  except UnicodeDecodeError as error:
    raise problems_lib.Fault(
      'bad_utf8', f'not UTF-8 at byte {error.start + 1}'
    ) from error
  except UnicodeEncodeError as error:
    raise problems_lib.Fault(
      'bad_utf8', 'a text has half a character (a surrogate)'
    ) from error
  except json.JSONDecodeError as error:
    raise problems_lib.Fault(
      'not_json', f'not JSON at character {error.pos + 1}: {error.msg}'
    ) from error
  except ValueError as error:  # a number of thousands of digits
    raise problems_lib.Fault(
      'not_json', f'not JSON: {problems_lib.shortened(error)}'
    ) from error
  except RecursionError as error:
    raise problems_lib.Fault(
      'not_json', 'not JSON that can be read: nested too deep'
    ) from error
  if not isinstance(fields, dict):
    raise problems_lib.Fault(
      'wrong_form',
      'a line is one JSON object, {"text": ...}, not'
      f' {problems_lib.shortened(fields)}',
    )
  return fields
