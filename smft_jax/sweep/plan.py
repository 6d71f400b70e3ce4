"""The points of a sweep: what a config file adds, checked and put in order.

Beside its `get_config` a config file defines `sweep(add)`, or
`sweep(add, variant)`, which calls `add` once for every point:

  def sweep(add):
    for rate in (3.0, 10.0):
      add(f'rate={rate:g}', {'method.learning_rate': rate})

A point is the config with `overrides` on top, keys as on the command line but
without 'config.'. A point that sets `method.name` starts from the defaults of
that method. `add(name, overrides, ...)` takes, for the report:
- `method`: what the point's line is called; the method's name unless given;
- `panels`: the pictures it belongs to; ('front',) unless given;
- `x`: a number or text that places it in its panels;
- `tuned`: from how many points on the validation stream its settings were
  chosen.
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
from smft_jax.runs import background as background_lib
from smft_jax.runs import base as base_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """One run of a sweep.

  Attributes:
    index: its place in the sweep, from 0.
    name: its own; also the name of its folder.
    overrides: what it sets, by key without 'config.'.
    method: what it is called in the report.
    panels: the pictures it belongs to.
    x: what places it in its panels, a number or text.
    tuned: from how many points its settings were chosen.
    experiment: its whole config.
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
  """The points that a config file adds to its config.

  Args:
    file: 'FILE.py' or 'FILE.py:variant'.
    config: what its `get_config` built, the command line's overrides applied;
      left as it is.

  Returns:
    The points, and REPORT of the config file, without panels that no point is
    in.

  Raises:
    UserError: in one line, for a file without points, or a point whose name or
      config is wrong.
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
        f'two points are named {name!r}: a name is a folder, so each needs its'
        ' own'
      )
    of = f'point {name!r}'
    if not isinstance(overrides, Mapping):
      raise schema.UserError(
        f"{of}: overrides must be a dict such as {{'seed': 1}}, not"
        f' {overrides!r}'
      )
    added[name] = {
      'overrides': dict(overrides),
      'method': schema.coerce(method, str | None, f'{of}: method'),
      'panels': schema.coerce(panels, tuple[str, ...], f'{of}: panels'),
      'x': x
      if isinstance(x, str)
      else schema.coerce(x, float | None, f'{of}: x'),
      'tuned': schema.coerce(tuned, int | None, f'{of}: tuned'),
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
    # Another variant's panels are none of this one's.
    used = {panel for point in points for panel in point.panels}
    report['panels'] = {k: v for k, v in report['panels'].items() if k in used}
  return points, report


def make_tasks(points: Iterable[Point]) -> dict[Hashable, task_lib.Task]:
  """The data of points, by `task_key`; also checks what hangs on it.

  Raises:
    ValueError: if data cannot be read, or a model cannot be built.
  """
  tasks: dict[Hashable, task_lib.Task] = {}
  for point in points:
    experiment, key = point.experiment, task_key(point)
    try:
      if key not in tasks:
        tasks[key] = base_lib.make_task(experiment)
      if experiment.background is not None:
        background_lib.texts_of(experiment, tasks[key])
    except schema.UserError as error:
      raise schema.UserError(f'point {point.name!r}: {error}') from error
  return tasks


def task_key(point: Point) -> tuple[Hashable, ...]:
  """Points of one key share their data."""
  experiment = point.experiment
  return experiment.data, experiment.model, experiment.memory


def base_key(point: Point) -> Hashable:
  """Points of one key share their base."""
  return (point.experiment.seed, point.experiment.base, *task_key(point))


def in_order(points: Iterable[Point]) -> list[Point]:
  """Points as they are best run.

  Those of one base come together, as it is made once; in them those that
  measure the same, as the base is measured once; and in these those whose
  methods differ only in their rates, as they share what the method makes first.
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
  """Where a point writes."""
  return workdir / 'points' / point.name


def state_of(workdir: pathlib.Path, point: Point) -> str:
  """'done', 'failed' or 'to do'."""
  folder = folder_of(workdir, point)
  if (folder / 'results.json').exists():
    return 'done'
  return 'failed' if (folder / 'error.txt').exists() else 'to do'


def unheard(
  argv: Sequence[str], config: config_dict.ConfigDict, points: Sequence[Point]
) -> list[str]:
  """Says which settings of the command line points replace by their own.

  Args:
    argv: the command line.
    config: what the points started from.
    points: the points.
  """
  usual = (config.get('method') or {}).get('name', 'sparse_memory')
  told = []
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
      # Another method began with its own defaults.
      or (of_method and _method(point).name != usual)
    ]
    if others:
      told.append(
        f'--{name} does not reach {len(others)} of {len(points)} points, which'
        ' set it or the method themselves'
      )
  return told


def record(
  file: str, points: Iterable[Point], report: Mapping[str, Any]
) -> dict[str, Any]:
  """The plan as sweep.json has it: without the points' whole configs."""
  keys = [field.name for field in dataclasses.fields(Point)]
  keys.remove('experiment')
  return {
    'config_file': file,
    'points': [{key: getattr(point, key) for key in keys} for point in points],
    'report': report,
  }


def _method(point: Point) -> config_lib.MethodConfig:
  """The settings of a point's method; a point with a stream has one."""
  assert point.experiment.method is not None
  return point.experiment.method


def _check_name(name: Any) -> None:
  is_text = isinstance(name, str)
  if not is_text or not re.fullmatch(r'[\w.,=+-]+', name):
    raise schema.UserError(
      f'point {name!r}: a name is a folder, of letters, digits and _.,=+-'
    )
  # File systems end a name at 255 bytes, and write_text needs some of them.
  if not name.strip('.') or len(name.encode()) > 200:
    raise schema.UserError(f'point {name!r}: this cannot be a folder')


def _experiment(
  config: config_dict.ConfigDict, overrides: Mapping[str, Any]
) -> config_lib.Experiment:
  """The config of a point."""
  config = copy.deepcopy(config)  # references stay references
  # The method first: what else is said of it is meant for that one.
  for key in sorted(overrides, key=lambda key: key != 'method.name'):
    config_file.set_value(config, f'config.{key}', overrides[key])
  experiment = config_lib.from_config_dict(config)
  if experiment.stream is None:
    raise schema.UserError(
      'config.stream is missing, so that there is nothing to learn'
    )
  return experiment
