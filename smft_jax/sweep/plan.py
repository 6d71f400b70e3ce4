"""The points of a sweep, as a config file defines them.

In addition to `get_config`, the config file defines `sweep(add)` or
`sweep(add, variant)`, which calls `add` once for each point:

  def sweep(add):
    for rate in (3.0, 10.0):
      add(f'rate={rate:g}', {'method.learning_rate': rate})

A point is the config with `overrides` applied; keys are those of the command
line without 'config.'. A point that sets `method.name` starts from the defaults
of that method. `add(name, overrides, ...)` takes, for the report:
- `method`: the name of the point's line; by default the method's;
- `panels`: the panels the point belongs to; by default ('front',);
- `x`: a number or text that places the point in its panels;
- `tuned`: how many points on the validation stream its settings were chosen
  from.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
import copy
import dataclasses
import pathlib
import re
from typing import Any

from ml_collections import config_dict

from smft_jax import methods
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from smft_jax.data import task as task_lib
from smft_jax.runs import base as base_lib
from smft_jax.runs import corpus


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """One run of a sweep.

  Attributes:
    index: Its place in the sweep, from 0.
    name: A unique name, also of its folder.
    overrides: The values it sets, by key without 'config.'.
    method: Its name in the report.
    panels: The panels of the report it belongs to.
    x: A number or text that places it in its panels.
    tuned: How many points its settings were chosen from.
    experiment: Its whole config.
  """

  index: int
  name: str
  overrides: Mapping[str, Any]
  method: str
  panels: tuple[str, ...]
  x: float | str | None
  tuned: int | None
  experiment: config_lib.Experiment


def expand(
  file: str, config: config_dict.ConfigDict
) -> tuple[list[Point], dict[str, Any]]:
  """Returns the points of a config file.

  Args:
    file: 'FILE.py' or 'FILE.py:variant'.
    config: The config of its `get_config` with the overrides of the command
      line; unchanged.

  Returns:
    The points, and REPORT of the config file without panels that have no point.

  Raises:
    UserError: If the file has no points, or the name or config of a point is
      wrong.
  """
  added: dict[str, dict[str, Any]] = {}

  def add(
    name: str,
    overrides: Mapping[str, Any],
    *,
    method: str | None = None,
    panels: tuple[str, ...] = ('front',),
    x: float | str | None = None,
    tuned: int | None = None,
  ) -> None:
    _check_name(name)
    if name in added:
      raise schema.UserError(
        f'two points are named {name!r}: names are folders and must be unique'
      )
    where = f'point {name!r}'
    if not isinstance(overrides, Mapping):
      raise schema.UserError(
        f"{where}: overrides must be a dict such as {{'seed': 1}}, not"
        f' {overrides!r}'
      )
    added[name] = {
      'overrides': dict(overrides),
      'method': schema.coerce(method, str | None, f'{where}: method'),
      'panels': schema.coerce(panels, tuple[str, ...], f'{where}: panels'),
      'x': x
      if isinstance(x, str)
      else schema.coerce(x, float | None, f'{where}: x'),
      'tuned': schema.coerce(tuned, int | None, f'{where}: tuned'),
    }

  report = config_file.sweep(file, add)
  if not added:
    raise schema.UserError(f'sweep of {file} adds no point')
  points = []
  for index, (name, point) in enumerate(added.items()):
    try:
      experiment = _experiment(config, point['overrides'])
    except schema.UserError as error:
      raise schema.UserError(f'point {name!r}: {error}') from None
    made = Point(index=index, name=name, experiment=experiment, **point)
    points.append(
      dataclasses.replace(made, method=made.method or _method(made).name)
    )
  if 'panels' in report:
    # Other panels are those of another variant.
    used = {panel for point in points for panel in point.panels}
    report['panels'] = {k: v for k, v in report['panels'].items() if k in used}
  return points, report


def make_tasks(points: Iterable[Point]) -> dict[Hashable, task_lib.Task]:
  """Loads each point's data, by `task_key`, and checks the points with it.

  Raises:
    ValueError: If data cannot be read or a model cannot be built.
  """
  tasks: dict[Hashable, task_lib.Task] = {}
  for point in points:
    experiment, key = point.experiment, task_key(point)
    try:
      if key not in tasks:
        tasks[key] = base_lib.make_task(experiment)
      if experiment.background is not None:
        corpus.find(experiment.background.corpus, tasks[key])
    except schema.UserError as error:
      raise schema.UserError(f'point {point.name!r}: {error}') from error
  return tasks


def task_key(point: Point) -> tuple[Hashable, ...]:
  """Points with the same key share their data."""
  experiment = point.experiment
  return experiment.data, experiment.model, experiment.memory


def base_key(point: Point) -> Hashable:
  """Points with the same key share their base."""
  return (point.experiment.seed, point.experiment.base, *task_key(point))


def in_order(points: Iterable[Point]) -> list[Point]:
  """Orders points so that they share the most work.

  Points of one base are consecutive, so that it is made once; among them those
  with the same measurements, so that the base is measured once; and among these
  those whose methods differ only in rates, so that they share a program.
  """
  seen: dict[Hashable, int] = {}

  def place(key: Hashable) -> int:
    return seen.setdefault(key, len(seen))

  def places(point: Point) -> tuple[int, ...]:
    experiment = point.experiment
    assert experiment.stream is not None
    method = methods.METHODS[_method(point).name].make(_method(point))
    measured = experiment.evaluation, experiment.stream.max_documents
    return place(base_key(point)), place(measured), place(method)

  return sorted(points, key=places)


def folder_of(workdir: pathlib.Path, point: Point) -> pathlib.Path:
  """Returns the folder of a point."""
  return workdir / 'points' / point.name


def state_of(workdir: pathlib.Path, point: Point) -> str:
  """Returns 'done', 'failed' or 'to do'."""
  folder = folder_of(workdir, point)
  if (folder / 'results.json').exists():
    return 'done'
  return 'failed' if (folder / 'error.txt').exists() else 'to do'


def ignored_flags(
  argv: Sequence[str], config: config_dict.ConfigDict, points: Sequence[Point]
) -> list[str]:
  """Returns warnings about flags that points override.

  Args:
    argv: The command line.
    config: The config that the points started from.
    points: The points.
  """
  usual = (config.get('method') or {}).get('name', 'sparse_memory')
  warnings = []
  for argument in argv:
    name = argument.lstrip('-').partition('=')[0]
    if not name.startswith('config.'):
      continue
    key = name.removeprefix('config.')
    of_method = key.startswith('method.')
    others = [
      point
      for point in points
      if key in point.overrides
      # Another method starts from its own defaults.
      or (of_method and _method(point).name != usual)
    ]
    if others:
      warnings.append(
        f'--{name} has no effect on {len(others)} of {len(points)} points,'
        ' which override it'
      )
  return warnings


def record(
  file: str, points: Iterable[Point], report: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns what sweep.json holds: the points without their whole configs."""
  keys = [field.name for field in dataclasses.fields(Point)]
  keys.remove('experiment')
  return {
    'config_file': file,
    'points': [{key: getattr(point, key) for key in keys} for point in points],
    'report': report,
  }


def _method(point: Point) -> config_lib.MethodConfig:
  """Returns the method's settings of a point."""
  assert point.experiment.method is not None
  return point.experiment.method


def _check_name(name: Any) -> None:
  is_text = isinstance(name, str)
  if not is_text or not re.fullmatch(r'[\w.,=+-]+', name):
    raise schema.UserError(
      f'point {name!r}: a name is a folder, of letters, digits and _.,=+-'
    )
  # File systems limit names to 255 bytes, of which write_text needs some.
  if not name.strip('.') or len(name.encode()) > 200:
    raise schema.UserError(f'point {name!r} is not usable as a folder name')


def _experiment(
  config: config_dict.ConfigDict, overrides: Mapping[str, Any]
) -> config_lib.Experiment:
  """Returns the config of a point."""
  config = copy.deepcopy(config)  # references stay references
  # The method first: the other settings are settings of it.
  for key in sorted(overrides, key=lambda key: key != 'method.name'):
    config_file.set_value(config, f'config.{key}', overrides[key])
  experiment = config_lib.from_config_dict(config)
  if experiment.stream is None:
    raise schema.UserError('config.stream is missing: nothing to learn')
  return experiment
