"""The decoder that a config describes, and how it lies on a mesh."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib
import pathlib

from flax import nnx
import jax

from smft_jax import hf
from smft_jax import memory
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.models import layers
from smft_jax.models import transformer
from smft_jax.runtime import processes
from smft_jax.sharded import layout as layout_lib


def check(
  experiment: config_lib.Experiment,
  devices: Sequence[jax.Device] | None = None,
) -> None:
  """Checks that the model can be built, on these devices or on all.

  Raises:
    UserError: If it cannot.
  """
  try:
    config_of(experiment, 2, devices)
  except ValueError as error:
    raise config_lib.UserError(
      f'config.model, config.memory or config.mesh does not fit: {error}'
    ) from error


def config_of(
  experiment: config_lib.Experiment,
  vocab_size: int,
  devices: Sequence[jax.Device] | None = None,
) -> layers.TransformerConfig:
  """The decoder that the config describes, on these devices or on all.

  Args:
    experiment: The config.
    vocab_size: Of the tokenizer; weights that are loaded have one of their own.
    devices: Those of a mesh.
  """
  layout = _layout(experiment, devices)
  model = experiment.model
  settings = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
  if experiment.base.path:
    weights = hf.load_config(experiment.base.path)
    settings = vars(weights) | settings
  else:
    settings['vocab_size'] = vocab_size
  if model.memory_layers:
    settings['memory'] = memory.MemoryConfig(
      model_dim=settings['model_dim'],
      dtype=model.dtype,
      layout=layout,
      **dataclasses.asdict(experiment.memory),
    )
  return layers.TransformerConfig(**settings)


def _layout(
  experiment: config_lib.Experiment, devices: Sequence[jax.Device] | None
) -> layout_lib.Layout | None:
  """How the model lies on the mesh that the config asks for."""
  wanted = experiment.mesh
  if processes.count() > 1:
    _check_all_are_used(wanted, jax.device_count())
  if wanted is None:
    return None
  mesh = layout_lib.make_mesh(
    wanted.data, wanted.fsdp, wanted.memory, devices=devices
  )
  return layout_lib.make_layout(mesh, wanted.split, wanted.subkeys)


def _check_all_are_used(
  wanted: config_lib.MeshConfig | None, devices: int
) -> None:
  """Raises a UserError if a process would have nothing to do."""
  taken = wanted.data * wanted.fsdp * wanted.memory if wanted else 1
  if taken != devices:
    raise config_lib.UserError(
      f'config.mesh takes {taken} of the {devices} devices of'
      f' {processes.count()} processes, which must take all: for one,'
      f' --config.mesh.data={devices}'
    )


def before_healing(
  path: str, config: layers.TransformerConfig, seed: int
) -> tuple[nnx.GraphDef, nnx.State]:
  """The model of a folder as it came, on the mesh of the one made of it.

  Args:
    path: The folder.
    config: Of the model with memory.
    seed: What the memory's parameters are drawn from.

  Returns:
    The model, its memory beside the FFNs and not heard yet, and its Variables.
  """
  config = dataclasses.replace(config, memory_placement='beside')
  graphdef, fresh = transformer.make(config, seed)
  return graphdef, hf.load_params(path, fresh)


def digest(path: str) -> str:
  """A hash of all that a base takes from a folder."""
  folder = pathlib.Path(path)
  files = [*folder.glob('*.json'), *folder.glob('*.safetensors')]
  found = hashlib.sha256()
  for file in sorted(files):
    found.update(f'{file.name} {file.stat().st_size}\0'.encode())
    with file.open('rb') as contents:
      found.update(hashlib.file_digest(contents, 'sha256').digest())
  return found.hexdigest()


def check_weights(path: str, task: task_lib.Task, words: bool) -> None:
  """Checks that a folder can be used, as far as that shows without its weights.

  Args:
    path: The folder.
    task: The data of the run.
    words: Whether its texts are made of few words, all of which the tokenizer
      must know.

  Raises:
    UserError: If it cannot: the line names the file.
  """
  config = hf.load_config(path)
  if config.memory is not None:
    raise schema.UserError(
      f'config.base.path: {path} has memory layers already, in'
      ' memory.safetensors; what can be healed is a model without'
    )
  rows, found = config.vocab_size, tokenizers.read(pathlib.Path(path))
  ids = found.inner.get_vocab(with_added_tokens=True).values()
  if max(ids) >= rows:
    raise schema.UserError(
      f'{path}: tokenizer.json has ids up to {max(ids)}, and config.json'
      f' vocab_size = {rows}: it is the tokenizer of another vocabulary'
    )
  if not words:
    return
  for word in sorted(set(' '.join(task.vocabulary_texts()).split())):
    if found.decode(found.encode(word)).replace(' ', '') != word:
      raise schema.UserError(
        f'{path}: tokenizer.json cannot spell {word!r}, which is in the texts'
        ' of config.data: it is the tokenizer of another vocabulary'
      )
