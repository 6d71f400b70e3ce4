"""Exports the model of a run as a Hugging Face folder.

  python -m smft_jax.export --workdir=runs/docqa --out=FOLDER

The folder holds the model and the tokenizer. A memory is in a file of its own,
beside the code that runs it in `transformers` (see `hf.save_model`); with
`--format=merged` a model that needs such code is refused. Adapters of LoRA are
added to the weights. `hf.load_model` reads the folder; if it has no memory,
another run can start from it with `--config.base.path=FOLDER`.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import sys

from flax import nnx

from smft_jax import hf
from smft_jax import schema
from smft_jax.methods import lora
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import program
from smft_jax.store import paths


def export(
  workdir: pathlib.Path, folder: pathlib.Path, *, merged: bool = False
) -> None:
  """Writes the model and tokenizer of a run, finished or stopped.

  Args:
    workdir: The run's folder. A run without a stream exports its base.
    folder: The folder to write; must not hold a checkpoint.
    merged: Whether the model must be an ordinary decoder, without memory.

  Raises:
    UserError: If there is no run, the folder cannot be written, or the format
      cannot hold the model, for instance with bottleneck adapters.
  """
  experiment = saved_run.load_experiment(workdir)
  if merged and experiment.has_memory:
    raise schema.UserError(
      f'the memory of the run in {workdir} cannot be merged: every token reads'
      ' rows of its own choice from a table, which no weights of an FFN do;'
      ' --format=hf keeps it, with the code that runs it in transformers'
    )
  base = saved_run.load_base(experiment, workdir)
  graphdef, params = base.graphdef, base.params
  if experiment.stream is not None:
    state = states.last_state(experiment, base, workdir)
    graphdef, params = state.graphdef, state.params
  source = experiment.base.path or None
  model = lora.merge_adapters(nnx.merge(graphdef, params))
  hf.save_model(model, folder, source)
  if source is None:
    base.tokenizer.write(folder)


def main(argv: Sequence[str]) -> None:
  """Runs the program."""
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.export',
    description='Exports the model of a run as a Hugging Face folder.',
  )
  parser.add_argument(
    '--workdir', required=True, type=paths.expand, help='workdir of a run'
  )
  parser.add_argument(
    '--out', required=True, type=paths.expand, help='folder to write'
  )
  parser.add_argument(
    '--format',
    choices=('hf', 'merged'),
    default='hf',
    help='hf: with its memory; merged: ordinary weights only, else refused',
  )
  arguments = parser.parse(argv)
  merged = arguments.format == 'merged'
  export(arguments.workdir, arguments.out, merged=merged)
  print(f'the model of {arguments.workdir} is in {arguments.out}')


if __name__ == '__main__':
  sys.exit(program.run(main))
