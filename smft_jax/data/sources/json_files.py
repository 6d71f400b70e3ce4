"""Reads files of JSON, whatever way the objects are laid out in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import json
from typing import Any

from smft_jax.data.sources import files
from smft_jax.data.sources import json_lines
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows

# A byte order mark begins each of several files that were joined.
_SPACE = ' \t\r\n\ufeff'


def read(
  path: str, problems: problems_lib.Problems, name: str
) -> Iterator[rows.Row]:
  """Reads JSON objects: one a line, in arrays, or one after another.

  The first line tells. Only a file of lines is read line by line; of another
  the whole text is in memory. An object with a list `data` holds rows in it:
  records, or articles as in the files of SQuAD, versions 1 and 2, of which each
  question is a row.

  Args:
    path: A UTF-8 file, perhaps compressed by gzip, perhaps with a byte order
      mark.
    problems: Refuses or skips objects that cannot be read.
    name: Begins the id of a row without one: 'facts' makes 'facts:3' of the
      third line, or of the third object of a file of another layout.

  Yields:
    The objects as rows.

  Raises:
    UserError: The file is missing.
  """
  first = next(json_lines.numbered(path), (1, b'{}\n'))[1]
  try:
    is_lines = not _holds_records(json_lines.parse(first))
  except problems_lib.Fault:
    is_lines = False
  found = None if is_lines else _whole(path)
  if found is None:
    yield from json_lines.read_lines(path, problems, name)
    return
  number = 0
  for line, value in found:
    place = f'{path}:{line}'
    if isinstance(value, problems_lib.Fault):
      problems.report(value, place)
      continue
    for fields in _records(value):
      number += 1
      if not isinstance(fields, dict):
        fault = json_lines.not_an_object(fields)
        problems.report(fault, f'{place}, record {number}')
        continue
      yield rows.Row(
        place=place if fields is value else f'{place}, record {number}',
        default_id=f'{name}:{number}',
        fields=fields,
      )


def _whole(path: str) -> Iterator[tuple[int, Any]] | None:
  """Parses a file that is not of lines.

  Returns:
    The line on which each value begins, and the value, or a Fault after which
    nothing follows. None if even the first cannot be parsed, as of lines with
    a fault in the first.
  """
  with files.opened(path) as stream:
    try:
      text = stream.read().decode('utf-8-sig')
    except UnicodeDecodeError:
      return None
  first = next(_values(text), None)
  if first is not None and isinstance(first[1], problems_lib.Fault):
    return None
  return _values(text)


def _values(text: str) -> Iterator[tuple[int, Any]]:
  """Parses values one after another; of an array, those in it."""
  decoder = json.JSONDecoder()
  place = _after_space(text, 0)
  line, counted, in_array = 1, 0, False
  while in_array or place < len(text):
    line += text.count('\n', counted, place)
    counted = place
    if text[place : place + 1] == (']' if in_array else '['):
      in_array = not in_array
      place = _after_space(text, place + 1)
      continue
    try:
      if place == len(text):
        raise json.JSONDecodeError('the file ends in an array', text, place)
      value, place = decoder.raw_decode(text, place)
      json.dumps(value, ensure_ascii=False).encode()
      yield line, value
      place = _after_space(text, place)
      if in_array and text[place : place + 1] not in (',', ']', ''):
        raise json.JSONDecodeError('Expecting , or ]', text, place)
    except (ValueError, RecursionError) as error:
      yield line, json_lines.fault(error)
      return
    if in_array and text[place : place + 1] == ',':
      place = _after_space(text, place + 1)


def _after_space(text: str, place: int) -> int:
  while place < len(text) and text[place] in _SPACE:
    place += 1
  return place


def _holds_records(value: Any) -> bool:
  """Whether an object is not a record itself but has a list of them."""
  if not isinstance(value, Mapping) or not isinstance(value.get('data'), list):
    return False
  return not value.keys() & {'text', 'context', 'question', 'problem'}


def _records(value: Any) -> Iterator[Any]:
  """Yields the records in a value of a file."""
  if not _holds_records(value):
    yield value
    return
  for record in value['data']:
    paragraphs = record.get('paragraphs') if isinstance(record, dict) else None
    if not isinstance(paragraphs, list):
      yield record
      continue
    for paragraph in paragraphs:
      if not isinstance(paragraph, dict):
        yield paragraph
        continue
      context = {
        'title': record.get('title'),
        'context': paragraph.get('context'),
      }
      # A paragraph without a question is still a document.
      asked = paragraph.get('qas') or {'is_impossible': True}
      for question in asked if isinstance(asked, list) else [asked]:
        yield context | question if isinstance(question, dict) else question
