"""Makes a memory model and finetunes it on a stream of documents.

  python -m smft_jax.train --config=configs/docqa.py --workdir=runs/docqa

See README.md for what it writes and `smft_jax.config.experiment` for every setting.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from typing import Any

from absl import logging
from flax import nnx

from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.data import task as task_lib
from smft_jax.evaluation import health
from smft_jax.report import summary
from smft_jax.runs import background as background_lib
from smft_jax.runs import base as base_lib
from smft_jax.runs import finetune
from smft_jax.runs import measurements
from smft_jax.runs import model as model_lib
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import processes
from smft_jax.runtime import program
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import atomic
from smft_jax.store import records as records_lib
from smft_jax.store import tensorboard

_FLAGS = {
  'coordinator': command_line.Flag(
    default='', help='HOST:PORT of process 0; only where nothing tells it'
  ),
  'num_processes': command_line.Flag(
    default=0, help='how many processes there are'
  ),
  'process_id': command_line.Flag(default=-1, help='which one this is, from 0'),
  'limit_s': command_line.Flag(
    default=300.0, help='seconds to wait for the others'
  ),
}


def run(
  experiment: config_lib.Experiment,
  task: task_lib.Task,
  workdir: pathlib.Path,
) -> dict[str, Any]:
  """Does what the config says; the program without its command line.

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
    if experiment.stream is None:
      results = _measure_base(experiment, base, writer)
    else:
      results = finetune.run(experiment, base, workdir, writer)
    if experiment.background is not None:
      accesses = background_lib.background(experiment, base).accesses
      if accesses is not None:
        counts_N = layout_lib.to_numpy(accesses)
        results['memory_health'] = health.measure(counts_N)
  results['total_s'] = round(time.monotonic() - began, 1)
  results['environment'] = workdir_lib.versions()
  return results


def _measure_base(experiment, base, writer) -> dict[str, Any]:
  """Results of a run that has no stream.

  Of weights that were healed, 'before' is what they knew as they came.
  """
  sets, found = measurements.of_base(experiment, base)
  writer.write('evaluation', documents=0, metrics=found.metrics)
  path = experiment.base.path
  results = {
    'method': 'healing' if path else None,
    'seed': experiment.seed,
    'steps': experiment.base.steps if path else 0,
    'state_hash': base.fingerprint,
    'counts': base.task.counts,
  }
  if path:
    config = nnx.merge(base.graphdef, base.params).config
    came = sets.take_of(
      *model_lib.before_healing(path, config, experiment.seed)
    )
    return {
      **results,
      **sets.compare(came.metrics, found.metrics),
      'metrics_before': came.metrics,
      'metrics_after': found.metrics,
    }
  held_out = {}
  for name, values in found.metrics.items():
    metric = sets.headline(name)
    held_out[name] = {'metric': metric, 'before': values[metric]}
  return {**results, 'held_out': held_out, 'metrics_before': found.metrics}


def main(argv: list[str]) -> None:
  """The program."""
  invocation = command_line.parse(argv, _FLAGS)
  processes.initialize(**invocation.flags)
  experiment = config_lib.from_config_dict(invocation.config)
  if experiment.tensorboard:
    tensorboard.check()
  workdir = invocation.workdir
  # Before the workdir is touched: a mistake leaves nothing behind.
  task = base_lib.make_task(experiment)
  base_lib.check_cache(experiment)
  resumes = workdir_lib.prepare(workdir, experiment, argv)
  path = workdir / 'results.json'
  results = None
  if resumes:
    results = processes.on_main('results.json', _finished, path)
  if results is None:
    # As the file will hold it: what is not a number is null.
    results = atomic.to_json(run(experiment, task, workdir))
    atomic.write_json(path, results)
    if processes.is_main():
      # Drawing takes a while to import, and only this needs it.
      from smft_jax.report import run as report

      report.write_report(
        workdir,
        results,
        config_lib.to_dict(experiment),
        records_lib.read_records(workdir),
      )
  if processes.is_main():
    print('\n'.join(summary.lines(results)))
    print(f'results and report.html in {workdir}')


def _finished(path: pathlib.Path) -> dict[str, Any] | None:
  """The results, where the run has come to its end."""
  if not path.exists():
    return None
  logging.info('%s holds this run, finished', path.parent)
  return json.loads(path.read_text())


if __name__ == '__main__':
  sys.exit(program.run(main))
