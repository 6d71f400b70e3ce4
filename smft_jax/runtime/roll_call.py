"""A roll call: all processes come to the first one before JAX joins them.

JAX waits for a process that never comes, and then aborts without a name. Here
the first process listens at the coordinator's address, the others tell it who
they are, and everyone hears who is missing. The port is free again for JAX.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

from absl import logging

from smft_jax import schema
from smft_jax.runtime import watchdog


def roll_call(
  coordinator: str, num_processes: int, process_id: int, limit_s: float
) -> None:
  """Returns when all processes are there.

  Args:
    coordinator: HOST:PORT at which process 0 listens.
    num_processes: How many there are.
    process_id: Which one this is, from 0.
    limit_s: Seconds to wait.

  Raises:
    UserError: If two processes say that they are the same one, or they do not
      agree on how many there are, or the port is taken.
    watchdog.Lost: If some do not come in time; they are named.

  Example:
    >>> roll_call('localhost:0', 1, 0, limit_s=1.0)  # alone
  """
  host, _, port = coordinator.rpartition(':')
  deadline = time.monotonic() + limit_s
  if process_id:
    verdict = _answer(
      host, int(port), f'{process_id} {num_processes}', deadline
    )
  else:
    verdict = _call(coordinator, int(port), num_processes, deadline)
  kind, _, why = verdict.partition(' ')
  if kind == 'mistake':
    raise schema.UserError(why)
  if kind == 'missing':
    raise watchdog.Lost(f'{why} within {limit_s:.0f} s')


def _call(coordinator: str, port: int, count: int, deadline: float) -> str:
  """What process 0 does; returns the verdict that all are told."""
  present: dict[int, socket.socket] = {}
  told = time.monotonic()
  verdict = ''
  try:
    server = socket.create_server(('', port))
  except OSError as error:
    return f'mistake --coordinator={coordinator}: {error.strerror}'
  with server:
    server.settimeout(0.2)
    while not verdict and len(present) < count - 1:
      now = time.monotonic()
      absent = [str(p) for p in range(1, count) if p not in present]
      names = f'process {", ".join(absent)} of {count}'
      if now > deadline:
        verdict = f'missing {names} did not come to {coordinator}'
      elif now - told > watchdog.TOLD_EVERY_S:
        told = now
        logging.warning('waiting at %s for %s', coordinator, names)
      else:
        verdict = _admit(server, present, count)
  for connection in present.values():
    with connection, contextlib.suppress(OSError):  # it may be gone again
      connection.sendall((verdict or 'go').encode())
  return verdict


def _admit(server, present: dict[int, socket.socket], count: int) -> str:
  """Takes down the next process that comes; returns why all must end."""
  try:
    connection, _ = server.accept()
  except TimeoutError:
    return ''
  try:
    connection.settimeout(2)
    process, theirs = map(int, connection.recv(64).split())
  except (OSError, ValueError):
    connection.close()  # nobody of ours
    return ''
  if process in present:
    if not _is_gone(present[process]):
      connection.close()
      return f'mistake two processes have --process_id={process}'
    present[process].close()
  present[process] = connection
  if theirs != count:
    return (
      f'mistake --num_processes differs: process {process} has {theirs},'
      f' process 0 has {count}'
    )
  return ''


def _is_gone(connection: socket.socket) -> bool:
  """Whether a process that came was ended since, as one that is restarted."""
  if not select.select([connection], [], [], 0)[0]:
    return False  # it waits, and says nothing more
  try:
    return not connection.recv(1, socket.MSG_PEEK)
  except OSError:
    return True


def _answer(host: str, port: int, name: str, deadline: float) -> str:
  """What the others do; returns the verdict."""
  while time.monotonic() < deadline:
    try:
      with socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(name.encode())
        # Process 0 may have come later, and wait longer.
        connection.settimeout(2 * (deadline - time.monotonic()) + 10)
        verdict = connection.recv(1024).decode()
    except OSError:
      time.sleep(0.2)
      continue
    if verdict:
      return '' if verdict == 'go' else verdict
    time.sleep(0.2)
  return f'missing process 0 did not answer at {host}:{port}'
