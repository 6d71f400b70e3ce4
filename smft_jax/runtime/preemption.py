"""Being asked to stop: SIGTERM lets a run save itself and leave cleanly.

A program installs the handler (`cli.run` does); importing this changes nothing.
The handler only notes that the signal came. Loops ask, after each step:

    if preemption.requested():
      ...  # save
    preemption.check()

so that the step in progress ends first. All loops ask here and at the same
places in every process: where one of many is sent the signal, all stop after
the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import contextlib
import signal
import threading
from typing import TypeVar

from smft_jax.runtime import processes

Item = TypeVar('Item')

# Signals that came. A list, as a handler must take no lock.
_asked: list[int] = []
# Whether all processes stop here, where there are many.
_agreed: list[int] = []


class Preempted(BaseException):
  """The run was asked to stop, and what it has to save is saved.

  No Exception, as KeyboardInterrupt is none: what goes on after one point of
  many fails must not go on after this.
  """


@contextlib.contextmanager
def noticed() -> Iterator[None]:
  """Notes SIGTERM instead of dying of it, as long as the context lasts.

  Only the main thread can set handlers; in any other one nothing changes.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  _asked.clear()
  # Repeated signals are one: launchers send them to a group and to each child.
  before = signal.signal(
    signal.SIGTERM, lambda number, unused: _asked.append(number)
  )
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
    _asked.clear()


def requested() -> bool:
  """Whether the run was asked to stop, in every process alike."""
  processes.tick()
  if processes.count() > 1:
    # Once only: the place to stop at is one, and is then left behind.
    if not _agreed and processes.reached_stop():
      _agreed.append(signal.SIGTERM)
    return bool(_agreed)
  return bool(_asked)


def check() -> None:
  """Leaves if the run was asked to stop; for where nothing is to be saved.

  Raises:
    Preempted: If it was.
  """
  if requested():
    raise Preempted


def until_requested(items: Iterable[Item]) -> Iterator[Item]:
  """The items of a loop that saves nothing, with a `check` before each."""
  for item in items:
    check()
    yield item
