"""The folder that a run writes into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import importlib.metadata
import json
import pathlib
import platform
import time
import uuid

from absl import logging

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.runtime import agreement
from smft_jax.runtime import claim
from smft_jax.runtime import preemption
from smft_jax.runtime import processes
from smft_jax.store import atomic
from smft_jax.store import records as records_lib

_PACKAGES = (
  'smft-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy',
  'tensorflow-datasets', 'tokenizers',
)  # fmt: skip


def prepare(
  workdir: pathlib.Path,
  experiment: config_lib.Experiment,
  argv: Sequence[str] = (),
  data: str = '',
) -> bool:
  """Makes the workdir and its config.json, or finds a run to resume in it.

  Args:
    workdir: The folder.
    experiment: The config.
    argv: The command line, which config.json records.
    data: `fingerprint` of the task.

  Returns:
    True if the workdir holds a run of the same config.

  Raises:
    UserError: If the folder cannot be written or holds a run of another config
      or other data, or if processes do not share it or run different things.
  """
  resolved = config_lib.to_dict(experiment)
  agreement.check_same('version', versions())
  agreement.check_same('config', resolved)
  agreement.check_same('data', {'fingerprint': data})
  found = processes.on_main('the workdir', holds_run, workdir, experiment, data)
  processes.on_main('the workdir', check_writable, workdir)
  agreement.check_shared(workdir, 'the workdir')
  if not found:
    atomic.write_json(
      workdir / 'config.json',
      {
        'config': resolved,
        'data': data,
        'argv': list(argv),
        'versions': versions(),
      },
    )
  elif processes.is_main():
    _compare_versions(workdir)
  return found


def _compare_versions(workdir: pathlib.Path) -> None:
  """Warns if a run is resumed with other versions than it was begun with."""
  begun = json.loads((workdir / 'config.json').read_text()).get('versions', {})
  now = versions()
  differing = [
    f'{name} {begun.get(name)}, now {now.get(name)}'
    for name in sorted(begun.keys() | now)
    if begun.get(name) != now.get(name)
  ]
  if differing:
    logging.warning(
      '%s was begun with %s: results may differ in bits from those of one'
      ' version',
      *(workdir, '; '.join(differing)),
    )


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, flag: str = 'workdir') -> Iterator[None]:
  """Within the context, no other run can use the workdir.

  Where another run was on a machine that cannot be asked, waits for a sign of
  life first.

  Args:
    workdir: The folder.
    flag: The flag that names it.

  Raises:
    UserError: If another run uses it, or it cannot be written.
  """
  mine = claim.Claim(workdir / '.claim')
  is_new = processes.on_main('the workdir', lambda: not workdir.exists())
  before = ''
  while True:
    holder, is_alive = processes.on_main('the workdir', _take, mine, flag)
    if not holder:
      break
    if is_alive:
      raise schema.UserError(
        f'{flag} {workdir} is in use by {holder}: choose another --{flag}'
      )
    if holder != before:
      logging.info(
        '%s %s was in use by %s: waiting up to %.0f s for a sign of life',
        *(flag, workdir, holder, claim.DEAD_S),
      )
    before = holder
    preemption.check()
    time.sleep(claim.POLL_S)
  try:
    with claim.held(mine):
      yield
  finally:
    if is_new and processes.is_main():
      with contextlib.suppress(OSError):  # unless there is something in it
        workdir.rmdir()


def _take(mine: claim.Claim, flag: str) -> list[str | bool]:
  try:
    return [mine.take(), mine.is_alive]
  except OSError as error:
    raise schema.UserError(
      f'{flag} {mine.path.parent} cannot be written: {error.strerror}'
    ) from None


def withdraw(workdir: pathlib.Path) -> None:
  """Removes what `prepare` wrote for a run that recorded nothing.

  A run that is refused before it began then leaves its workdir to the corrected
  command.
  """
  if processes.is_main() and not records_lib.read_records(workdir):
    for name in ('config.json', 'metrics.jsonl', 'base.json'):
      (workdir / name).unlink(missing_ok=True)


def holds_run(
  workdir: pathlib.Path,
  experiment: config_lib.Experiment,
  data: str | None = None,
) -> bool:
  """Returns whether the workdir holds a run of this config.

  Args:
    workdir: The folder.
    experiment: The config.
    data: `fingerprint` of the task; None if any data will do.

  Raises:
    UserError: If it holds a run of another config or other data.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return False
  try:
    record = json.loads(path.read_text())
    theirs, their_data = {**record['config']}, record['data']
  except (ValueError, KeyError, TypeError) as error:
    what = 'is damaged; remove it, or'
    if isinstance(error, KeyError) and 'config' in error.args:
      what = 'is of something else than a run:'  # such as a model
    raise schema.UserError(f'{path} {what} choose another --workdir') from None
  differing = config_lib.differences(theirs, config_lib.to_dict(experiment))
  if differing:
    more = f' and {len(differing) - 4} more' if len(differing) > 4 else ''
    raise schema.UserError(
      f'workdir {workdir} holds a run of another config, with'
      f' {"; ".join(differing[:4])}{more}: choose another --workdir'
    )
  if data not in (None, their_data):
    raise schema.UserError(
      f'workdir {workdir} holds a run of other data: what config.data names has'
      ' changed since; choose another --workdir'
    )
  return True


def versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that affect results."""
  found = {'python': platform.python_version()}
  for package in _PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def check_writable(workdir: pathlib.Path) -> None:
  """Makes the folder, and checks that a file can be written in it."""
  proof = workdir / f'.writable-{uuid.uuid4().hex}'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    proof.touch()
    proof.unlink()
  except OSError as error:
    raise schema.UserError(
      f'workdir {workdir} cannot be written: {error.strerror}'
    ) from None
