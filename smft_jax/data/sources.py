"""Reads data sets from files, without TensorFlow and without a network.

What cannot be read is told in one line, with the path and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import json
import pathlib
import re
from typing import Any

from smft_jax import schema

_VERSION = re.compile(r'\d+\.\d+\.\d+')


def read_tfds(
  name: str, split: str, data_dir: str, fields: Sequence[str]
) -> list[dict[str, Any]]:
  """Reads a split of a TFDS data set in array_record format.

  Only files below `data_dir` are opened: `tfds.data_source` would try to
  download what it does not find there.

  Args:
    name: Name of the data set, with its configuration if it has several, such
      as 'squad/v1.1'. The newest version is read.
    split: Name of the split.
    data_dir: The TFDS data directory, which holds a folder for each data set.
    fields: Features that each example must have.

  Returns:
    The examples in the order of the files, with text decoded from UTF-8.

  Raises:
    UserError: The directory, data set, split or a field is missing, the files
      are in another format or broken, or there is no example.
  """
  folder = _version_folder(name, data_dir)
  # Half a second and 50 MB that only runs on real documents should pay for.
  import tensorflow_datasets as tfds

  # Broken files surface as errors of protobuf, array_record and TFDS, which
  # share no type below Exception.
  try:
    builder = tfds.builder_from_directory(folder)
    splits = list(builder.info.splits)
  except Exception as error:
    raise _unreadable(folder / 'dataset_info.json', error) from error
  if split not in splits:
    raise schema.UserError(
      f'data set {name!r} in {data_dir} has no split {split!r};'
      f' {_or_else(split, splits)}'
    )
  if not builder.info.splits[split].num_examples:
    raise schema.UserError(
      f'split {split!r} of {folder} holds no example: copy the data set again'
    )
  try:
    source = builder.as_data_source(split)
    examples = _decoded(source.__getitems__(range(len(source))))
  except NotImplementedError as error:
    raise schema.UserError(
      f'{folder} is not in array_record format; prepare it with:'
      f' {_build_command(name, data_dir)}'
    ) from error
  except Exception as error:
    raise _unreadable(f'split {split!r} of {folder}', error) from error
  for field in fields:
    if field not in examples[0]:
      raise schema.UserError(
        f'data set {name!r} in {data_dir} has no field {field!r};'
        f' {_or_else(field, examples[0])}'
      )
  return examples


def read_jsonl(path: str) -> list[dict[str, Any]]:
  """Reads documents, one JSON object a line, blank lines left out.

  Args:
    path: A UTF-8 file whose lines look like `{"id": "a1", "title": "Lisbon",
      "text": "Lisbon is ...", "questions": [{"question": "Where ...?",
      "answers": ["in Portugal", "Portugal"]}]}`. Only `id` and `text` are
      needed, further keys are left alone.

  Returns:
    The lines as dictionaries with all four keys, in the order of the file; the
    title is '' and the questions are [] where a line does not say.

  Raises:
    UserError: The file is missing or holds no document, or a line is not as
      described or repeats an id; the message names file and line.
  """
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise schema.UserError(
      f'there is no file {path}; {_or_else(file.name, _entries(file.parent))}'
    )
  first_line: dict[str, int] = {}
  documents = []
  # Bytes, so that a line with bad UTF-8 can be told by its number.
  for number, line in enumerate(file.read_bytes().splitlines(), start=1):
    if not line.strip():
      continue
    try:
      document = _document(line)
      if document['id'] in first_line:
        raise ValueError(
          f'id {document["id"]!r} is that of line {first_line[document["id"]]}'
        )
    except ValueError as error:
      raise schema.UserError(f'{path}:{number}: {_shortened(error)}') from error
    first_line[document['id']] = number
    documents.append(document)
  if not documents:
    raise schema.UserError(
      f'{path} holds no document; each line is {{"id": ..., "text": ...}}'
    )
  return documents


def _document(line: bytes) -> dict[str, Any]:
  """Checks one line of a JSONL file."""
  # A byte order mark, as some editors put in front of a file, is no error.
  values = json.loads(line.decode('utf-8-sig'))
  if not isinstance(values, dict):
    raise ValueError('a document is {"id": ..., "text": ...}')
  questions = values.get('questions', [])
  if not isinstance(questions, list):
    raise ValueError('questions must be a list')
  for question in questions:
    if not isinstance(question, dict):
      raise ValueError('a question is {"question": ..., "answers": [...]}')
    _need_text(question, 'question')
    answers = question.get('answers')
    if (
      not isinstance(answers, list)
      or not answers
      or not all(isinstance(a, str) and a.strip() for a in answers)
    ):
      raise ValueError(
        f'answers of {question["question"]!r} must be a list of texts, none'
        ' empty'
      )
  return {
    'id': _need_text(values, 'id'),
    'title': _need_text(values, 'title') if 'title' in values else '',
    'text': _need_text(values, 'text'),
    'questions': questions,
  }


def _need_text(values: dict[str, Any], key: str) -> str:
  if key not in values:
    raise ValueError(f'{key!r} is missing; {_or_else(key, values)}')
  value = values[key]
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f'{key!r} must be text that is not empty, not {value!r}')
  return value


def _version_folder(name: str, data_dir: str) -> pathlib.Path:
  """The newest version of a data set, as a folder that exists."""
  if not data_dir:
    raise schema.UserError(
      'config.data.data_dir is not set; give the folder that holds the TFDS'
      f' data set {name!r}: --config.data.data_dir=FOLDER'
    )
  root = pathlib.Path(data_dir).expanduser()
  if not root.is_dir():
    raise schema.UserError(
      f'config.data.data_dir = {data_dir!r} is not a folder;'
      f' {_or_else(root.name, _entries(root.parent))}'
    )
  names = [
    str(folder.parent.relative_to(root))
    for depth in ('*/*', '*/*/*')
    for folder in sorted(root.glob(depth))
    if _VERSION.fullmatch(folder.name)
  ]
  if name not in names:
    raise schema.UserError(
      f'{data_dir} has no data set {name!r}; {_or_else(name, names)} (those'
      f' that TFDS knows are made by: {_build_command(name, data_dir)})'
    )
  versions = [
    folder
    for folder in (root / name).iterdir()
    if _VERSION.fullmatch(folder.name)
  ]
  return max(versions, key=lambda v: tuple(map(int, v.name.split('.'))))


def _build_command(name: str, data_dir: str) -> str:
  return f'tfds build {name} --file_format=array_record --data_dir={data_dir}'


def _decoded(value: Any) -> Any:
  """The same tree with text in place of bytes."""
  if isinstance(value, bytes):
    return value.decode('utf-8')
  if isinstance(value, dict):
    return {key: _decoded(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return [_decoded(inner) for inner in value]
  return value


def _unreadable(what: object, error: Exception) -> schema.UserError:
  return schema.UserError(
    f'cannot read {what}: the data set is cut short or damaged, copy it again'
    f' ({_shortened(error)})'
  )


def _shortened(error: Exception) -> str:
  line = schema.one_line(error)
  return line if len(line) <= 160 else f'{line[:157]}...'


def _entries(folder: pathlib.Path) -> Iterator[str]:
  if folder.is_dir():
    yield from sorted(entry.name for entry in folder.iterdir())


def _or_else(name: str, choices: Any) -> str:
  """What is there instead: the nearest name, or else all of them."""
  choices = list(choices)
  close = schema.nearest(name, choices)
  if close:
    return f'did you mean {close!r}?'
  return f'there is {", ".join(choices) or "nothing"}'
