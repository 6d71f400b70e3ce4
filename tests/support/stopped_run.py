"""The program, with a real signal sent to itself at a chosen moment.

  python -m tests.support.stopped_run SIGNAL MODULE.FUNCTION CALL FLAG...

Before call CALL (from 1) of the function the process sends itself the signal;
with CALL 0 it never does. It is otherwise `python -m smft_jax.train FLAG...`.
"""

from collections.abc import Callable
import importlib
import os
import signal
import sys

from smft_jax import train
from smft_jax.runtime import program


def stop_at(
  number: signal.Signals,
  place: str,
  call: int,
  replace: Callable[..., None] = setattr,
) -> None:
  """Has the process signalled before a call of a function.

  Args:
    number: The signal.
    place: The function, as MODULE.FUNCTION.
    call: Which call, from 1.
    replace: Puts another in its place, as `setattr` does.
  """
  module_name, _, name = place.rpartition('.')
  module = importlib.import_module(module_name)
  function, calls = getattr(module, name), []

  def counted(*arguments, **named):
    calls.append(name)
    if len(calls) == call:
      os.kill(os.getpid(), number)
    return function(*arguments, **named)

  replace(module, name, counted)


if __name__ == '__main__':
  stop_at(signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3]))
  sys.exit(program.run(train.main, sys.argv[4:]))
