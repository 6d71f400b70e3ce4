"""How the tests compile."""

import contextlib
import os
import subprocess
import sys

import jax


@contextlib.contextmanager
def quick(wanted: bool = True):
  """Compiles in half the time what is run only once or twice."""
  name = 'jax_disable_most_optimizations'
  before = jax.config.values[name]
  jax.config.update(name, wanted)
  yield
  jax.config.update(name, before)


# XLA's newer code generator for CPUs takes half of the suite's time to compile
# what runs once. Slow tests, and every program outside of tests, use it.
_QUICK_CODE = 'xla_cpu_use_fusion_emitters'


def use_quick_code() -> None:
  """Has XLA generate code quickly, in this process and those it starts."""
  if 'XLA_FLAGS' in os.environ:
    return
  flag = f'--{_QUICK_CODE}=false'
  # XLA ends a process that sets a flag that it does not have.
  known = subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices("cpu")'],
    env=os.environ | {'XLA_FLAGS': flag},
    capture_output=True,
    check=False,
  )
  if not known.returncode:
    os.environ['XLA_FLAGS'] = flag


def usual_code() -> dict[str, bool] | None:
  """Returns options of a compilation that undo `use_quick_code`."""
  is_quick = _QUICK_CODE in os.environ.get('XLA_FLAGS', '')
  return {_QUICK_CODE: True} if is_quick else None
