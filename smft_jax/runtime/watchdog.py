"""Names the process that others wait for in a step.

A step ends in every process or in none: where one does not begin it, all others
hang, and nothing that they computed tells why. So each process publishes how
many steps it began and ended, once a second, from a thread of its own. One that
stands looks at the others: who is behind, or no longer publishes, is named, and
after the limit the process that waits exits with code 1.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from typing import Any

from absl import logging
import jax

# Seconds between two lines about waiting; also, silence that is told.
TOLD_EVERY_S = 10

_PLACE = 'smft/tick/'


class Lost(RuntimeError):
  """Another process did not come or answer in time."""


@dataclasses.dataclass
class Group:
  """What a process knows of itself among others.

  Attributes:
    client: Of JAX's coordination service.
    index: Which process this is.
    count: How many there are.
    limit_s: Seconds to wait for others.
    ticks: Number of steps begun and ended so far.
    is_over: Whether the process is about to end, and need not be watched.
  """

  client: Any
  index: int
  count: int
  limit_s: float
  ticks: int = 0
  is_over: bool = False


@dataclasses.dataclass
class Seen:
  """What a process last published, and when that was new."""

  text: str
  when: float

  @property
  def ticks(self) -> int:
    """Of the process, when it published."""
    return int(self.text.split()[0]) if self.text else 0


def start(group: Group) -> None:
  """Watches from now on."""
  threading.Thread(target=_watch, args=(group,), daemon=True).start()


def host_of(client: Any, process: int) -> str:
  """The name of the host that a process runs on."""
  try:
    return client.blocking_key_value_get(f'smft/host/{process}', 1000)
  except jax.errors.JaxRuntimeError:
    return 'its host unknown'


def _watch(group: Group) -> None:
  beat, ticks = 0, 0
  moved = told = time.monotonic()
  seen = {process: Seen('', moved) for process in range(group.count)}
  while not group.is_over:
    beat += 1
    now = time.monotonic()
    try:
      _publish(group, beat)
      _look(group, seen, now)
    except jax.errors.JaxRuntimeError:
      return  # the service has ended
    if group.ticks != ticks:
      ticks, moved, told = group.ticks, now, now
    if ticks and now - told >= TOLD_EVERY_S:
      told = now
      _tell(group, behind(group, seen, now), now - moved)
    time.sleep(1)


def _publish(group: Group, beat: int) -> None:
  group.client.key_value_set(
    f'{_PLACE}{group.index}', f'{group.ticks} {beat}', allow_overwrite=True
  )


def _look(group: Group, seen: dict[int, Seen], now: float) -> None:
  for key, text in group.client.key_value_dir_get(_PLACE):
    process = int(key.rpartition('/')[2])
    if seen[process].text != text:
      seen[process] = Seen(text, now)


def _tell(group: Group, names: list[str], stood_s: float) -> None:
  """Says whom this process waits for, and exits if that was too long."""
  if not names:
    return
  text = (
    f'process {group.index} has stood for {stood_s:.0f} s: {"; ".join(names)}'
  )
  if stood_s < group.limit_s:
    logging.warning('%s', text)
    return
  logging.error('error: %s; the same command resumes', text)
  os._exit(1)  # the main thread hangs in a step


def behind(group: Group, seen: dict[int, Seen], now: float) -> list[str]:
  """Who holds up this process, and how that shows.

  Args:
    group: This process.
    seen: What each process last published.
    now: Seconds, as in `seen`.

  Returns:
    A phrase for each that is silent or behind.
  """
  found = []
  for process, last in seen.items():
    name = f'process {process} ({host_of(group.client, process)})'
    if now - last.when >= TOLD_EVERY_S:
      found.append(f'{name} has been silent for {now - last.when:.0f} s')
    elif last.ticks < group.ticks:
      found.append(f'{name} does not begin the step')
  return found
