"""Shows what a run's memory learned: which slots, how many, how healthy.

  python -m smft_jax.analyze --workdir=runs/docqa

It looks at a finished run of sparse memory finetuning, and writes beside it

  analysis.json     every number
  analysis.html     one page that answers in words and pictures
  heatmap-*.png     the heat maps, for papers

What the numbers are is said in `core_sets`, `sufficiency`, `alignment`,
`health` and `stream_health`.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from smft_jax import schema
from smft_jax.analyze import analysis as analysis_lib
from smft_jax.analyze import heat_map
from smft_jax.analyze import page as analysis_page
from smft_jax.analyze import words as analysis_words
from smft_jax.config import experiment as config_lib
from smft_jax.runs import finetune
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import program
from smft_jax.store import atomic
from smft_jax.store import records as records_lib


def run(workdir: pathlib.Path) -> dict[str, Any]:
  """Analyses the run in a workdir, and writes what it found there.

  Args:
    workdir: Where a run of `smft_jax.train` wrote.

  Returns:
    What analysis.json holds.

  Raises:
    UserError: If it holds no finished run of sparse memory finetuning.
  """
  experiment, results = _finished_run(workdir)
  workdir_lib.check_writable(workdir)
  base = workdir_lib.base_of(experiment)
  analysis = analysis_lib.analyse(
    experiment,
    base,
    finetune.first_state(experiment, base),
    finetune.last_state(experiment, base, workdir),
  )
  numbers = {'workdir': workdir.name, 'seed': experiment.seed}
  numbers |= atomic.to_json(analysis.numbers)
  if 'memory_health' in results:  # counted over more texts
    numbers['health']['usage'] = results['memory_health']
  atomic.write_json(workdir / 'analysis.json', numbers)
  maps = heat_map.choose(analysis.facts)
  heat_map.write_pictures(workdir, maps)
  analysis_page.write(
    workdir,
    numbers,
    maps,
    results,
    config_lib.to_dict(experiment),
    records_lib.read_records(workdir),
  )
  return numbers


def main(argv: list[str]) -> None:
  """The program."""
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.analyze',
    description="Shows what a run's memory learned.",
  )
  parser.add_argument(
    '--workdir', required=True, help='where a run of smft_jax.train wrote'
  )
  workdir = pathlib.Path(parser.parse(argv).workdir)
  print('\n'.join(analysis_words.headlines(run(workdir))))
  print(f'analysis.json, analysis.html and heat maps in {workdir}')


def _finished_run(workdir: pathlib.Path):
  """The config and results of a run that can be analysed."""
  experiment = workdir_lib.experiment_of(workdir)
  if experiment.method is None or experiment.stream is None:
    raise schema.UserError(f'the run in {workdir} streamed no documents')
  if experiment.method.name != 'sparse_memory':
    raise schema.UserError(
      f'the run in {workdir} is of method {experiment.method.name!r}, which'
      " chooses no slots; analyze looks at runs of 'sparse_memory'"
    )
  path = workdir / 'results.json'
  if not path.exists():
    raise schema.UserError(
      f'the run in {workdir} is not finished: the command that started it'
      ' resumes it'
    )
  try:
    return experiment, json.loads(path.read_text())
  except ValueError:
    raise schema.UserError(f'{path} is damaged') from None


if __name__ == '__main__':
  sys.exit(program.run(main))
