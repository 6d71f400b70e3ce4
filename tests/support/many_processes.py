"""The program as several processes on this machine, each with CPU devices."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

from tests.support import repository
from tests.support import tiny_run

# Sizes that two replicas and two parts of the table divide.
SIZES = {
  'memory__num_slots': 64,
  'memory__value_dim': 12,
  'base__batch_size': 8,
  'background__batch_size': 8,
  'stream__batch_size': 8,
  'evaluation__batch_size': 16,
}
MESH = ('--config.mesh.data=2', '--config.mesh.memory=2')


def write_config(folder: pathlib.Path, **changes) -> pathlib.Path:
  """A config of `SIZES`."""
  return tiny_run.write_config(folder, **{**SIZES, **changes})


def free_port() -> int:
  """A port that nobody listens on."""
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]


def start(
  config: pathlib.Path,
  workdir: pathlib.Path,
  processes: int,
  *flags: str,
  devices: int = 4,
  module: tuple[str, ...] = ('smft_jax.train',),
  only: tuple[int, ...] | None = None,
  own: dict[int, tuple[str, ...]] | None = None,
  more: dict[int, tuple[str, ...]] | None = None,
) -> list[subprocess.Popen]:
  """Starts the program.

  Args:
    config: The config file.
    workdir: Where it writes.
    processes: How many there are.
    *flags: For all of them.
    devices: In all processes together.
    module: What to run, and its first arguments.
    only: Which of them to start; None starts all.
    own: The arguments after `python -m` of some processes, in place of
      `module`.
    more: Flags of some processes, which override those of all.
  """
  compiled = {
    'JAX_COMPILATION_CACHE_DIR': str(config.parent / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }
  env = (
    compiled
    | os.environ
    | {
      'JAX_PLATFORMS': 'cpu',
      'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true',  # as `compilation.quick`
      'JAX_NUM_CPU_DEVICES': str(devices // processes),
    }
  )
  port = free_port()
  flags = (
    f'--config={config}',
    f'--workdir={workdir}',
    f'--coordinator=localhost:{port}',
    f'--num_processes={processes}',
    *flags,
  )
  return [
    subprocess.Popen(
      [
        *(sys.executable, '-m'),
        *(own or {}).get(process, module),
        *flags,
        f'--process_id={process}',
        *(more or {}).get(process, ()),
      ],
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      cwd=repository.ROOT,
    )
    for process in (range(processes) if only is None else only)
  ]


def finish(
  started: list[subprocess.Popen], timeout_s: float = 400
) -> list[tuple[int, str]]:
  """Exit code and output of each."""
  try:
    ended = []
    for process in started:
      output, _ = process.communicate(timeout=timeout_s)
      ended.append((process.returncode, output))
    return ended
  finally:
    for process in started:
      process.kill()
      if process.stdout is not None:
        process.stdout.close()
      process.wait()


def run(*arguments, **named) -> list[tuple[int, str]]:
  """`start` and `finish`."""
  return finish(start(*arguments, **named))
