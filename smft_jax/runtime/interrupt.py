"""Ends a program at once on Ctrl-C, whatever it is doing.

Python raises KeyboardInterrupt only between its own instructions, and XLA may
compile for a minute before the next one. Afterwards its threads may still run,
and crash while the interpreter is taken down around them.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import signal
import sys
import threading
import time
from typing import NoReturn

CODE = 130
"""Exit code after Ctrl-C."""

# Seconds that the program has to say so and to end by itself.
_GRACE_S = 3.0


_said = threading.Event()


def say() -> None:
  """Prints that the program was interrupted."""
  _said.set()
  print('\ninterrupted; the same command resumes', file=sys.stderr, flush=True)


def leave(code: int) -> NoReturn:
  """Ends the process without taking the interpreter down."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """Within the context, ends the process soon after Ctrl-C.

  Only the main thread can watch for signals; in others this does nothing.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  _said.clear()
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  # What a signal writes arrives while the main thread is inside XLA.
  before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  threading.Thread(target=_wait, args=[reading], daemon=True).start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(before)
    os.close(writing)


def _wait(reading: int) -> None:
  with os.fdopen(reading, 'rb', buffering=0) as pipe:
    while received := pipe.read(1):
      if received[0] == signal.SIGINT:
        if not _said.wait(_GRACE_S):
          say()
        else:
          time.sleep(_GRACE_S)  # to leave other processes
        leave(CODE)
