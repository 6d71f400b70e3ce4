"""The folder a run writes into: made, checked, known again by its config."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import tempfile
import uuid

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.runs import base as base_lib
from smft_jax.runtime import agreement
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
  agreement.check_same('version', versions())
  agreement.check_same('config', resolved)
  found = processes.on_main('the workdir', holds_run, workdir, experiment)
  processes.on_main('the workdir', check_writable, workdir)
  agreement.check_shared(workdir, 'the workdir')
  if not found:
    atomic.write_json(
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


def experiment_of(workdir: pathlib.Path) -> config_lib.Experiment:
  """The config of the run in a workdir, without its mesh.

  Raises:
    UserError: If there is no run, or its config cannot be read.
  """
  path = workdir / 'config.json'
  try:
    config = json.loads(path.read_text())['config']
  except FileNotFoundError:
    raise schema.UserError(
      f'{workdir} holds no run{_other_runs(workdir)}'
    ) from None
  except (ValueError, KeyError, TypeError):
    raise schema.UserError(f'{path} is damaged') from None
  experiment = config_lib.from_config_dict(config)
  return dataclasses.replace(experiment, mesh=None)


def base_of(experiment: config_lib.Experiment) -> base_lib.Base:
  """The base of a run: from the cache, else made again."""
  task = base_lib.make_task(experiment)
  with (
    tempfile.TemporaryDirectory() as folder,
    records_lib.MetricsWriter(folder) as writer,
  ):
    return base_lib.find_or_make(experiment, task, writer)


def _other_runs(workdir: pathlib.Path) -> str:
  """Where there is a run, for the end of an error line."""
  runs = sorted(path.parent for path in workdir.parent.glob('*/config.json'))
  if not runs:
    return ''
  close = schema.nearest(workdir.name, [run.name for run in runs])
  if close:
    return f'; did you mean {workdir.parent / close}?'
  return f'; {workdir.parent} has {", ".join(run.name for run in runs[:4])}'
