"""A folder that one run at a time may work on.

A claim is a folder, since making one is atomic on every file system, where
locks are not. Its holder touches a file in it every few seconds. Whoever finds
a claim calls its holder dead if the process is gone, as far as that can be told
from here, or if nothing was touched for a while: what counts is that the time
of the file changes, not what it says, so that clocks may differ and jump.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import socket
import sys
import threading
import time
from typing import Any
import uuid

POLL_S = 2.0
"""Seconds after which to ask again for a claim that another holds."""
DEAD_S = 120.0
"""Seconds without a sign of life after which a holder is dead."""
_BEAT_S = 10.0
_HOLDER = 'holder.json'


@dataclasses.dataclass
class Claim:
  """A claim to a path, not held at first.

  Attributes:
    path: The folder of the claim.
    is_alive: Whether another holder was seen to be alive.
  """

  path: pathlib.Path
  is_alive: bool = False
  _token: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
  _is_mine: bool = False
  # What was seen of another's claim: its holder and time, and since when.
  _seen: tuple[Any, float] = (None, 0.0)
  _released: threading.Event = dataclasses.field(
    default_factory=threading.Event
  )

  def take(self) -> str:
    """Takes the claim if nobody alive has it.

    Returns:
      '', or who has it: 'process 7 on host a'.

    Raises:
      OSError: The claim cannot be written.
    """
    try:
      self.path.mkdir(parents=True)
    except FileExistsError:
      holder = self._holder()
      if not self._is_dead(holder):
        return f'process {holder.get("pid")} on {holder.get("host")}'
      self._remove(holder)
      return self.take()
    identity = _identity() | {'token': self._token}
    try:
      (self.path / _HOLDER).write_text(json.dumps(identity))
    except OSError:
      shutil.rmtree(self.path, ignore_errors=True)
      raise
    self._is_mine = True
    self._released.clear()
    threading.Thread(target=self._beat, daemon=True).start()
    return ''

  def release(self) -> None:
    """Gives the claim up, if this process has it."""
    if self._is_mine:
      self._is_mine = False
      self._released.set()
      self._remove({'token': self._token})

  def _holder(self) -> dict[str, Any]:
    """Returns what a claim says of its holder; nothing before it is written."""
    try:
      return dict(json.loads((self.path / _HOLDER).read_text()))
    except (OSError, ValueError, TypeError):
      return {}

  def _is_dead(self, holder: dict[str, Any]) -> bool:
    """Judges a holder, by what was seen of it before."""
    self.is_alive = False
    mine = _identity()
    if holder and holder.get('machine') == mine['machine']:
      self.is_alive = _began(holder.get('pid')) == holder.get('began')
      return not self.is_alive
    try:
      seen = holder, (self.path / _HOLDER).stat().st_mtime_ns
    except OSError:
      seen = holder, 0
    before, since = self._seen
    now = time.monotonic()
    if seen != before:
      self.is_alive = before is not None
      self._seen = seen, now
    return seen == before and now - since > DEAD_S

  def _remove(self, holder: dict[str, Any]) -> None:
    """Removes the claim of a holder, and no other."""
    aside = self.path.with_name(f'{self.path.name}.{uuid.uuid4().hex[:8]}')
    with contextlib.suppress(OSError):
      self.path.rename(aside)  # for one of several processes this succeeds
      found = Claim(aside)._holder()
      if found.get('token') != holder.get('token'):
        aside.rename(self.path)  # another was faster, and this one is alive
      else:
        shutil.rmtree(aside)

  def _beat(self) -> None:
    """Gives signs of life; ends the process if another took the claim."""
    while not self._released.wait(_BEAT_S):
      with contextlib.suppress(OSError):
        os.utime(self.path / _HOLDER)
      holder = self._holder()
      if holder and holder.get('token') != self._token:
        print(
          f'\nerror: {self.path.parent} was taken over by process'
          f' {holder.get("pid")} on {holder.get("host")}, as this one gave no'
          ' sign of life',
          file=sys.stderr,
          flush=True,
        )
        os._exit(1)


@contextlib.contextmanager
def held(claim: Claim) -> Iterator[None]:
  """Releases a claim that was taken when the context ends."""
  try:
    yield
  finally:
    claim.release()


def _identity() -> dict[str, Any]:
  """Describes this process: `machine` is where its number means something."""
  return {
    'host': socket.gethostname(),
    'machine': [_read('/proc/sys/kernel/random/boot_id'), _namespace()],
    'pid': os.getpid(),
    'began': _began(os.getpid()),
  }


def _began(pid: Any) -> str:
  """Returns when a process of this machine began; '' if there is none."""
  # The name, in parentheses, may have spaces.
  fields = _read(f'/proc/{pid}/stat').rpartition(')')[2].split()
  return fields[19] if len(fields) > 19 else ''


def _namespace() -> str:
  try:
    return os.readlink('/proc/self/ns/pid')
  except OSError:
    return uuid.uuid4().hex  # unknown, so equal to no other


def _read(path: str) -> str:
  try:
    return pathlib.Path(path).read_text()
  except OSError:
    return ''
