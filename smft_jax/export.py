"""Writes what a run made as a Hugging Face folder.

  python -m smft_jax.export --workdir=runs/docqa --out=FOLDER

The folder has the model as the run left it, its memory in a file of its own
(see `hf.save_model`), and the tokenizer: that of the folder of weights, where
the run began with one. `hf.load_model` reads it; another run begins with it by
`--config.base.path=FOLDER`, if it has no memory yet.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import sys

from flax import nnx

from smft_jax import hf
from smft_jax.runs import finetune
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import program


def export(workdir: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes the model of a run, finished or stopped, and its tokenizer.

  Args:
    workdir: The run's. One without a stream has its base.
    folder: Made if it is not there; must have no checkpoint in it.

  Raises:
    ValueError: If there is no run, the folder cannot be written, or no
      checkpoint of this form can hold the model, such as one with adapters.
  """
  experiment = workdir_lib.experiment_of(workdir)
  base = workdir_lib.base_of(experiment)
  graphdef, params = base.graphdef, base.params
  if experiment.stream is not None:
    state = finetune.last_state(experiment, base, workdir)
    graphdef, params = state.graphdef, state.params
  source = experiment.base.path or None
  hf.save_model(nnx.merge(graphdef, params), folder, source)
  if source is None:
    base.tokenizer.write(folder)


def main(argv: Sequence[str]) -> None:
  """The program."""
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.export',
    description='Writes what a run made as a Hugging Face folder.',
  )
  parser.add_argument('--workdir', required=True, type=pathlib.Path)
  parser.add_argument('--out', required=True, type=pathlib.Path)
  arguments = parser.parse(argv)
  export(arguments.workdir, arguments.out)
  print(f'the model of {arguments.workdir} is in {arguments.out}')


if __name__ == '__main__':
  sys.exit(program.run(main))
