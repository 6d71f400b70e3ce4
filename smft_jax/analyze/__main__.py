"""Analyses what a run's memory learned: which slots, how many, how healthy.

  python -m smft_jax.analyze --workdir=runs/docqa

Reads a finished run of sparse memory finetuning, and writes to its workdir

  analysis.json     every number
  analysis.html     one page with tables, plots and heat maps
  heatmap-*.png     the heat maps, for papers

The measures are defined in `core_sets`, `sufficiency`, `alignment`, `health`
and `stream_health`.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from smft_jax import schema
from smft_jax.analyze import analysis
from smft_jax.analyze import heat_map
from smft_jax.analyze import page
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import program
from smft_jax.store import atomic
from smft_jax.store import paths


def run(workdir: pathlib.Path) -> dict[str, Any]:
  """Analyses the run in a workdir, and writes the results there.

  Args:
    workdir: Workdir of a run of `smft_jax.train`.

  Returns:
    The content of analysis.json.

  Raises:
    UserError: If it holds no finished run of sparse memory finetuning.
  """
  experiment, results = _finished_run(workdir)
  workdir_lib.check_writable(workdir)
  base = saved_run.load_base(experiment, workdir)
  first = states.first_state(experiment, base)
  last = states.last_state(experiment, base, workdir)
  found, facts = analysis.analyse(experiment, base, first, last)
  numbers = {'workdir': workdir.name, 'seed': experiment.seed}
  numbers |= atomic.to_json(found)
  if 'memory_health' in results:  # counted on more texts
    numbers['health']['usage'] = results['memory_health']
  atomic.write_json(workdir / 'analysis.json', numbers)
  maps = heat_map.choose(facts)
  heat_map.write_pictures(workdir, maps)
  page.write(workdir, numbers, maps)
  return numbers


def main(argv: list[str]) -> None:
  """Runs the program."""
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.analyze',
    description="Analyses what a run's memory learned.",
  )
  parser.add_argument(
    '--workdir', required=True, help='workdir of a run of smft_jax.train'
  )
  workdir = paths.expand(parser.parse(argv).workdir)
  for name, value in page.summary(run(workdir)):
    print(f'{value:>12}  {name}')
  print(f'analysis.json, analysis.html and heat maps are in {workdir}')


def _finished_run(workdir: pathlib.Path):
  """Returns the config and results of a run that can be analysed."""
  experiment = saved_run.load_experiment(workdir)
  if experiment.method is None or experiment.stream is None:
    raise schema.UserError(f'the run in {workdir} streamed no documents')
  if not experiment.method.ranks_slots:
    raise schema.UserError(
      f'the run in {workdir} used method {experiment.method.name!r}, which'
      " chooses no slots; analyze takes runs of 'sparse_memory'"
    )
  path = workdir / 'results.json'
  if not path.exists():
    raise schema.UserError(
      f'the run in {workdir} is not finished; resume it with the command that'
      ' started it'
    )
  try:
    return experiment, json.loads(path.read_text())
  except ValueError:
    raise schema.UserError(f'{path} is damaged') from None


if __name__ == '__main__':
  sys.exit(program.run(main))
