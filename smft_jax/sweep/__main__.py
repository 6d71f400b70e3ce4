"""Runs every point of a sweep in one process, and compares them.

  python -m smft_jax.sweep --config=configs/pareto.py
  python -m smft_jax.sweep --config=configs/pareto.py --list
  python -m smft_jax.sweep --config=configs/pareto.py --point=7

`sweep.plan` describes how a config file defines points. The workdir gets:

  sweep.json           the plan
  points/NAME          config.json, metrics.jsonl, results.json; or error.txt
  table.csv            a row for each finished point, see `sweep.table`
  pareto.json, report.html and pareto.png, see `sweep.pareto.analysis`

The same command resumes an interrupted sweep: it retries failed points and
skips finished ones. `--point` runs one point only, for job arrays; a later run
without it writes the table and the report. Jobs that share a base should start
after one of them has made it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
import itertools
import json
import pathlib
import shutil
import sys
import time
import traceback
from typing import Any

from absl import logging
import jax

from smft_jax import schema
from smft_jax.config import command_line
from smft_jax.config import file as config_file
from smft_jax.data import task as task_lib
from smft_jax.runs import background_cache
from smft_jax.runs import base as base_lib
from smft_jax.runs import base_cache
from smft_jax.runs import finetune
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import claim
from smft_jax.runtime import program
from smft_jax.runtime import progress
from smft_jax.store import atomic
from smft_jax.store import records as records_lib
from smft_jax.store import tensorboard
from smft_jax.sweep import plan
from smft_jax.sweep import table
from smft_jax.sweep.pareto import analysis as pareto

_ABOUT = 'Runs all points of a sweep and compares them.'
_FLAGS = {
  'list': command_line.Flag(
    default=False, help='print index, state and name of each point'
  ),
  'point': command_line.Flag(
    default='', help='run only the point with this index'
  ),
}
# Linux limits a process to 65,530 memory maps. A program compiled for a CPU
# takes hundreds, and at the limit the compiler crashes.
_MAPS = pathlib.Path('/proc/self/maps')
_MOST_MAPS = 40_000
_NOTE = (
  'a setting applies to every point, except points that set it themselves,'
  ' such as a seed'
)


def run(
  points: Iterable[plan.Point],
  tasks: Mapping[Hashable, task_lib.Task],
  workdir: pathlib.Path,
  argv: Sequence[str] = (),
  forgetting: str = 'known',
) -> None:
  """Runs points; one that fails gets an error.txt and stops no others.

  Args:
    points: The points to run.
    tasks: Their data, from `plan.make_tasks`.
    workdir: An existing folder.
    argv: The command line, for config.json.
    forgetting: As in `table.row`, for the log.
  """
  points = plan.in_order(points)
  if not points:
    return
  bases = _Bases(tasks)
  groups = [
    list(group) for _, group in itertools.groupby(points, plan.base_key)
  ]
  # Bases come first, so that the estimate of time left is about points alone.
  # The first is made last, because the last one stays in memory.
  for group in reversed(groups):
    _prepare(group[0], tasks, workdir, argv)
    try:
      bases.find_or_make(group[0], workdir)
    except Exception as error:
      for point in group:
        _prepare(point, tasks, workdir, argv)
        _failed(point, workdir, error)
      points = [point for point in points if point not in group]
  with progress.Progress('sweep', len(points), 'point') as bar:
    for done, point in enumerate(points, start=1):
      mine = claim.Claim(workdir / f'.point-{point.index}.claim')
      if holder := mine.take():
        _log(f'{point.name}: left out, as {holder} works on it')
        continue
      with claim.held(mine):
        _prepare(point, tasks, workdir, argv)
        try:
          results = _run_point(point, bases, workdir)
        except Exception as error:
          _failed(point, workdir, error)
        else:
          _log(table.line(table.row(point, results, forgetting)))
      bar.update(done)


def gather(
  points: Sequence[plan.Point], workdir: pathlib.Path, report: Mapping[str, Any]
) -> list[str]:
  """Writes the table and the report of the finished points.

  Args:
    points: All points.
    workdir: The folder of the sweep.
    report: REPORT of the config file.

  Returns:
    The results as lines of text.
  """
  rows, failed = [], []
  for point in points:
    path = plan.folder_of(workdir, point) / 'results.json'
    if path.exists():
      results = json.loads(path.read_text())
      rows.append(table.row(point, results, pareto.forgetting(report)))
    else:
      failed.append(point.name)
  if not rows:
    return ['no point has finished']
  table.write_csv(workdir / 'table.csv', rows)
  pareto.write(rows, workdir, report, failed)
  analysis = json.loads((workdir / 'pareto.json').read_text())
  return [
    *table.equal_learning(analysis),
    f'table.csv and report.html in {workdir}',
  ]


def main(argv: list[str]) -> None:
  """Runs the program."""
  invocation = command_line.parse(argv, _FLAGS, _ABOUT, _NOTE)
  workdir = invocation.workdir
  points, report = plan.expand(invocation.config_file, invocation.config)
  forgetting = pareto.forgetting(report)
  chosen = _chosen(points, invocation.flags['point'])
  if any(point.experiment.tensorboard for point in chosen):
    tensorboard.check()
  if invocation.flags['list']:
    for point in chosen:
      state = plan.state_of(workdir, point)
      print(f'{point.index:>4}  {state:<6}  {point.name}')
    return
  # A mistake must be found before anything is written.
  to_do = [p for p in chosen if plan.state_of(workdir, p) != 'done']
  tasks = plan.make_tasks(to_do)
  _check_workdir(workdir, chosen, tasks)
  for point in to_do:
    background_cache.check(point.experiment.background)
    base_cache.check(point.experiment)
  workdir_lib.check_writable(workdir)
  atomic.write_json(
    workdir / 'sweep.json', plan.record(invocation.config_file, points, report)
  )
  for warning in plan.ignored_flags(argv, invocation.config, chosen):
    logging.warning('%s', warning)
  logging.info(
    '%d points, %d of them already done', len(chosen), len(chosen) - len(to_do)
  )
  run(to_do, tasks, workdir, argv, forgetting)
  if len(chosen) == len(points):
    print('\n'.join(gather(points, workdir, report)))
  failed = [p.name for p in chosen if plan.state_of(workdir, p) != 'done']
  if failed:
    print(
      f'{len(failed)} of {len(chosen)} points failed:'
      f' {", ".join(failed)}: see error.txt in {workdir / "points"}; the same'
      ' command tries again',
      file=sys.stderr,
    )
    raise SystemExit(1)


class _Bases:
  """Finds or makes bases, and keeps the last one in memory."""

  def __init__(self, tasks: Mapping[Hashable, task_lib.Task]):
    self._tasks = tasks
    self._key: Hashable = None
    self._base: base_lib.Base | None = None

  def find_or_make(
    self, point: plan.Point, workdir: pathlib.Path
  ) -> base_lib.Base:
    key = plan.base_key(point)
    if self._base is None or self._key != key:
      self._base, self._key = None, key
      folder = plan.folder_of(workdir, point)
      with records_lib.MetricsWriter(
        folder, tensorboard=point.experiment.tensorboard
      ) as writer:
        self._base = base_lib.find_or_make(
          point.experiment, self._tasks[plan.task_key(point)], writer
        )
    return self._base


def _run_point(
  point: plan.Point, bases: _Bases, workdir: pathlib.Path
) -> dict[str, Any]:
  """Runs a point from the start; returns what results.json holds."""
  began = time.monotonic()
  folder = plan.folder_of(workdir, point)
  base = bases.find_or_make(point, workdir)
  with records_lib.MetricsWriter(
    folder, tensorboard=point.experiment.tensorboard
  ) as writer:
    results = finetune.run(
      point.experiment, base, folder, writer, checkpoints=False, show=False
    )
  results['total_s'] = round(time.monotonic() - began, 1)
  results['environment'] = workdir_lib.versions()
  results = atomic.to_json(results)
  atomic.write_json(folder / 'results.json', results)
  _free_programs()
  return results


def _free_programs() -> None:
  """Drops compiled programs before the compiler runs out of memory maps."""
  if _MAPS.exists() and len(_MAPS.read_bytes().splitlines()) > _MOST_MAPS:
    jax.clear_caches()


def _prepare(
  point: plan.Point,
  tasks: Mapping[Hashable, task_lib.Task],
  workdir: pathlib.Path,
  argv: Sequence[str],
) -> None:
  """Makes the folder of an unfinished point, and its config.json."""
  folder = plan.folder_of(workdir, point)
  data = tasks[plan.task_key(point)].fingerprint
  try:
    workdir_lib.holds_run(folder, point.experiment, data)
  except schema.UserError:
    shutil.rmtree(folder)  # unfinished, with another config or other data
  workdir_lib.prepare(folder, point.experiment, argv, data)
  (folder / 'error.txt').unlink(missing_ok=True)


def _failed(point: plan.Point, workdir: pathlib.Path, error: Exception) -> None:
  path = plan.folder_of(workdir, point) / 'error.txt'
  atomic.write_text(path, ''.join(traceback.format_exception(error)))
  _log(f'{point.name}: failed: {schema.one_line(error)}')


def _log(line: str) -> None:
  """Logs a line; on a terminal, in place of the bar, which is redrawn below."""
  if sys.stderr.isatty():
    print('\r\x1b[K', end='', file=sys.stderr, flush=True)
  logging.info('%s', line)


def _chosen(points: Sequence[plan.Point], flag: str) -> Sequence[plan.Point]:
  """Returns all points, or the one that --point selects."""
  if not flag:
    return points
  index = schema.coerce(config_file.read_text(flag, int), int, '--point')
  if not 0 <= index < len(points):
    raise schema.UserError(
      f'--point={index} is out of range: there are {len(points)} points, from 0'
      f' to {len(points) - 1}'
    )
  return [points[index]]


def _check_workdir(
  workdir: pathlib.Path,
  points: Iterable[plan.Point],
  tasks: Mapping[Hashable, task_lib.Task],
) -> None:
  """Checks that the workdir belongs to this sweep.

  Args:
    workdir: The folder.
    points: The chosen points.
    tasks: The data of those that have not finished.

  Raises:
    UserError: If it holds a single run, or a point that finished with another
      config, or with other data than a point that is to be run.
  """
  if (workdir / 'config.json').exists():
    raise schema.UserError(
      f'workdir {workdir} holds a single run, not a sweep: choose another'
      ' --workdir'
    )
  for point in points:
    if plan.state_of(workdir, point) == 'done':
      task = tasks.get(plan.task_key(point))
      data = None if task is None else task.fingerprint
      folder = plan.folder_of(workdir, point)
      try:
        workdir_lib.holds_run(folder, point.experiment, data)
      except schema.UserError as error:
        raise schema.UserError(f'point {point.name!r}: {error}') from None


if __name__ == '__main__':
  sys.exit(program.run(main))
