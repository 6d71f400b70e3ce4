"""Numbers out: metrics.jsonl, whole JSON files, progress for who watches.

Nothing here leaves a file half-written: a whole file appears under its name in
one step, and metrics.jsonl drops a line that a crash cut short. Of many
processes the first one writes and shows, and all others do nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import errno
import io
import json
import math
import os
import pathlib
import shutil
import sys
import time
from typing import Any, BinaryIO, TextIO
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


class Progress:
  """Shows how far a phase is: a bar on a terminal, plain lines in a log.

  Values are looked at only when a line is due, so that a loss still being
  computed on a device does not make the loop wait.

  Attributes:
    waited_s: seconds so far within `waiting`.

  Args:
    phase: what is going on, 'pretrain'.
    total: steps in the whole phase.
    unit: what a step is called.
    start: steps done earlier, by the run that this one resumes.
    stream: where to write; stderr by default.
    clock: seconds; monotonic.
    every_s: least time between two lines; None means 0.1 s on a terminal and
      5 s in a log.
  """

  def __init__(
    self,
    phase: str,
    total: int,
    unit: str = 'step',
    *,
    start: int = 0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    every_s: float | None = None,
  ):
    self._phase, self._total, self._unit = phase, total, unit
    shown = sys.stderr if processes.is_main() else io.StringIO()
    self._stream = stream or shown
    self._clock = clock
    self._is_terminal = self._stream.isatty()
    self._every_s = every_s or (0.1 if self._is_terminal else 5.0)
    self._step, self._tokens = start, 0
    self._began = clock()
    self.waited_s = 0.0
    # (time, step, tokens) when the first step was done.
    self._first: tuple[float, int, int] | None = None
    self._shown_at, self._shown_step = -math.inf, -1
    self._values: Mapping[str, Any] = {}

  def update(self, step: int, tokens: int = 0, **values: Any) -> None:
    """Tells that `step` steps are done.

    Args:
      step: steps done so far, of `total`.
      tokens: tokens processed since the last update.
      **values: numbers to show, such as loss=...; scalars of any library.
    """
    now = self._clock()
    self._step, self._values = step, values
    self._tokens += tokens
    if self._first is None:
      # The first step compiles; a rate that counted it would mislead.
      self._first = (now, step, self._tokens)
    if now - self._shown_at >= self._every_s or step >= self._total:
      self._show(now)

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time within as waiting for input.

    A device may compute meanwhile what it was given before, so that this is the
    most that the phase would be faster by if input took no time.
    """
    began = self._clock()
    try:
      yield
    finally:
      self.waited_s += self._clock() - began

  def close(self) -> None:
    """Ends the line, with the time the phase took."""
    now = self._clock()
    took = f'{self._phase} took {duration(now - self._began)}'
    if self.waited_s:
      share = self.waited_s / (now - self._began)
      took += f', {share:.1%} of it waiting for input'
    if self._is_terminal:
      if self._shown_step != self._step:
        self._show(now)
      self._stream.write('\n')
    print(took, file=self._stream, flush=True)

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, kind: type | None, *unused: object) -> None:
    if kind is None:
      self.close()
    elif self._is_terminal:
      print(file=self._stream)  # leave the bar's line to the error

  def _show(self, now: float) -> None:
    self._shown_at, self._shown_step = now, self._step
    parts = [f'{self._unit} {self._step}/{self._total}']
    parts += [f'{k} {_number(float(v))}' for k, v in self._values.items()]
    then, step, tokens = self._first or (now, self._step, self._tokens)
    if now > then and self._step > step:
      if self._tokens > tokens:
        parts.append(f'{_number((self._tokens - tokens) / (now - then))} tok/s')
      left = (now - then) / (self._step - step) * (self._total - self._step)
      parts.append(f'{duration(left)} left')
    text = '  '.join(parts)
    if not self._is_terminal:
      print(f'{self._phase}: {text}', file=self._stream, flush=True)
      return
    width = shutil.get_terminal_size().columns
    room = min(30, width - len(self._phase) - len(text) - 6)
    filled = round(room * self._step / max(self._total, 1))
    bar = f'[{"=" * filled}{" " * (room - filled)}] ' if room >= 8 else ''
    line = f'{self._phase} {bar}{text}'[: width - 1]
    self._stream.write(f'\r{line}\x1b[K')  # clears what a longer line left
    self._stream.flush()


def duration(seconds: float) -> str:
  """Says a time as people do.

  Example:
    >>> duration(7.2), duration(187), duration(7300)
    ('7s', '3m07s', '2h01m')
  """
  minutes, rest = divmod(round(seconds), 60)
  if minutes < 1:
    return f'{rest}s'
  if minutes < 60:
    return f'{minutes}m{rest:02}s'
  return f'{minutes // 60}h{minutes % 60:02}m'


def _number(value: float) -> str:
  """Three digits that matter, thousands as k and millions as M."""
  if abs(value) >= 1e6:
    return f'{value / 1e6:.3g}M'
  if abs(value) >= 1e3:
    return f'{value / 1e3:.3g}k'
  return f'{value:.3g}'


def _line(record: Mapping[str, Any]) -> str:
  return json.dumps(record) + '\n'
