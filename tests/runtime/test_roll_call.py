"""Missing, doubled and slow processes are named."""

from concurrent import futures
import socket
import time

import pytest

from smft_jax import schema
from smft_jax.runtime import roll_call
from smft_jax.runtime import watchdog
from tests.support import many_processes


def test_a_process_that_was_restarted_may_report_again():
  port = many_processes.free_port()

  def report(process):
    while True:
      try:
        connection = socket.create_connection(('localhost', port), timeout=5)
      except OSError:
        time.sleep(0.05)
        continue
      connection.sendall(f'{process} 3'.encode())
      return connection

  with futures.ThreadPoolExecutor() as pool:
    first = pool.submit(
      roll_call.roll_call, f'localhost:{port}', 3, 0, limit_s=20.0
    )
    with report(1):
      time.sleep(0.5)
    with report(1) as one, report(2) as two:
      assert [x.recv(64) for x in (one, two)] == [b'go', b'go']
    assert first.result() is None


def test_two_processes_with_the_same_index_are_refused():
  port = many_processes.free_port()

  def report(process):
    with pytest.raises((schema.UserError, watchdog.Lost)) as caught:
      roll_call.roll_call(f'localhost:{port}', 3, process, limit_s=5.0)
    return str(caught.value)

  with futures.ThreadPoolExecutor() as pool:
    errors = list(pool.map(report, (0, 1, 1)))
  # The first one and process 0 learn of it; the other is turned away.
  assert errors.count('two processes have --process_id=1') == 2


def test_stragglers_are_behind_or_silent():
  class Client:
    def blocking_key_value_get(self, key, unused_timeout_ms):
      return f'host of {key[-1]}'

  group = watchdog.Group(
    client=Client(), index=0, count=4, limit_s=60.0, ticks=7
  )
  seen = {
    0: watchdog.LastTick('7 40', 99.0),
    1: watchdog.LastTick('7 41', 99.5),
    2: watchdog.LastTick('6 42', 99.5),
    3: watchdog.LastTick('7 20', 70.0),
  }
  assert watchdog.stragglers(group, seen, 100.0) == [
    'process 2 (host of 2) has not begun the step',
    'process 3 (host of 3) has been silent for 30 s',
  ]
