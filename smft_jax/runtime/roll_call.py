"""A roll call: finds missing processes before JAX connects them.

JAX waits for a missing process and then aborts without naming it. Here process
0 listens at the coordinator's address, the others report their index, and all
learn who is missing. Afterwards the port is free for JAX.
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
  """Returns when all processes have reported.

  Args:
    coordinator: HOST:PORT at which process 0 listens.
    num_processes: Number of processes.
    process_id: Index of this one, from 0.
    limit_s: Seconds to wait.

  Raises:
    UserError: If two processes have the same index or different numbers of
      processes, or if the port is taken.
    watchdog.Lost: If some do not report in time; names them.

  Example:
    >>> roll_call('localhost:0', 1, 0, limit_s=1.0)  # alone
  """
  host, _, port = coordinator.rpartition(':')
  deadline = time.monotonic() + limit_s
  if process_id:
    report = f'{process_id} {num_processes}'
    verdict = _report(host, int(port), report, deadline)
  else:
    verdict = _listen(coordinator, int(port), num_processes, deadline)
  kind, _, why = verdict.partition(' ')
  if kind == 'mistake':
    raise schema.UserError(why)
  if kind == 'missing':
    raise watchdog.Lost(f'{why} within {limit_s:.0f} s')


def _listen(coordinator: str, port: int, count: int, deadline: float) -> str:
  """Listens as process 0; returns the verdict that it sends to all."""
  present: dict[int, socket.socket] = {}
  reported = time.monotonic()
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
        verdict = f'missing {names} did not connect to {coordinator}'
      elif now - reported > watchdog.REPORT_EVERY_S:
        reported = now
        logging.warning('waiting at %s for %s', coordinator, names)
      else:
        verdict = _admit(server, present, count)
  for connection in present.values():
    with connection, contextlib.suppress(OSError):  # it may be gone
      connection.sendall((verdict or 'go').encode())
  return verdict


def _admit(server, present: dict[int, socket.socket], count: int) -> str:
  """Records the next process that connects; returns why all must end, or ''."""
  try:
    connection, _ = server.accept()
  except TimeoutError:
    return ''
  try:
    connection.settimeout(2)
    process, their_count = map(int, connection.recv(64).split())
  except (OSError, ValueError):
    connection.close()  # a stranger
    return ''
  if process in present:
    if not _is_gone(present[process]):
      connection.close()
      return f'mistake two processes have --process_id={process}'
    present[process].close()
  present[process] = connection
  if their_count != count:
    return (
      f'mistake --num_processes differs: process {process} has {their_count},'
      f' process 0 has {count}'
    )
  return ''


def _is_gone(connection: socket.socket) -> bool:
  """Returns whether a process that connected has ended since."""
  if not select.select([connection], [], [], 0)[0]:
    return False  # it waits silently
  try:
    return not connection.recv(1, socket.MSG_PEEK)
  except OSError:
    return True


def _report(host: str, port: int, report: str, deadline: float) -> str:
  """Reports to process 0; returns the verdict."""
  while time.monotonic() < deadline:
    try:
      with socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(report.encode())
        # Process 0 may have started later, and so wait longer.
        connection.settimeout(2 * (deadline - time.monotonic()) + 10)
        verdict = connection.recv(1024).decode()
    except OSError:
      time.sleep(0.2)
      continue
    if verdict:
      return '' if verdict == 'go' else verdict
    time.sleep(0.2)
  return f'missing process 0 did not answer at {host}:{port}'
