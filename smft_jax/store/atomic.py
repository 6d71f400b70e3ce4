"""Writes whole files: a file is complete, or as it was before."""

from __future__ import annotations

from collections.abc import Mapping
import json
import math
import os
import pathlib
from typing import Any
import uuid

from smft_jax.runtime import processes


def to_json(value: Any) -> Any:
  """Turns scalars and arrays of numpy or jax into what JSON has.

  NaN and infinity become None, as JSON has neither.

  Example:
    >>> to_json({'loss': float('nan'), 'path': pathlib.PurePosixPath('a')})
    {'loss': None, 'path': 'a'}
  """
  if isinstance(value, Mapping):
    return {str(key): to_json(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [to_json(item) for item in value]
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, (bool, int, str)):
    return value
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if hasattr(value, 'tolist'):  # numpy and jax arrays and scalars
    return to_json(value.tolist())
  raise TypeError(f'{value!r} of type {type(value).__name__} is not JSON')


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
  """Writes a file atomically: whole, or unchanged if it fails.

  Only the main process writes.

  Args:
    path: the file; its folder must exist.
    data: the content.
  """
  if not processes.is_main():
    return
  path = pathlib.Path(path)
  unfinished = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}')
  try:
    with open(unfinished, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(unfinished, path)
  finally:
    unfinished.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file as UTF-8, like `write_bytes`."""
  write_bytes(path, text.encode('utf-8'))


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes a JSON file as `write_text` does, converted by `to_json`."""
  write_text(path, json.dumps(to_json(value), indent=2) + '\n')
