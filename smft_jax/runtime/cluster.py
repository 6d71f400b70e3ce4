"""How this process was started: by flags, by a cluster, or alone."""

from __future__ import annotations

import importlib.util
import os
import pathlib

from smft_jax import schema


def check_flags(coordinator: str, num_processes: int, process_id: int) -> bool:
  """Returns whether the flags that join processes were given.

  Args:
    coordinator: HOST:PORT of process 0, or ''.
    num_processes: Number of processes, or 0.
    process_id: Index of this one, or -1.

  Raises:
    UserError: If only some were given, or a value is impossible.

  Example:
    >>> check_flags('', 0, -1), check_flags('10.0.0.1:8476', 2, 1)
    (False, True)
  """
  given = {
    '--coordinator': bool(coordinator),
    '--num_processes': num_processes > 0,
    '--process_id': process_id >= 0,
  }
  if not any(given.values()):
    return False
  missing = [name for name, is_given in given.items() if not is_given]
  if missing:
    raise schema.UserError(
      f'{" and ".join(missing)} is missing: give all of {", ".join(given)},'
      ' or none of them on TPU, SLURM or Kubernetes'
    )
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdigit() or not 0 < int(port) < 2**16:
    raise schema.UserError(
      f'--coordinator={coordinator} is not HOST:PORT, such as 10.0.0.1:8476'
    )
  if process_id >= num_processes:
    raise schema.UserError(
      f'--process_id={process_id} must be below --num_processes ='
      f' {num_processes}'
    )
  return True


def is_detected() -> bool:
  """Returns whether `jax.distributed` can learn the processes from a cluster.

  That is so on the hosts of a TPU, in a SLURM step of several tasks, and in an
  indexed Kubernetes job with the `kubernetes` package installed.
  """
  env = os.environ
  # The hosts of a TPU, even a single one. Others have /dev/vfio, too.
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
