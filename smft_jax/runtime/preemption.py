"""Lets a run save itself and exit cleanly on SIGTERM.

`program.run` installs a handler that only records the signal. Loops ask after
each step:

    if preemption.requested():
      ...  # save
    preemption.check()

so the step in progress ends first. Every process asks at the same points: when
one of them receives the signal, all stop after the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import contextlib
import signal
import threading
from typing import TypeVar

from smft_jax.runtime import processes

Item = TypeVar('Item')

# Signals received. A list, because a handler must not take a lock.
_received: list[int] = []
# Not empty once several processes have agreed to stop.
_agreed: list[int] = []


class Preempted(BaseException):
  """The run received SIGTERM and has saved itself.

  Like KeyboardInterrupt it is no Exception: code that continues after a failure
  must not continue after this.
  """


@contextlib.contextmanager
def handle_sigterm() -> Iterator[None]:
  """Within the context, records SIGTERM instead of ending the process.

  Only the main thread can set handlers; in other threads this does nothing.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  _received.clear()
  # Launchers may send it twice, to the process group and to each child.
  before = signal.signal(
    signal.SIGTERM, lambda number, unused: _received.append(number)
  )
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
    _received.clear()


def requested() -> bool:
  """Returns whether the run should stop; the same in every process."""
  processes.tick()
  if processes.count() > 1:
    # Only once: there is a single point to stop at.
    if not _agreed and processes.reached_stop():
      _agreed.append(signal.SIGTERM)
    return bool(_agreed)
  return bool(_received)


def check() -> None:
  """Raises `Preempted` if the run should stop."""
  if requested():
    raise Preempted


def interruptible(items: Iterable[Item]) -> Iterator[Item]:
  """Yields the items of a loop that saves nothing, each after a `check`."""
  for item in items:
    check()
    yield item
