"""Many processes that run one program: which one this is, and agreeing.

On a pod every host runs the same command. All take the same steps; process 0
alone writes files, and decides what is read from them (`on_main`). Everyone
waits for the others under a limit, and says for whom.

What is said travels through JAX's coordination service, not over devices, so
that a process that hangs in a step can still be named (`watchdog`).

A program that was started alone never gets here: all of it costs nothing then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import importlib.util
import json
import os
import pathlib
import socket
import sys
import time
from typing import Any
import uuid

from absl import logging
import jax
from jax.experimental import multihost_utils

from smft_jax import schema
from smft_jax.runtime import roll_call
from smft_jax.runtime import watchdog

# Seconds that a failed process waits for those that may have failed alike.
_FAREWELL_S = 3
# What a process says that failed.
_FAILED = 'failed'
# Seconds for a file to be seen on other hosts: network file systems cache.
_SEEN_WITHIN_S = 5

Lost = watchdog.Lost
# What a step raises when another process is gone.
Disconnected = jax.errors.JaxRuntimeError


@dataclasses.dataclass
class _Group(watchdog.Group):
  """This process among the others, and how often they agreed on something.

  Attributes:
    said: Number of exchanges so far; the same in every process.
    asked: Number of times the group was asked whether to stop.
  """

  said: int = 0
  asked: int = 0


_group: _Group | None = None


def initialize(
  coordinator: str = '',
  num_processes: int = 0,
  process_id: int = -1,
  limit_s: float = 300.0,
) -> None:
  """Joins the other processes, if there are any; before any use of a device.

  Without arguments it does so where the surroundings say who there is: on the
  hosts of a TPU, in a SLURM step of several tasks, in an indexed Kubernetes job
  with the `kubernetes` package, by which JAX asks there. Elsewhere it takes all
  three arguments, and without them there is only this process.

  Args:
    coordinator: HOST:PORT of process 0, as all others reach it.
    num_processes: How many processes there are.
    process_id: Which one this is, from 0.
    limit_s: Seconds to wait for others, here and later.

  Raises:
    UserError: If some of the arguments are missing or impossible.
    Lost: If the others do not come in time.
  """
  global _group
  given = bool(coordinator), num_processes > 0, process_id >= 0
  names = '--coordinator', '--num_processes', '--process_id'
  if any(given) and not all(given):
    missing = ' and '.join(
      name for name, is_given in zip(names, given, strict=True) if not is_given
    )
    raise schema.UserError(
      f'{missing} is missing: {", ".join(names)} are given together, or none'
      ' where TPU, SLURM or Kubernetes tells them'
    )
  if any(given):
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
      raise schema.UserError(
        f'--coordinator={coordinator} is no HOST:PORT, such as 10.0.0.1:8476'
      )
    if process_id >= num_processes:
      raise schema.UserError(
        f'--process_id={process_id} must be below --num_processes ='
        f' {num_processes}'
      )
  elif not surrounded():
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

  _group = _Group(
    client=distributed.global_state.client,
    index=jax.process_index(),
    count=jax.process_count(),
    limit_s=limit_s,
  )
  _group.client.key_value_set(f'smft/host/{_group.index}', socket.gethostname())
  watchdog.start(_group)


def surrounded() -> bool:
  """Whether the surroundings say that there are other processes."""
  env = os.environ
  # The hosts of a TPU, also where there is one. Others have /dev/vfio, too.
  devices = map(pathlib.Path, ('/dev/accel0', '/dev/vfio/0'))
  if (
    env.get('JAX_PLATFORMS', '') != 'cpu'
    and importlib.util.find_spec('libtpu') is not None
    and any(device.exists() for device in devices)
  ):
    return True
  tasks = env.get('SLURM_STEP_NUM_TASKS', '1')
  if 'SLURM_PROCID' in env and tasks.isdigit() and int(tasks) > 1:
    return True
  return (
    'KUBERNETES_SERVICE_HOST' in env
    and 'JOB_COMPLETION_INDEX' in env
    and importlib.util.find_spec('kubernetes') is not None
  )


def is_main() -> bool:
  """Whether this process writes files: process 0, or the only one."""
  return _group is None or _group.index == 0


def index() -> int:
  """Which process this is."""
  return 0 if _group is None else _group.index


def count() -> int:
  """How many processes there are."""
  return 1 if _group is None else _group.count


def exchange(what: str, value: Any = None) -> list[Any]:
  """Tells all processes a value, and waits for theirs.

  Every process must come here, in the same order.

  Args:
    what: What they are waited for, 'the checkpoint'; for messages.
    value: JSON.

  Returns:
    The values of processes 0, 1, ...

  Raises:
    Lost: If one does not come within the limit; it is named.
  """
  if _group is None:
    return [value]
  _say(value)
  return [_hear(process, what) for process in range(_group.count)]


def on_main(what: str, function: Callable[..., Any], *args: Any) -> Any:
  """Calls a function in process 0 alone; all have its result, or its error.

  Args:
    what: What the others wait for, for messages.
    function: Returns JSON.
    *args: Its arguments.

  Raises:
    UserError: In all, if it raised a ValueError or an OSError in process 0;
      there the error itself is raised.
    Lost: As `exchange` does.
  """
  if _group is None:
    return function(*args)
  if _group.index:
    _group.said += 1
    answer = _hear(0, what)
    if 'error' in answer:
      raise schema.UserError(answer['error'])
    return answer['result']
  try:
    result = function(*args)
  except (ValueError, OSError) as error:
    _say({'error': schema.one_line(error)})
    raise
  _say({'result': result})
  return result


def check_same(what: str, value: Mapping[str, Any]) -> None:
  """Checks that all processes have the same value.

  Args:
    what: What it is called, 'config'.
    value: JSON.

  Raises:
    UserError: In all, naming the first process that differs from process 0,
      and in what.
  """
  values = exchange(what, value)
  for process, theirs in enumerate(values):
    differing = schema.differences(theirs, values[0], what)
    if differing:
      raise schema.UserError(
        f'process {process} ({_host(process)}) runs something else than'
        f' process 0: {"; ".join(differing[:4])}'
      )


def check_shared(folder: pathlib.Path, name: str) -> None:
  """Checks that all processes see what process 0 writes into a folder.

  Raises:
    UserError: In all, if one does not.
  """
  if _group is None:
    return
  proof = folder / on_main(name, _make_proof, folder)
  deadline = time.monotonic() + _SEEN_WITHIN_S
  while not (seen := proof.exists()) and time.monotonic() < deadline:
    time.sleep(0.1)
  blind = [p for p, sees in enumerate(exchange(name, seen)) if not sees]
  if _group.index == 0:
    proof.unlink(missing_ok=True)
  if blind:
    raise schema.UserError(
      f'{name} {folder} is not shared: process {blind[0]} ({_host(blind[0])})'
      ' does not see what process 0 writes there; put it on a file system that'
      ' all hosts mount'
    )


def _make_proof(folder: pathlib.Path) -> str:
  proof = folder / f'.shared-{uuid.uuid4().hex}'
  proof.touch()
  return proof.name


def tick() -> None:
  """Notes that a step begins or ended, for the watchdog."""
  if _group is not None:
    _group.ticks += 1


def reached_stop() -> bool:
  """Whether all processes are to stop here, as one was sent SIGTERM.

  Every process must ask at the same places. The signal is passed on to all,
  and they stop at the first place that none has left behind.
  """
  if _group is None:
    return False
  _group.asked += 1
  return multihost_utils.reached_preemption_sync_point(_group.asked)


def prefix() -> str:
  """'process 3: ', for what a process says that is not the first."""
  return '' if is_main() else f'process {index()}: '


def leave(code: int) -> None:
  """Parts from the other processes; after a failure the process ends here.

  Args:
    code: The exit code. If it is not 0, others may hang in a step, and the
      usual end would wait for them; those that failed alike are given a moment
      to hear why.
  """
  global _group
  if _group is None:
    return
  _group.is_over = True
  if code:
    _group.limit_s = min(_group.limit_s, _FAREWELL_S)
  try:
    _say(_FAILED if code else None)
    said = [_receive(process, 'the end') for process in range(_group.count)]
    if _FAILED in said:
      code = code or 1
  except (Lost, jax.errors.JaxRuntimeError):
    code = code or 1
  last = _group.index == 0
  _group = None
  if code:
    if last:
      time.sleep(1)  # the service goes with it, and aborts who is still here
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  jax.distributed.shutdown()


def _say(value: Any) -> None:
  """Publishes a value in the next exchange."""
  assert _group is not None
  _group.said += 1
  key = f'smft/{_group.said}/{_group.index}'
  _group.client.key_value_set(key, json.dumps(value))


def _hear(process: int, what: str) -> Any:
  """`_receive`, of a process that has not failed."""
  value = _receive(process, what)
  if value == _FAILED:
    raise Lost(
      f'process {process} ({_host(process)}) failed before {what}; its own log'
      ' says why'
    )
  return value


def _receive(process: int, what: str) -> Any:
  """Waits for what a process says in the exchange under way."""
  assert _group is not None
  key = f'smft/{_group.said}/{process}'
  began = time.monotonic()
  while True:
    left = _group.limit_s - (time.monotonic() - began)
    wait_s = max(0.01, min(watchdog.TOLD_EVERY_S, left))
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
      f' ({_host(process)}) at {what}'
    )
    if waited >= _group.limit_s:
      raise Lost(f'{message}, and gives up; the same command resumes')
    logging.warning('%s', message)


def _host(process: int) -> str:
  assert _group is not None
  return watchdog.host_of(_group.client, process)
