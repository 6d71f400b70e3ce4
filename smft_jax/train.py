"""Makes a memory model and finetunes it on a stream of documents.

  python -m smft_jax.train --config=configs/docqa.py --workdir=runs/docqa

`--print_config` prints every setting; README.md says what a run writes.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import pathlib
import sys
import time
from typing import Any

from absl import logging

from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.data import task as task_lib
from smft_jax.evaluation import health
from smft_jax.report import summary
from smft_jax.runs import background_cache
from smft_jax.runs import base as base_lib
from smft_jax.runs import base_cache
from smft_jax.runs import finetune
from smft_jax.runs import measurements
from smft_jax.runs import results as results_lib
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import processes
from smft_jax.runtime import program
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import atomic
from smft_jax.store import records as records_lib
from smft_jax.store import tensorboard

_ABOUT = 'Makes a memory model and finetunes it on a stream of documents.'
_FLAGS = command_line.PROCESSES


def run(
  experiment: config_lib.Experiment,
  task: task_lib.Task,
  workdir: pathlib.Path,
) -> dict[str, Any]:
  """Makes the base, finetunes and measures it: the program without its flags.

  Args:
    experiment: The config.
    task: Its data, from `base.make_task`.
    workdir: An existing folder; takes metrics.jsonl and checkpoints.

  Returns:
    The results, as in results.json.
  """
  began = time.monotonic()
  results: dict[str, Any]
  with records_lib.MetricsWriter(
    workdir, tensorboard=experiment.tensorboard
  ) as writer:
    base = base_lib.find_or_make(experiment, task, writer)
    saved_run.record_base(workdir, base)
    # Before the stream, which takes the base's arrays over.
    accesses = None
    if experiment.background is not None:
      accesses = states.count_background(experiment, base).accesses
    if experiment.stream is None:
      results = _measure_base(experiment, base, writer)
    else:
      results = finetune.run(
        experiment, base, workdir, writer, keeps_base=False
      )
    if accesses is not None:
      counts_N = layout_lib.to_numpy(accesses)
      results['memory_health'] = health.measure(counts_N)
  results['total_s'] = round(time.monotonic() - began, 1)
  results['environment'] = workdir_lib.versions()
  return results


def _measure_base(experiment, base, writer) -> dict[str, Any]:
  """Returns the results of a run without a stream."""
  sets = measurements.make(
    base,
    experiment.evaluation,
    max_documents=0,
    max_length=experiment.base.max_length,
    seed=experiment.seed,
  )
  measured = measurements.measure_base(sets, base)
  writer.write('evaluation', documents=0, metrics=measured.metrics)
  return results_lib.of_base(experiment, base, sets, measured)


def main(argv: list[str]) -> None:
  """Runs the program."""
  invocation = command_line.parse(argv, _FLAGS, _ABOUT)
  processes.initialize(**invocation.flags)
  experiment = config_lib.from_config_dict(invocation.config)
  if experiment.tensorboard:
    tensorboard.check()
  workdir = invocation.workdir
  # Checked before anything is written: a mistake leaves no files.
  task = base_lib.make_task(experiment)
  background_cache.check(experiment.background)
  with workdir_lib.claimed(workdir):
    base_cache.check(experiment)
    results = _run_or_resume(experiment, task, workdir, argv)
  if processes.is_main():
    print('\n'.join(summary.lines(results)))
    print(f'results and report.html in {workdir}')


def _run_or_resume(
  experiment: config_lib.Experiment,
  task: task_lib.Task,
  workdir: pathlib.Path,
  argv: Sequence[str],
) -> dict[str, Any]:
  """Makes results.json and the report, unless the workdir has them."""
  data = task.fingerprint
  resumes = workdir_lib.prepare(workdir, experiment, argv, data)
  path = workdir / 'results.json'
  results = None
  if resumes:
    results = processes.on_main('results.json', _finished, path)
  if results is None:
    try:
      found = run(experiment, task, workdir)
    except ValueError:
      if not resumes:
        workdir_lib.withdraw(workdir)
      raise
    # As the file holds them: null where a number is not finite.
    results = atomic.to_json(found)
    atomic.write_json(path, results)
    if processes.is_main():
      # Imported only here, because drawing is slow to import.
      from smft_jax.report import run as report

      report.write_report(
        workdir,
        results,
        config_lib.to_dict(experiment),
        records_lib.read_records(workdir),
      )
  return results


def _finished(path: pathlib.Path) -> dict[str, Any] | None:
  """Returns the results of a finished run, or None."""
  if not path.exists():
    return None
  logging.info('%s holds this run, finished', path.parent)
  return json.loads(path.read_text())


if __name__ == '__main__':
  sys.exit(program.run(main))
