"""Writes files atomically: a file is complete, or unchanged."""

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
  """Converts scalars and arrays of numpy or jax for JSON.

  NaN and infinity become None, since JSON has neither.

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
  raise TypeError(
    f'{value!r} of type {type(value).__name__} cannot be written as JSON'
  )


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
  """Writes a file; if that fails, the old file is unchanged.

  Only process 0 writes.

  Args:
    path: The file; its folder must exist.
    data: The content.
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
  """Writes text as UTF-8, as `write_bytes` does."""
  write_bytes(path, text.encode('utf-8'))


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Converts a value by `to_json`, and writes it as `write_bytes` does."""
  write_text(path, json.dumps(to_json(value), indent=2) + '\n')
