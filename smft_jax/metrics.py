"""Numbers out: metrics.jsonl, whole JSON files.

Nothing here leaves a file half-written: a whole file appears under its name in
one step, and metrics.jsonl drops a line that a crash cut short. Of many
processes the first one writes, and all others do nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import errno
import json
import math
import os
import pathlib
import time
from typing import Any, BinaryIO
import uuid

from smft_jax import processes
from smft_jax import schema

_HIGHER_IS_BETTER = ('recall', 'f1', 'exact_match', 'accuracy')
_LOWER_IS_BETTER = ('nll', 'perplexity')

# What the errno is where there is no room: on the disk, in a quota, or below a
# limit on the size of files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def relative_drop(metric: str, before: float, after: float) -> float:
  """The share of what was there before that was lost; negative for a gain.

  (before - after) / before for recall, f1, exact_match and accuracy;
  (after - before) / before for names that end in nll or perplexity.

  Args:
    metric: the metric's name.
    before: its value before the stream.
    after: its value after it.

  Returns:
    The share; NaN if nothing was there, so that nothing could be lost.

  Raises:
    ValueError: for a metric whose better direction is not known.

  Example:
    >>> relative_drop('recall', 0.8, 0.6), relative_drop('nll', 2.0, 2.5)
    (0.25, 0.25)
  """
  if metric in _HIGHER_IS_BETTER:
    lost = before - after
  elif metric.endswith(_LOWER_IS_BETTER):
    lost = after - before
  else:
    known = [*_HIGHER_IS_BETTER, *_LOWER_IS_BETTER]
    schema.one_of('metric', metric, known)
  if before == 0:
    return math.nan
  # Rounded where the difference of two decimal numbers ends in noise.
  return round(lost / before, 12)


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


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a file so that it is there whole, or as it was before.

  Args:
    path: the file; its folder must exist.
    text: the content, written as UTF-8.
  """
  if not processes.is_main():
    return
  path = pathlib.Path(path)
  unfinished = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}')
  try:
    with open(unfinished, 'w', encoding='utf-8') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(unfinished, path)
  finally:
    unfinished.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes a JSON file as `write_text` does, converted by `to_json`."""
  write_text(path, json.dumps(to_json(value), indent=2) + '\n')


def read_records(workdir: str | os.PathLike) -> list[dict[str, Any]]:
  """Reads metrics.jsonl; an unfinished last line is left out.

  Raises:
    UserError: if another line is damaged.
  """
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  if not path.exists():
    return []
  records = []
  lines = path.read_bytes().split(b'\n')
  for number, line in enumerate(lines[:-1], start=1):
    try:
      records.append(json.loads(line))
    except ValueError:
      # A crash of the machine can leave the last line finished but garbled.
      if number < len(lines) - 1:
        raise schema.UserError(f'{path} is damaged in line {number}') from None
  return records


class MetricsWriter:
  """Appends one line of JSON per event to metrics.jsonl.

  Opening it drops a last line that a crash cut short. Each line is on its way
  to the disk when `write` returns.

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
  ):
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    self._clock = clock
    if processes.is_main() and self._path.exists():
      records = read_records(workdir)
      whole = ''.join(_line(record) for record in records)
      if whole.encode() != self._path.read_bytes():
        write_text(self._path, whole)
    self._file = self._open()

  def write(self, event: str, **values: Any) -> None:
    """Appends {"event": event, "time": seconds since 1970, **values}."""
    if not processes.is_main():
      return
    record = {'event': event, 'time': round(self._clock(), 3), **values}
    # One write of one whole line: a crash leaves it there or cuts it short. So
    # does a full disk, which takes a part and then raises at the rest.
    left = _line(to_json(record)).encode()
    while left:
      left = left[self._file.write(left) :]

  def truncate(self, predicate: Callable[[dict[str, Any]], bool]) -> None:
    """Cuts the file before the first record for which `predicate` holds.

    A resumed run calls it with "later than the checkpoint", so that no step
    stands there twice.
    """
    if not processes.is_main():
      return
    kept = []
    for record in read_records(self._path.parent):
      if predicate(record):
        break
      kept.append(record)
    self._file.close()
    write_text(self._path, ''.join(_line(record) for record in kept))
    self._file = self._open()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def __enter__(self) -> MetricsWriter:
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def _open(self) -> BinaryIO:
    # Unbuffered, and open between events: closing it is up to `close`.
    path = self._path if processes.is_main() else os.devnull
    return open(path, 'ab', buffering=0)


def _line(record: Mapping[str, Any]) -> str:
  return json.dumps(record) + '\n'
