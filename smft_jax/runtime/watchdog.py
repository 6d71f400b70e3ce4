"""Names the process that others wait for in a step.

If one process does not begin a step, all others hang in it. So a thread of each
process publishes once a second how many steps have begun and ended. A process
that is stuck names those that are behind or silent, and exits with code 1 after
the limit.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from typing import Any

from absl import logging
import jax

# Seconds between two lines about waiting, and before silence is reported.
REPORT_EVERY_S = 10

_KEY = 'smft/tick/'


class Lost(RuntimeError):
  """Another process did not join or answer in time."""


@dataclasses.dataclass
class Group:
  """This process among the others.

  Attributes:
    client: Client of JAX's coordination service.
    index: Index of this process.
    count: Number of processes.
    limit_s: Seconds to wait for others.
    ticks: Steps begun plus steps ended so far.
    is_over: Whether the process is about to end.
    exchanges: Exchanges so far; the same in every process.
    stop_checks: Calls of `processes.reached_stop` so far; the same in every
      process.
  """

  client: Any
  index: int
  count: int
  limit_s: float
  ticks: int = 0
  is_over: bool = False
  exchanges: int = 0
  stop_checks: int = 0


@dataclasses.dataclass
class LastTick:
  """What a process published last, and when it changed."""

  text: str
  when: float

  @property
  def ticks(self) -> int:
    """Returns the published ticks."""
    return int(self.text.split()[0]) if self.text else 0


def start(group: Group) -> None:
  """Starts the thread that watches."""
  threading.Thread(target=_watch, args=(group,), daemon=True).start()


def host_name(client: Any, process: int) -> str:
  """Returns the name of the host that a process runs on."""
  try:
    return client.blocking_key_value_get(f'smft/host/{process}', 1000)
  except jax.errors.JaxRuntimeError:
    return 'unknown host'


def _watch(group: Group) -> None:
  beat, ticks = 0, 0
  moved = reported = time.monotonic()
  seen = {process: LastTick('', moved) for process in range(group.count)}
  while not group.is_over:
    beat += 1
    now = time.monotonic()
    try:
      _publish(group, beat)
      _update(group, seen, now)
    except jax.errors.JaxRuntimeError:
      return  # the service has ended
    if group.ticks != ticks:
      ticks, moved, reported = group.ticks, now, now
    if ticks and now - reported >= REPORT_EVERY_S:
      reported = now
      _report(group, stragglers(group, seen, now), now - moved)
    time.sleep(1)


def _publish(group: Group, beat: int) -> None:
  group.client.key_value_set(
    f'{_KEY}{group.index}', f'{group.ticks} {beat}', allow_overwrite=True
  )


def _update(group: Group, seen: dict[int, LastTick], now: float) -> None:
  for key, text in group.client.key_value_dir_get(_KEY):
    process = int(key.rpartition('/')[2])
    if seen[process].text != text:
      seen[process] = LastTick(text, now)


def _report(group: Group, names: list[str], stuck_s: float) -> None:
  """Logs whom this process waits for; exits after the limit."""
  if not names:
    return
  text = (
    f'process {group.index} has been stuck for {stuck_s:.0f} s:'
    f' {"; ".join(names)}'
  )
  if stuck_s < group.limit_s:
    logging.warning('%s', text)
    return
  logging.error('error: %s; the same command resumes', text)
  os._exit(1)  # the main thread hangs


def stragglers(
  group: Group, seen: dict[int, LastTick], now: float
) -> list[str]:
  """Describes each process that is silent or behind.

  Args:
    group: This process.
    seen: What each process published last.
    now: Seconds, on the same clock as in `seen`.
  """
  found = []
  for process, last in seen.items():
    name = f'process {process} ({host_name(group.client, process)})'
    if now - last.when >= REPORT_EVERY_S:
      found.append(f'{name} has been silent for {now - last.when:.0f} s')
    elif last.ticks < group.ticks:
      found.append(f'{name} has not begun the step')
  return found
