"""What the metadata of memory.safetensors says about a model's memory.

The layers of a `TransformerConfig` share one table. Those that `retrofit` added
have a table each, at the path of the block that they were added to.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, Literal

from flax import nnx

from smft_jax import memory as memory_lib
from smft_jax import retrofit
from smft_jax import schema
from smft_jax.hf import files as hf_files
from smft_jax.hf import tensors as hf_tensors
from smft_jax.models import layers
from smft_jax.models import transformer
from smft_jax.store import paths

# Key of the metadata that holds a `Memory`.
KEY = 'smft_jax'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrofitted:
  """Memory layers with a table each.

  Attributes:
    memory: Their sizes.
    paths: The modules that they were added to, such as 'blocks/7/mlp'.
    placement: As in `retrofit.add_memory`.
  """

  memory: memory_lib.MemorySizes
  paths: tuple[str, ...]
  placement: Literal['replace', 'beside']

  @property
  def replaced_layers(self) -> tuple[int, ...]:
    """The blocks that have no FFN any more."""
    if self.placement == 'beside':
      return ()
    return tuple(int(path.split('/')[1]) for path in self.paths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory(layers.DecoderOptions):
  """The part of a model that config.json does not hold.

  Attributes:
    memory: Sizes of layers that share a table, at `memory_layers`.
    retrofitted: Layers with a table each.
  """

  memory: memory_lib.MemorySizes | None = None
  retrofitted: Retrofitted | None = None


def read(folder: str | os.PathLike) -> Memory:
  """Reads the metadata of a checkpoint's memory, if it has any.

  Raises:
    UserError: If the file is damaged or describes no memory.
  """
  file = paths.expand(folder) / hf_tensors.MEMORY
  if not file.exists():
    return Memory()
  with hf_files.opened(file) as opened:
    text = (opened.metadata() or {}).get(KEY, 'null')
  try:
    return schema.build(json.loads(text), Memory, KEY)
  except ValueError as error:
    raise misfit(folder, error) from None


def misfit(folder: str | os.PathLike, error: ValueError) -> schema.UserError:
  """Returns the error for a memory that the model cannot have."""
  return schema.UserError(
    f'{paths.expand(folder) / hf_tensors.MEMORY}: the memory in its metadata'
    f' does not fit the model: {schema.one_line(error)}'
  )


def describe(
  config: layers.TransformerConfig, retrofitted: Retrofitted | None
) -> dict[str, Any]:
  """Returns a `Memory` as the metadata holds it."""
  memory = None if config.memory is None else _sizes(config.memory)
  return {
    'memory': memory and dataclasses.asdict(memory),
    'memory_layers': config.memory_layers,
    'memory_placement': config.memory_placement,
    'retrofitted': retrofitted and dataclasses.asdict(retrofitted),
  }


def find(model: nnx.Module) -> Retrofitted | None:
  """Finds the memory layers that `retrofit` added to a model.

  Raises:
    UserError: If layers differ in their sizes or placement.
  """
  found: dict[str, tuple[memory_lib.MemorySizes, Any]] = {}
  for path, module in nnx.iter_modules(model):
    name = '/'.join(map(str, path))
    if isinstance(module, retrofit.MemoryBeside):
      found[name] = _sizes(module.memory.config), 'beside'
    elif path[-1:] == ('mlp',) and isinstance(
      module, memory_lib.ProductKeyMemory
    ):
      found[name] = _sizes(module.config), 'replace'
  if not found:
    return None
  (sizes, placement), *others = dict.fromkeys(found.values())
  if others:
    raise schema.UserError(
      f'the memory layers at {" and ".join(found)} differ in their sizes or'
      ' placement; a checkpoint holds layers that are alike'
    )
  return Retrofitted(memory=sizes, paths=tuple(found), placement=placement)


def _sizes(config: memory_lib.MemoryConfig) -> memory_lib.MemorySizes:
  names = [field.name for field in dataclasses.fields(memory_lib.MemorySizes)]
  return memory_lib.MemorySizes(
    **{name: getattr(config, name) for name in names}
  )


def add(
  model: transformer.Transformer, described: Retrofitted
) -> transformer.Transformer:
  """Adds the memory layers that a checkpoint describes."""
  config = model.config
  return retrofit.add_memory(
    model,
    memory_lib.MemoryConfig(
      model_dim=config.model_dim,
      **dataclasses.asdict(described.memory),
    ),
    described.paths,
    placement=described.placement,
    rngs=nnx.Rngs(0),
  )
