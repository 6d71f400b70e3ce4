"""Reads TFDS data sets from files, without TensorFlow or a network."""

from __future__ import annotations

from collections.abc import Iterator
import pathlib
import re
from typing import Any

import numpy as np

from smft_jax import schema
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows
from smft_jax.store import paths

_VERSION = re.compile(r'\d+\.\d+\.\d+')
# Examples read at once: fast, and small in memory.
_CHUNK = 4096


def read_examples(
  name: str,
  split: str,
  data_dir: str,
  problems: problems_lib.Problems,
  setting: str = 'config.data.data_dir',
) -> Iterator[rows.Row]:
  """Reads a split of a TFDS data set in array_record format.

  Opens only files in `data_dir`; `tfds.data_source` would try to download
  missing ones.

  Args:
    name: Name of the data set, with its configuration if it has several, such
      as 'squad/v1.1'. The newest version is read.
    split: Name of the split; '' if the data set has only one.
    data_dir: The TFDS data directory, which holds a folder for each data set.
    problems: Refuses or skips examples whose text is not UTF-8.
    setting: What gave `data_dir`, for messages.

  Yields:
    The examples in the order of the files, with text decoded. The default id is
    the place, 'squad/v1.1:validation:3'.

  Raises:
    UserError: The directory, data set or split is missing, the files are in
      another format or broken, or there is no example.
  """
  folder = _version_folder(name, data_dir, setting)
  # Imported late: half a second and 50 MB that only real data needs.
  import tensorflow_datasets as tfds

  # Errors of protobuf, array_record and TFDS share no type below Exception.
  try:
    builder = tfds.builder_from_directory(folder)
    splits = list(builder.info.splits)
  except Exception as error:
    raise _unreadable(folder / 'dataset_info.json', error) from error
  if not split and len(splits) == 1:
    split = splits[0]
  if not split:
    raise schema.UserError(
      f'data set {name!r} in {data_dir} has the splits {", ".join(splits)}:'
      f' name one, such as {name}:{splits[0] if splits else "SPLIT"}'
    )
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
        problems.report(problems_lib.not_utf8(error), place)
        continue
      yield rows.Row(
        place=place, default_id=f'{name}:{split}:{index}', fields=fields
      )


def _version_folder(name: str, data_dir: str, setting: str) -> pathlib.Path:
  """Finds the folder of a data set's newest version."""
  meant = ''
  if paths.expand(name).is_dir():
    meant = f'; if the folder {name} is meant, write ./{name}'
  if not data_dir:
    raise schema.UserError(
      f'{setting} is not set; give the folder that holds the TFDS data set'
      f' {name!r}: --{setting.removeprefix("--")}=FOLDER{meant}'
    )
  root = paths.expand(data_dir)
  if not root.is_dir():
    siblings = problems_lib.entries(root.parent)
    raise schema.UserError(
      f'{setting} = {data_dir!r} is not a folder;'
      f' {problems_lib.or_else(root.name, siblings)}'
    )
  versions: dict[str, list[pathlib.Path]] = {}
  for folder in (*sorted(root.glob('*/*')), *sorted(root.glob('*/*/*'))):
    if _VERSION.fullmatch(folder.name):
      data_set = str(folder.parent.relative_to(root))
      versions.setdefault(data_set, []).append(folder)
  if name not in versions:
    raise schema.UserError(
      f'{data_dir} has no data set {name!r};'
      f' {problems_lib.or_else(name, versions)} (TFDS builds those it knows'
      f' with: {_build_command(name, data_dir)}){meant}'
    )
  return max(versions[name], key=lambda v: [*map(int, v.name.split('.'))])


def _build_command(name: str, data_dir: str) -> str:
  return f'tfds build {name} --file_format=array_record --data_dir={data_dir}'


def _plain(value: Any) -> Any:
  """Converts a tree to Python's own types, and bytes to text."""
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
