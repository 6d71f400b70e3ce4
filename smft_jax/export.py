"""Exports the model of a run as a Hugging Face folder.

  python -m smft_jax.export --workdir=runs/docqa --out=FOLDER

The folder holds the model and the tokenizer. A memory is in a file of its own,
beside the code that runs it in `transformers` (see `hf.save_model`). Adapters
of LoRA are added to the weights. `--format=merged` writes ordinary weights
only: it leaves out a memory that holds nothing and refuses any other.

`hf.load_model` reads the folder; if it has no memory, another run can start
from it with `--config.base.path=FOLDER`.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
import sys

from flax import nnx
import jax.numpy as jnp

from smft_jax import hf
from smft_jax import schema
from smft_jax.methods import lora
from smft_jax.models import transformer
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
    merged: Whether to write ordinary weights only.

  Raises:
    UserError: If there is no run, the folder cannot be written, or the format
      cannot hold the model, for instance with bottleneck adapters.
  """
  experiment = saved_run.load_experiment(workdir)
  base = saved_run.load_base(experiment, workdir)
  graphdef, params = base.graphdef, base.params
  if experiment.stream is not None:
    state = states.last_state(experiment, base, workdir)
    graphdef, params = state.graphdef, state.params
  source = experiment.base.path or None
  model = lora.merge_adapters(nnx.merge(graphdef, params))
  if merged:
    model = without_memory(model)
  hf.save_model(model, folder, source)
  if source is None:
    base.tokenizer.write(folder)


def without_memory(model: transformer.Transformer) -> transformer.Transformer:
  """Drops a memory that adds nothing, since its table is all zeros.

  Returns:
    A model with the same outputs, which shares the other parameters.

  Raises:
    UserError: If the memory adds something or is in place of an FFN.
  """
  config = model.config
  if config.memory is None:
    return model
  why = ''
  if config.memory_placement == 'replace':
    why = 'it is in place of a feed-forward layer'
  elif jnp.any(model.pool[...]):
    why = 'it was taught, and every token reads rows of its own choice'
  if why:
    raise schema.UserError(
      f'the memory cannot be merged into ordinary weights: {why};'
      ' --format=hf keeps it, with the code that runs it in transformers'
    )
  plain = dataclasses.replace(config, memory=None, memory_layers=())
  graphdef, shapes = nnx.split(
    nnx.eval_shape(lambda: transformer.Transformer(plain, rngs=nnx.Rngs(0)))
  )
  kept = dict(nnx.to_flat_state(nnx.state(model)))
  return nnx.merge(graphdef, nnx.map_state(lambda path, _: kept[path], shapes))


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
    help='hf: with its memory; merged: ordinary weights only, or refused',
  )
  arguments = parser.parse(argv)
  merged = arguments.format == 'merged'
  export(arguments.workdir, arguments.out, merged=merged)
  print(f'the model of {arguments.workdir} is in {arguments.out}')


if __name__ == '__main__':
  sys.exit(program.run(main))
