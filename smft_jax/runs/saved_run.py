"""Reads what an earlier run left: its config and its base."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.runs import base as base_lib
from smft_jax.store import records as records_lib


def load_experiment(workdir: pathlib.Path) -> config_lib.Experiment:
  """Reads the config of the run in a workdir, without its mesh.

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


def load_base(experiment: config_lib.Experiment) -> base_lib.Base:
  """Reads the base of a run from the cache, or makes it again."""
  task = base_lib.make_task(experiment)
  with (
    tempfile.TemporaryDirectory() as folder,
    records_lib.MetricsWriter(folder) as writer,
  ):
    return base_lib.find_or_make(experiment, task, writer)


def _other_runs(workdir: pathlib.Path) -> str:
  """Names the runs next to a workdir, for the end of an error message."""
  runs = sorted(path.parent for path in workdir.parent.glob('*/config.json'))
  if not runs:
    return ''
  close = schema.nearest(workdir.name, [run.name for run in runs])
  if close:
    return f'; did you mean {workdir.parent / close}?'
  return f'; {workdir.parent} has {", ".join(run.name for run in runs[:4])}'
