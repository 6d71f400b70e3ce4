"""Builds the decoder of a config, on one device or on a mesh."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib
import os

from flax import nnx
import jax

from smft_jax import hf
from smft_jax import memory
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.data import task as task_lib
from smft_jax.models import build
from smft_jax.models import layers
from smft_jax.runtime import processes
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import paths


def check(
  experiment: config_lib.Experiment,
  devices: Sequence[jax.Device] | None = None,
) -> None:
  """Checks that the model can be built on these devices; None takes all.

  Raises:
    UserError: If it cannot.
  """
  try:
    config_of(experiment, 2, devices)
  except ValueError as error:
    raise schema.UserError(
      f'config.model, config.memory or config.mesh does not fit: {error}'
    ) from error


def config_of(
  experiment: config_lib.Experiment,
  vocab_size: int,
  devices: Sequence[jax.Device] | None = None,
) -> layers.TransformerConfig:
  """Returns the sizes of the decoder that a config describes.

  Args:
    experiment: The config.
    vocab_size: Tokens of the tokenizer; not used if weights are loaded.
    devices: Devices of the mesh; None takes all.
  """
  layout = _layout(experiment, devices)
  model = experiment.model
  settings = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
  if experiment.base.path:
    settings = vars(hf.load_config(experiment.base.path)) | settings
  else:
    settings['vocab_size'] = vocab_size
  if not model.memory_layers and experiment.has_memory:
    # Reading at a quarter of the depth generalises best to other phrasings.
    settings['memory_layers'] = (settings['num_layers'] // 4,)
  if experiment.has_memory:
    settings['memory'] = memory.MemoryConfig(
      model_dim=settings['model_dim'],
      layout=layout,
      **dataclasses.asdict(experiment.memory),
    )
  return layers.TransformerConfig(**settings)


def _layout(
  experiment: config_lib.Experiment, devices: Sequence[jax.Device] | None
) -> layout_lib.Layout | None:
  """Returns the layout on the config's mesh; None without one."""
  mesh = experiment.mesh
  if processes.count() > 1:
    _check_all_are_used(mesh, jax.device_count())
  if mesh is None:
    return None
  made = layout_lib.make_mesh(
    mesh.data, mesh.fsdp, mesh.memory, devices=devices
  )
  return layout_lib.make_layout(made, mesh.split, mesh.subkeys)


def _check_all_are_used(mesh: sections.MeshConfig | None, devices: int) -> None:
  """Raises a UserError if a process would have nothing to do."""
  used = mesh.data * mesh.fsdp * mesh.memory if mesh else 1
  if used != devices:
    raise schema.UserError(
      f'config.mesh takes {used} of the {devices} devices of'
      f' {processes.count()} processes, but must take all: for instance'
      f' --config.mesh.data={devices}'
    )


def before_healing(
  path: str, config: layers.TransformerConfig, seed: int
) -> tuple[nnx.GraphDef, nnx.State]:
  """Loads the weights of a checkpoint, with a memory that adds nothing yet.

  Args:
    path: The Hugging Face folder or GGUF file.
    config: Sizes of the model with memory, which is placed beside the FFNs.
    seed: Seed of the memory's parameters.

  Returns:
    The model and its Variables, on the mesh of `config`.
  """
  config = dataclasses.replace(config, memory_placement='beside')
  graphdef, fresh = build.make(config, seed)
  return graphdef, hf.load_params(path, fresh)


def digest(path: str) -> str:
  """Returns a hash of the weights' files that a base is made from."""
  given = paths.expand(path)
  kinds = '*.json', '*.jinja', '*.safetensors'
  files = [file for kind in kinds for file in given.glob(kind)]
  if given.is_file():  # a GGUF, by any name
    files = [given]
  found = hashlib.sha256()
  for file in sorted(files):
    name = '' if file == given else file.name
    found.update(os.fsencode(f'{name} {file.stat().st_size}\0'))
    with file.open('rb') as contents:
      found.update(hashlib.file_digest(contents, 'sha256').digest())
  return found.hexdigest()


def check_weights(path: str, task: task_lib.Task, words: bool) -> None:
  """Checks that a checkpoint can be healed, without reading its weights.

  Args:
    path: The Hugging Face folder or GGUF file.
    task: The run's data.
    words: Whether the tokenizer must be able to spell every word of the texts.

  Raises:
    UserError: If it cannot; the line names the file.
  """
  config = hf.load_config(path)
  if config.memory is not None:
    raise schema.UserError(
      f'config.base.path: {path} has memory layers already;'
      ' only a model without memory can be healed'
    )
  hf.check(path)
  rows, found = config.vocab_size, hf.load_tokenizer(path)
  added = found.inner.get_added_tokens_decoder()
  beyond = [
    i
    for i in found.inner.get_vocab(with_added_tokens=True).values()
    # No text makes a special token, so the model may lack a row for it.
    if i >= rows and not (i in added and added[i].special)
  ]
  beyond += [i for i in (*found.beginning, found.eos_id) if i >= rows]
  if beyond:
    raise schema.UserError(
      f'{path}: its tokenizer has ids up to {max(beyond)}, but the model has'
      f' vocab_size = {rows}: it is the tokenizer of another vocabulary'
    )
  if not words:
    return
  for word in sorted(set(' '.join(task.vocabulary_texts()).split())):
    if found.decode(found.encode(word)).replace(' ', '') != word:
      raise schema.UserError(
        f'{path}: its tokenizer cannot spell {word!r}, which is in the texts'
        ' of config.data: it is the tokenizer of another vocabulary'
      )
