"""Appends to metrics.jsonl and reads it.

A last line that a crash cut short is dropped. Only process 0 writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import json
import os
import time
from typing import Any, BinaryIO

from smft_jax import schema
from smft_jax.runtime import processes
from smft_jax.store import atomic
from smft_jax.store import paths
from smft_jax.store import tensorboard as tensorboard_lib


def read_records(workdir: str | os.PathLike) -> list[dict[str, Any]]:
  """Reads metrics.jsonl without an unfinished last line.

  Raises:
    UserError: If another line is damaged.
  """
  path = paths.expand(workdir) / 'metrics.jsonl'
  if not path.exists():
    return []
  records = []
  lines = path.read_bytes().split(b'\n')
  for number, line in enumerate(lines[:-1], start=1):
    try:
      records.append(json.loads(line))
    except ValueError:
      # A crash of the machine can garble even a finished last line.
      if number < len(lines) - 1:
        raise schema.UserError(f'{path} is damaged in line {number}') from None
  return records


class MetricsWriter:
  """Appends one line of JSON per event to metrics.jsonl.

  Opening it drops a last line that a crash cut short. `write` returns when the
  operating system has the line.

  Example:
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with MetricsWriter(folder) as writer:
    ...   writer.write('pretrain', step=7, loss=2.5)
    >>> [(r['event'], r['loss']) for r in read_records(folder)]
    [('pretrain', 2.5)]
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    clock: Callable[[], float] = time.time,
    tensorboard: bool = False,
  ):
    self._path = paths.expand(workdir) / 'metrics.jsonl'
    self._clock = clock
    if processes.is_main() and self._path.exists():
      records = read_records(workdir)
      whole = ''.join(_line(record) for record in records)
      if whole.encode() != self._path.read_bytes():
        atomic.write_text(self._path, whole)
    self._file = self._open()
    self._events: tensorboard_lib.EventWriter | None = None
    if tensorboard and processes.is_main():
      self._mirror(read_records(workdir))

  def write(self, event: str, **values: Any) -> None:
    """Appends {"event": event, "time": seconds since 1970, **values}."""
    if not processes.is_main():
      return
    now = round(self._clock(), 3)
    record = atomic.to_json({'event': event, 'time': now, **values})
    # A full disk takes a part, and raises when it is given the rest.
    left = _line(record).encode()
    while left:
      left = left[self._file.write(left) :]
    if self._events is not None:
      self._events.write(record)

  def truncate(self, predicate: Callable[[dict[str, Any]], bool]) -> None:
    """Cuts the file before the first record for which `predicate` holds.

    A resumed run cuts what is later than its checkpoint, so that no step is
    recorded twice.
    """
    if not processes.is_main():
      return
    kept = []
    for record in read_records(self._path.parent):
      if predicate(record):
        break
      kept.append(record)
    self._file.close()
    atomic.write_text(self._path, ''.join(_line(record) for record in kept))
    self._file = self._open()
    if self._events is not None:
      self._mirror(kept)

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
    if self._events is not None:
      self._events.close()

  def __enter__(self) -> MetricsWriter:
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def _mirror(self, records: list[dict[str, Any]]) -> None:
    """Rewrites TensorBoard's files."""
    if self._events is not None:
      self._events.close()
    self._events = tensorboard_lib.EventWriter(self._path.parent, records)

  def _open(self) -> BinaryIO:
    # Unbuffered; `close` closes it.
    path = self._path if processes.is_main() else os.devnull
    return open(path, 'ab', buffering=0)


def _line(record: Mapping[str, Any]) -> str:
  return json.dumps(record) + '\n'
