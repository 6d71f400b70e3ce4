"""Reads what an earlier run left: its config, its base, its measurements."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import tempfile
from typing import Any

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import task as task_lib
from smft_jax.runs import base as base_lib
from smft_jax.runs import base_cache
from smft_jax.runs import measurements
from smft_jax.runtime import processes
from smft_jax.store import atomic
from smft_jax.store import records as records_lib

_BASE, _ANSWERS = 'base.json', 'outputs_before.json'


def load_experiment(workdir: pathlib.Path) -> config_lib.Experiment:
  """Reads the config of the run in a workdir, without its mesh.

  Raises:
    UserError: If there is no run, or its config cannot be read.
  """
  path = workdir / 'config.json'
  try:
    record = json.loads(path.read_text())
  except FileNotFoundError:
    raise schema.UserError(
      f'{workdir} holds no run{_other_runs(workdir)}'
    ) from None
  except ValueError:
    record = None
  if not isinstance(record, dict):
    raise schema.UserError(f'{path} is damaged')
  if 'config' not in record:  # of a model
    raise schema.UserError(
      f'{workdir} holds no run: its config.json is of something else'
      f'{_other_runs(workdir)}'
    )
  experiment = config_lib.from_config_dict(record['config'])
  return dataclasses.replace(experiment, mesh=None)


def record_base(workdir: pathlib.Path, base: base_lib.Base) -> None:
  """Writes the name of a run's base into its workdir, for `load_base`.

  The name is a hash of the data, which takes long to read.
  """
  atomic.write_json(workdir / _BASE, {'base': base.folder.name})


def load_base(
  experiment: config_lib.Experiment, workdir: pathlib.Path
) -> base_lib.Base:
  """Reads the base of a run from the cache, or makes it again.

  Data is read only if the base must be made, or when its `task` is asked for.

  Args:
    experiment: The run's config.
    workdir: Its folder.
  """
  read_task = functools.partial(base_lib.make_task, experiment)
  name = _recorded(workdir)
  if name:
    place = base_cache.root(experiment) / name
    found = base_lib.find(experiment, place, read_task)
    if found is not None:
      return found
  return make_base(experiment, read_task())


def make_base(
  experiment: config_lib.Experiment, task: task_lib.Task
) -> base_lib.Base:
  """Reads a base from the cache, or makes it without a workdir.

  Args:
    experiment: The config.
    task: Its data, from `base.make_task`.
  """
  with (
    tempfile.TemporaryDirectory() as folder,
    records_lib.MetricsWriter(folder) as writer,
  ):
    return base_lib.find_or_make(experiment, task, writer)


def record_answers(
  workdir: pathlib.Path, before: measurements.Measured
) -> None:
  """Writes the base's answers; metrics.jsonl has what else was measured."""
  atomic.write_json(workdir / _ANSWERS, before.answers)


def measured_base(workdir: pathlib.Path) -> measurements.Measured | None:
  """Reads what an earlier start of a run measured of its base.

  Measuring a base may take longer than a lesson, and a run that resumes, on
  machines that are taken away, would do it each time.

  Args:
    workdir: The folder of the run.

  Returns:
    The measurements; None if the run did not come so far, or a number was NaN,
    for which JSON has no word.
  """
  found = processes.on_main('measurements of the base', _read_base, workdir)
  if found is None:
    return None
  recall = dict(found['document_recall'])
  return measurements.Measured(**{**found, 'document_recall': recall})


def _read_base(workdir: pathlib.Path) -> dict[str, Any] | None:
  records = records_lib.read_records(workdir)
  first = next((r for r in records if r['event'] == 'evaluation'), None)
  if first is None or first['documents']:
    return None
  try:
    answers = json.loads((workdir / _ANSWERS).read_text())
  except (FileNotFoundError, ValueError):
    return None
  numbers = [v for one in first['metrics'].values() for v in one.values()]
  if None in numbers:
    return None
  keys = ('metrics', 'document_recall')
  return {'answers': answers, **{key: first[key] for key in keys}}


def _recorded(workdir: pathlib.Path) -> str:
  """Returns what `record_base` wrote; '' without it."""
  path = workdir / _BASE
  try:
    return str(json.loads(path.read_text())['base'])
  except FileNotFoundError:
    return ''
  except (ValueError, KeyError, TypeError):
    raise schema.UserError(
      f'{path} is damaged; remove it to find the base by its data'
    ) from None


def _other_runs(workdir: pathlib.Path) -> str:
  """Names the runs next to a workdir, for the end of an error message."""
  files = workdir.parent.glob('*/config.json')
  runs = sorted(file.parent for file in files if _is_of_run(file))
  if not runs:
    return ''
  close = schema.nearest(workdir.name, [run.name for run in runs])
  if close:
    return f'; did you mean {workdir.parent / close}?'
  return f'; {workdir.parent} has {", ".join(run.name for run in runs[:4])}'


def _is_of_run(file: pathlib.Path) -> bool:
  """Returns whether a config.json is that of a run; models have one, too."""
  try:
    return 'config' in json.loads(file.read_text())
  except (OSError, ValueError, TypeError):
    return False
