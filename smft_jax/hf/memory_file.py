"""What config.json says about a model's memory, and the code that runs it.

The tensors are in memory.safetensors. `modeling_smft.py` reads the same
description in `transformers`; it is copied into a checkpoint and never run
here.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any, Literal

from flax import nnx

from smft_jax import memory as memory_lib
from smft_jax import retrofit
from smft_jax import schema
from smft_jax.hf import config as hf_config
from smft_jax.models import layers
from smft_jax.models import transformer
from smft_jax.store import paths

# Key of config.json that holds a `Memory`.
KEY = 'smft_memory'

CODE = pathlib.Path(__file__).with_name('modeling_smft.py')

_CLASSES = {
  'llama': 'LlamaWithMemory',
  'qwen2': 'Qwen2WithMemory',
  'qwen3': 'Qwen3WithMemory',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
  """The part of a model that other decoders do not have.

  Attributes:
    layers: Blocks with memory, counted from 0.
    placement: 'replace' or 'beside' the FFN.
    shares_table: Whether the layers read one table, as those of a
      `TransformerConfig` do, or one each, as those of `retrofit`.
    sizes: Sizes of each layer.
  """

  layers: tuple[int, ...]
  placement: Literal['replace', 'beside']
  shares_table: bool
  sizes: memory_lib.MemorySizes


def read(folder: str | os.PathLike) -> Memory | None:
  """Reads the description of a checkpoint's memory; None if it has none.

  Raises:
    UserError: If the description is damaged.
  """
  found = hf_config.read_settings(paths.expand(folder)).get(KEY)
  if found is None:
    return None
  try:
    return schema.build(found, Memory, KEY)
  except ValueError as error:
    raise misfit(folder, error) from None


def misfit(folder: str | os.PathLike, error: ValueError) -> schema.UserError:
  """Returns the error for a memory that the model cannot have."""
  return schema.UserError(
    f'{hf_config.settings_file(paths.expand(folder))}: the memory in'
    f' {KEY} does not fit the model: {schema.one_line(error)}'
  )


def find(model: transformer.Transformer) -> Memory | None:
  """Describes the memory of a model; None if it has none.

  Raises:
    UserError: If layers differ in their sizes, placement or kind of table.
  """
  found: dict[str, Memory] = {}
  for path, module in nnx.iter_modules(model):
    if not isinstance(module, memory_lib.ProductKeyMemory):
      continue
    _, layer, *names = path
    shares_table = names == ['memory']
    beside = (
      model.config.memory_placement == 'beside'
      if shares_table
      else names == ['mlp', 'memory']
    )
    found['/'.join(map(str, path))] = Memory(
      layers=(int(str(layer)),),
      placement='beside' if beside else 'replace',
      shares_table=shares_table,
      sizes=_sizes(module.config),
    )
  if not found:
    return None
  every = tuple(layer for one in found.values() for layer in one.layers)
  alike = {dataclasses.replace(one, layers=every) for one in found.values()}
  if len(alike) > 1:
    raise schema.UserError(
      f'the memory layers at {" and ".join(found)} differ in their sizes,'
      ' placement or kind of table; a checkpoint holds layers that are alike'
    )
  return alike.pop()


def settings(described: Memory, model_type: str) -> dict[str, Any]:
  """Returns what config.json says of a memory, to us and `transformers`."""
  name = _CLASSES[model_type]
  return {
    'architectures': [name],
    'auto_map': {'AutoModelForCausalLM': f'{CODE.stem}.{name}'},
    KEY: dataclasses.asdict(described),
  }


def _sizes(config: memory_lib.MemoryConfig) -> memory_lib.MemorySizes:
  names = [field.name for field in dataclasses.fields(memory_lib.MemorySizes)]
  return memory_lib.MemorySizes(
    **{name: getattr(config, name) for name in names}
  )


def in_config(
  config: layers.TransformerConfig, described: Memory
) -> layers.TransformerConfig:
  """Returns the sizes of a decoder whose memory layers share a table."""
  return dataclasses.replace(
    config,
    memory=_config(config, described),
    memory_layers=described.layers,
    memory_placement=described.placement,
  )


def add(
  model: transformer.Transformer, described: Memory
) -> transformer.Transformer:
  """Adds memory layers with a table each."""
  return retrofit.add_memory(
    model,
    _config(model.config, described),
    [f'blocks/{layer}/mlp' for layer in described.layers],
    placement=described.placement,
    rngs=nnx.Rngs(0),
  )


def _config(
  config: layers.TransformerConfig, described: Memory
) -> memory_lib.MemoryConfig:
  return memory_lib.MemoryConfig(
    model_dim=config.model_dim, **dataclasses.asdict(described.sizes)
  )
