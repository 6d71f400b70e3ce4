"""Checks that all processes run the same thing and see the same files."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
import time
from typing import Any
import uuid

from smft_jax import schema
from smft_jax.runtime import processes

# Seconds for other hosts to see a file: network file systems cache.
_VISIBLE_WITHIN_S = 5


def check_same(what: str, value: Mapping[str, Any]) -> None:
  """Checks that all processes have the same value.

  Args:
    what: Names the value in the error, such as 'config'.
    value: JSON.

  Raises:
    UserError: In all processes; names the first that differs from process 0,
      and the keys.
  """
  values = processes.exchange(what, value)
  for process, other in enumerate(values):
    differing = schema.differences(other, values[0], what)
    if differing:
      raise schema.UserError(
        f'process {process} ({processes.host_name(process)}) differs from'
        f' process 0: {"; ".join(differing[:4])}'
      )


def check_shared(folder: pathlib.Path, name: str) -> None:
  """Checks that all processes see the files that process 0 writes in a folder.

  Args:
    folder: The folder; it exists.
    name: Names the folder in the error, such as 'the workdir'.

  Raises:
    UserError: In all processes, if one does not.
  """
  if processes.count() == 1:
    return
  proof = folder / processes.on_main(name, _touch_proof, folder)
  deadline = time.monotonic() + _VISIBLE_WITHIN_S
  while not (seen := proof.exists()) and time.monotonic() < deadline:
    time.sleep(0.1)
  all_seen = processes.exchange(name, seen)
  if processes.is_main():
    proof.unlink(missing_ok=True)
  if not all(all_seen):
    process = all_seen.index(False)
    raise schema.UserError(
      f'{name} {folder} is not shared: process {process}'
      f' ({processes.host_name(process)}) does not see the files of process 0;'
      ' use a file system that all hosts mount'
    )


def _touch_proof(folder: pathlib.Path) -> str:
  proof = folder / f'.shared-{uuid.uuid4().hex}'
  proof.touch()
  return proof.name
