"""Reads TFDS data sets from files, without TensorFlow and without a network."""

from __future__ import annotations

from collections.abc import Iterator
import pathlib
import re
from typing import Any

import numpy as np

from smft_jax import schema
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows

_VERSION = re.compile(r'\d+\.\d+\.\d+')
# Read at once: enough to be quick, and little beside what is kept of them.
_CHUNK = 4096


def read_examples(
  name: str, split: str, data_dir: str, problems: problems_lib.Problems
) -> Iterator[rows.Row]:
  """Reads a split of a TFDS data set in array_record format.

  Only files below `data_dir` are opened: `tfds.data_source` would try to
  download what it does not find there.

  Args:
    name: Name of the data set, with its configuration if it has several, such
      as 'squad/v1.1'. The newest version is read.
    split: Name of the split; '' if the data set has only one.
    data_dir: The TFDS data directory, which holds a folder for each data set.
    problems: What to do with an example whose text is not UTF-8.

  Yields:
    The examples in the order of the files, with text decoded. An example
    without `id` is called by its place, 'squad/v1.1:validation:3'.

  Raises:
    UserError: The directory, data set or split is missing, the files are in
      another format or broken, or there is no example.
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
  split = split or _only_split(name, splits, data_dir)
  if split not in splits:
    raise schema.UserError(
      f'data set {name!r} in {data_dir} has no split {split!r};'
      f' {problems_lib.or_else(split, splits)}'
    )
  if not builder.info.splits[split].num_examples:
    raise schema.UserError(
      f'split {split!r} of {folder} holds no example: copy the data set again'
    )
  try:
    source = builder.as_data_source(split)
    num_examples = len(source)
  except NotImplementedError as error:
    raise schema.UserError(
      f'{folder} is not in array_record format; prepare it with:'
      f' {_build_command(name, data_dir)}'
    ) from error
  except Exception as error:
    raise _unreadable(f'split {split!r} of {folder}', error) from error
  for start in range(0, num_examples, _CHUNK):
    chunk = range(start, min(start + _CHUNK, num_examples))
    try:
      examples = source.__getitems__(chunk)
    except Exception as error:
      raise _unreadable(f'split {split!r} of {folder}', error) from error
    for index, example in zip(chunk, examples, strict=True):
      place = f'{name}:{split}, example {index}'
      try:
        fields = _plain(example)
      except UnicodeDecodeError as error:
        problems.report('bad_utf8', place, problems_lib.shortened(error))
        continue
      yield rows.Row(
        place=place, default_id=f'{name}:{split}:{index}', fields=fields
      )


def _only_split(name: str, splits: list[str], data_dir: str) -> str:
  if len(splits) != 1:
    raise schema.UserError(
      f'data set {name!r} in {data_dir} has the splits {", ".join(splits)}:'
      f' name one, as in {name}:{splits[0] if splits else "SPLIT"}'
    )
  return splits[0]


def _version_folder(name: str, data_dir: str) -> pathlib.Path:
  """The newest version of a data set, as a folder that exists."""
  if not data_dir:
    raise schema.UserError(
      'config.data.data_dir is not set; give the folder that holds the TFDS'
      f' data set {name!r}: --config.data.data_dir=FOLDER'
    )
  root = pathlib.Path(data_dir).expanduser()
  if not root.is_dir():
    there = problems_lib.entries(root.parent)
    raise schema.UserError(
      f'config.data.data_dir = {data_dir!r} is not a folder;'
      f' {problems_lib.or_else(root.name, there)}'
    )
  names = [
    str(folder.parent.relative_to(root))
    for depth in ('*/*', '*/*/*')
    for folder in sorted(root.glob(depth))
    if _VERSION.fullmatch(folder.name)
  ]
  if name not in names:
    raise schema.UserError(
      f'{data_dir} has no data set {name!r};'
      f' {problems_lib.or_else(name, names)} (those that TFDS knows are made'
      f' by: {_build_command(name, data_dir)})'
    )
  versions = [
    folder
    for folder in (root / name).iterdir()
    if _VERSION.fullmatch(folder.name)
  ]
  return max(versions, key=lambda v: tuple(map(int, v.name.split('.'))))


def _build_command(name: str, data_dir: str) -> str:
  return f'tfds build {name} --file_format=array_record --data_dir={data_dir}'


def _plain(value: Any) -> Any:
  """The same tree in Python's own types, with text for bytes."""
  if isinstance(value, bytes):
    return value.decode('utf-8')
  if isinstance(value, dict):
    return {key: _plain(inner) for key, inner in value.items()}
  if isinstance(value, np.ndarray | np.generic):
    value = value.tolist()
  if isinstance(value, list):
    return [_plain(inner) for inner in value]
  return value


def _unreadable(what: object, error: Exception) -> schema.UserError:
  return schema.UserError(
    f'cannot read {what}: the data set is cut short or damaged, copy it again'
    f' ({problems_lib.shortened(error)})'
  )
