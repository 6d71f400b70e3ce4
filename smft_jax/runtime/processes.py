"""The processes of one program: which one this is, and how they agree.

On a pod every host runs the same command. All processes take the same steps;
process 0 alone writes files and decides what is read from them (`on_main`).
Waiting for another process has a time limit, and names that process.

Messages travel through JAX's coordination service, not over devices, so a
process that hangs in a step can still be named (`watchdog`). A program started
alone skips all of this.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import os
import socket
import sys
import time
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils

from smft_jax import schema
from smft_jax.runtime import cluster
from smft_jax.runtime import roll_call
from smft_jax.runtime import watchdog

# Seconds that a failed process waits for others that may have failed too.
_FAREWELL_S = 3
_FAILED = 'failed'

Lost = watchdog.Lost
# What a step raises when another process is gone.
Disconnected = jax.errors.JaxRuntimeError


_group: watchdog.Group | None = None


def initialize(
  coordinator: str = '',
  num_processes: int = 0,
  process_id: int = -1,
  limit_s: float = 300.0,
) -> None:
  """Joins the other processes, if any; call it before any use of a device.

  Without the first three arguments it asks the cluster (`cluster.is_detected`);
  where there is none, this process runs alone.

  Args:
    coordinator: HOST:PORT of process 0, as all others reach it.
    num_processes: Number of processes.
    process_id: Index of this one, from 0.
    limit_s: Seconds to wait for others, here and later.

  Raises:
    UserError: If some of the arguments are missing or impossible.
    Lost: If the others do not join in time.
  """
  global _group
  is_given = cluster.check_flags(coordinator, num_processes, process_id)
  if not is_given and not cluster.is_detected():
    return
  logging.info('joining the other processes, for up to %.0f s', limit_s)
  if coordinator:
    roll_call.roll_call(coordinator, num_processes, process_id, limit_s)
  jax.distributed.initialize(
    coordinator or None,
    num_processes or None,
    process_id if process_id >= 0 else None,
    initialization_timeout=round(limit_s),
    heartbeat_timeout_seconds=round(min(100, limit_s)),
    shutdown_timeout_seconds=round(limit_s),
  )
  from jax._src import distributed  # no public name for the client

  _group = watchdog.Group(
    client=distributed.global_state.client,
    index=jax.process_index(),
    count=jax.process_count(),
    limit_s=limit_s,
  )
  _group.client.key_value_set(f'smft/host/{_group.index}', socket.gethostname())
  watchdog.start(_group)


def is_main() -> bool:
  """Returns whether this process writes files: process 0, or the only one."""
  return _group is None or _group.index == 0


def index() -> int:
  """Returns the index of this process."""
  return 0 if _group is None else _group.index


def count() -> int:
  """Returns the number of processes."""
  return 1 if _group is None else _group.count


def host_name(process: int) -> str:
  """Returns the name of the host that a process runs on."""
  assert _group is not None
  return watchdog.host_name(_group.client, process)


def exchange(what: str, value: Any = None) -> list[Any]:
  """Sends a value to all processes, and returns theirs.

  Every process must make the same calls in the same order.

  Args:
    what: Names the exchange in messages, such as 'the checkpoint'.
    value: JSON.

  Returns:
    The values of processes 0, 1, ...

  Raises:
    Lost: If a process does not answer within the limit; names it.
  """
  if _group is None:
    return [value]
  _publish(value)
  return [_get(process, what) for process in range(_group.count)]


def on_main(what: str, function: Callable[..., Any], *args: Any) -> Any:
  """Calls a function in process 0 only, and returns its result in all.

  Args:
    what: Names the call in messages of the processes that wait.
    function: Returns JSON.
    *args: Its arguments.

  Raises:
    UserError: In the other processes, if the function raised a ValueError or an
      OSError in process 0; there the error itself is raised.
    Lost: As in `exchange`.
  """
  if _group is None:
    return function(*args)
  if _group.index:
    _group.exchanges += 1
    answer = _get(0, what)
    if 'error' in answer:
      raise schema.UserError(answer['error'])
    return answer['result']
  try:
    result = function(*args)
  except (ValueError, OSError) as error:
    _publish({'error': schema.one_line(error)})
    raise
  _publish({'result': result})
  return result


def tick() -> None:
  """Tells the watchdog that a step begins or has ended."""
  if _group is not None:
    _group.ticks += 1


def reached_stop() -> bool:
  """Returns whether all processes stop here because one received SIGTERM.

  Every process must call it at the same points. The signal is passed on to all,
  and they stop at the first point that no process has passed.
  """
  if _group is None:
    return False
  _group.stop_checks += 1
  return multihost_utils.reached_preemption_sync_point(_group.stop_checks)


def prefix() -> str:
  """Returns 'process 3: ' to start messages with; '' in process 0."""
  return '' if is_main() else f'process {index()}: '


def leave(code: int) -> None:
  """Leaves the other processes; after a failure it ends this process.

  Args:
    code: The exit code. If it is not 0, others may hang in a step, and a normal
      shutdown would wait for them. Processes that failed too get a moment to
      print why.
  """
  global _group
  if _group is None:
    return
  _group.is_over = True
  if code:
    _group.limit_s = min(_group.limit_s, _FAREWELL_S)
  try:
    _publish(_FAILED if code else None)
    values = [_receive(process, 'the end') for process in range(_group.count)]
    if _FAILED in values:
      code = code or 1
  except (Lost, jax.errors.JaxRuntimeError):
    code = code or 1
  last = _group.index == 0
  _group = None
  if code:
    if last:
      time.sleep(1)  # its coordination service aborts whoever is still running
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  jax.distributed.shutdown()


def _publish(value: Any) -> None:
  """Publishes a value in the next exchange."""
  assert _group is not None
  _group.exchanges += 1
  key = f'smft/{_group.exchanges}/{_group.index}'
  _group.client.key_value_set(key, json.dumps(value))


def _get(process: int, what: str) -> Any:
  """Receives a value; raises `Lost` if the process failed."""
  value = _receive(process, what)
  if value == _FAILED:
    raise Lost(
      f'process {process} ({host_name(process)}) failed before {what}; see its'
      ' own log'
    )
  return value


def _receive(process: int, what: str) -> Any:
  """Waits for the value of a process in the current exchange."""
  assert _group is not None
  key = f'smft/{_group.exchanges}/{process}'
  began = time.monotonic()
  while True:
    left = _group.limit_s - (time.monotonic() - began)
    wait_s = max(0.01, min(watchdog.REPORT_EVERY_S, left))
    try:
      return json.loads(
        _group.client.blocking_key_value_get(key, round(wait_s * 1000))
      )
    except jax.errors.JaxRuntimeError as error:
      if 'DEADLINE_EXCEEDED' not in str(error):
        raise
    waited = time.monotonic() - began
    message = (
      f'process {_group.index} waited {waited:.0f} s for process {process}'
      f' ({host_name(process)}) at {what}'
    )
    if waited >= _group.limit_s:
      raise Lost(f'{message} and gave up; the same command resumes')
    logging.warning('%s', message)
