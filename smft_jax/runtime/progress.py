"""Progress of a phase: a bar on a terminal, lines in a log.

With several processes, process 0 shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import io
import math
import shutil
import sys
import time
from typing import Any, TextIO

from smft_jax.runtime import processes


class Progress:
  """Shows the progress of a phase: a bar on a terminal, lines in a log.

  Values are read only when a line is due, so the loop does not wait for a loss
  that a device is still computing.

  Attributes:
    waited_s: Seconds spent within `waiting`.

  Args:
    phase: Name of the phase, such as 'pretrain'.
    total: Steps in the phase.
    unit: Name of a step.
    start: Steps done by earlier runs that this one resumes.
    stream: Where to write; stderr by default.
    clock: Monotonic seconds.
    every_s: Shortest time between two lines; None means 0.1 s on a terminal and
      5 s in a log.
    after_s: Seconds before anything is shown; a phase that takes less shows
      nothing.
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
    after_s: float = 0.0,
  ):
    self._phase, self._total, self._unit = phase, total, unit
    shown = sys.stderr if processes.is_main() else io.StringIO()
    self._stream = stream or shown
    self._clock = clock
    self._is_terminal = self._stream.isatty()
    self._every_s = every_s or (0.1 if self._is_terminal else 5.0)
    self._step, self._tokens = start, 0
    self._began, self._after_s = clock(), after_s
    self.waited_s = 0.0
    # (time, step, tokens) when the first step was done.
    self._first: tuple[float, int, int] | None = None
    self._shown_at, self._shown_step = -math.inf, -1
    self._values: Mapping[str, Any] = {}

  def update(self, step: int, tokens: int = 0, **values: Any) -> None:
    """Records that `step` steps are done.

    Args:
      step: Steps done so far, of `total`.
      tokens: Tokens processed since the last update.
      **values: Numbers to show, such as loss=...; scalars of any library.
    """
    now = self._clock()
    self._step, self._values = step, values
    self._tokens += tokens
    if self._first is None:
      # The rate leaves out the first step, which compiles.
      self._first = (now, step, self._tokens)
    if now - self._began < self._after_s:
      return
    if now - self._shown_at >= self._every_s or step >= self._total:
      self._show(now)

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time within the context as waiting for input.

    Devices may compute meanwhile, so this is an upper bound on the time that
    faster input would save.
    """
    began = self._clock()
    try:
      yield
    finally:
      self.waited_s += self._clock() - began

  def close(self) -> None:
    """Ends the bar and prints the time that the phase took."""
    now = self._clock()
    if now - self._began < self._after_s:
      return
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
      print(file=self._stream)  # the error starts on a new line

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
  """Formats a time.

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
  """Formats a number with three significant digits, k and M."""
  if abs(value) >= 1e6:
    return f'{value / 1e6:.3g}M'
  if abs(value) >= 1e3:
    return f'{value / 1e3:.3g}k'
  return f'{value:.3g}'
