"""The folder a run writes into: made, checked, known again by its config."""

from __future__ import annotations

from collections.abc import Sequence
import importlib.metadata
import json
import pathlib
import platform
import uuid

from smft_jax import config as config_lib
from smft_jax import metrics
from smft_jax import processes
from smft_jax import schema

_PACKAGES = (
  'smft-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy',
  'tensorflow-datasets', 'tokenizers',
)  # fmt: skip


def prepare(
  workdir: pathlib.Path,
  experiment: config_lib.Experiment,
  argv: Sequence[str] = (),
) -> bool:
  """Makes the workdir and its config.json, or recognises an earlier run's.

  Args:
    workdir: where the run writes.
    experiment: the checked config.
    argv: the command line, for the record.

  Returns:
    True if the workdir holds a run of the same config, to be resumed.

  Raises:
    UserError: if it cannot be written, or holds a run of another config; of
      many processes, if they do not share it or run different things.
  """
  resolved = config_lib.to_dict(experiment)
  processes.check_same('version', versions())
  processes.check_same('config', resolved)
  found = processes.on_main('the workdir', holds_run, workdir, experiment)
  processes.on_main('the workdir', check_writable, workdir)
  processes.check_shared(workdir, 'the workdir')
  if not found:
    metrics.write_json(
      workdir / 'config.json',
      {'config': resolved, 'argv': list(argv), 'versions': versions()},
    )
  return found


def holds_run(workdir: pathlib.Path, experiment: config_lib.Experiment) -> bool:
  """Whether the workdir holds a run of this config; changes nothing.

  Raises:
    UserError: if it holds a run of another config.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return False
  try:
    theirs = json.loads(path.read_text())['config']
  except (ValueError, KeyError, TypeError):
    raise schema.UserError(
      f'{path} is damaged; remove it, or choose another --workdir'
    ) from None
  differing = config_lib.differences(theirs, config_lib.to_dict(experiment))
  if differing:
    more = f' and {len(differing) - 4} more' if len(differing) > 4 else ''
    raise schema.UserError(
      f'workdir {workdir} holds a run of another config, with'
      f' {"; ".join(differing[:4])}{more}: choose another --workdir'
    )
  return True


def versions() -> dict[str, str]:
  """Python's version, and that of each package a result may hang on."""
  found = {'python': platform.python_version()}
  for package in _PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def check_writable(workdir: pathlib.Path) -> None:
  """Makes the folder, and proves that a file can be written in it."""
  proof = workdir / f'.writable-{uuid.uuid4().hex}'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    proof.touch()
    proof.unlink()
  except OSError as error:
    raise schema.UserError(
      f'workdir {workdir} cannot be written: {error.strerror}'
    ) from None
