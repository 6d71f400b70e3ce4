"""Loads and saves Hugging Face checkpoints; loads GGUF files as well.

  config.json         sizes and options
  model.safetensors   the decoder, or shards with model.safetensors.index.json
  memory.safetensors  memory layers and value table, if any; their sizes are in
                      the file's metadata

`transformers` loads these folders too, without the memory. All names, shapes
and dtypes are checked before a tensor is read; config.json is written last.
"""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from smft_jax import memory as memory_lib
from smft_jax import schema
from smft_jax.hf import config as hf_config
from smft_jax.hf import files as hf_files
from smft_jax.hf import gguf as hf_gguf
from smft_jax.hf import memory_file
from smft_jax.hf import sources as hf_sources
from smft_jax.hf import tensors as hf_tensors
from smft_jax.hf import tokenizer as hf_tokenizer
from smft_jax.models import layers
from smft_jax.models import transformer
from smft_jax.runtime import processes
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import atomic
from smft_jax.store import paths

# Files of a source checkpoint that are copied.
_CARRIED = (
  'added_tokens.json',
  'chat_template.jinja',
  'generation_config.json',
  'merges.txt',
  'special_tokens_map.json',
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'vocab.json',
)
# Settings that `to_settings` gives by other names.
_RENAMED = ('dtype', 'rope_parameters')


def load_model(
  folder: str | os.PathLike, dtype: jax.typing.DTypeLike = jnp.float32
) -> transformer.Transformer:
  """Loads a checkpoint onto one device.

  Args:
    folder: Folder of config.json and safetensors in float32, bfloat16 or
      float16, or a GGUF file, which is dequantised.
    dtype: Dtype of computation and parameters, whatever the file's. A value
      table keeps its own; what chooses its slots is float32.

  Returns:
    The decoder: int32 tokens [B, L] to logits [B, L, T]. Has memory layers if
    there is a memory.safetensors.

  Raises:
    UserError: If a file is missing or damaged, or the model is not supported.
  """
  graphdef, like = _shapes(folder, dtype)
  return nnx.merge(graphdef, load_params(folder, like))


def check(folder: str | os.PathLike) -> None:
  """Checks all that `load_model` does, without reading a tensor.

  Args:
    folder: As for `load_model`.

  Raises:
    UserError: As `load_model`.
  """
  _, like = _shapes(folder, jnp.float32)
  with contextlib.ExitStack() as stack:
    hf_sources.find(paths.expand(folder), like, stack)


def _shapes(
  folder: str | os.PathLike, dtype: jax.typing.DTypeLike
) -> tuple[nnx.GraphDef, nnx.State]:
  """Returns the model of a checkpoint and the shapes of its Variables."""
  config, described = (
    load_config(folder, dtype),
    memory_file.read(folder).retrofitted,
  )

  def build():
    model = transformer.Transformer(config, rngs=nnx.Rngs(0))
    return model if described is None else memory_file.add(model, described)

  return nnx.split(nnx.eval_shape(build))


def load_config(
  folder: str | os.PathLike, dtype: jax.typing.DTypeLike = jnp.float32
) -> layers.TransformerConfig:
  """Reads the sizes of a checkpoint's decoder and its memory.

  Args:
    folder: As for `load_model`.
    dtype: As for `load_model`.

  Returns:
    Sizes and options; the memory is on no mesh. Layers of `retrofit`, with a
    table each, are not among them.

  Raises:
    UserError: As `load_model`.
  """
  config, found = (
    hf_config.read(paths.expand(folder), dtype),
    memory_file.read(folder),
  )
  if found.memory is None:
    return config
  try:
    return dataclasses.replace(
      config,
      memory=memory_lib.MemoryConfig(
        model_dim=config.model_dim,
        **dataclasses.asdict(found.memory),
      ),
      memory_layers=found.memory_layers,
      memory_placement=found.memory_placement,
    )
  except ValueError as error:
    raise memory_file.misfit(folder, error) from None


def load_params(folder: str | os.PathLike, like: nnx.State) -> nnx.State:
  """Loads a checkpoint straight into a sharding.

  Each process reads only the parts that its devices hold.

  Args:
    folder: As for `load_model`.
    like: Variables of a `Transformer`, or their shapes; gives dtypes and
      shardings. Without a sharding, arrays go to one device.

  Returns:
    The Variables. Without a memory.safetensors, those of the memory are the
    ones in `like`, so that a plain checkpoint can be given a fresh memory.

  Raises:
    UserError: As `load_model`.
  """
  with contextlib.ExitStack() as stack:
    found = hf_sources.find(paths.expand(folder), like, stack)

    def load(path, variable):
      value = variable.get_value()
      if path in found:
        value = hf_files.load(*found[path], value)
      return variable.replace(value)

    return nnx.map_state(load, like)


def save_model(
  model: transformer.Transformer,
  folder: str | os.PathLike,
  source: str | os.PathLike | None = None,
) -> None:
  """Saves a checkpoint that `load_model` and `transformers` load.

  Memory layers go into a file that `transformers` ignores. FFNs that they
  replace are written as zeros.

  Args:
    model: The decoder, with memory of its own or of `retrofit`. All processes
      must call this.
    folder: Output folder without a checkpoint; made if missing.
    source: Checkpoint that the model came from, a folder or a GGUF; its
      tokenizer and its other settings are copied.

  Raises:
    UserError: If the folder has a checkpoint or cannot be written, `source` is
      of another model, or the format cannot hold the model.
  """
  config = model.config
  settings = hf_config.to_settings(config)
  if settings['torch_dtype'] not in hf_files.DTYPES.values():
    raise schema.UserError(
      f'a model of {settings["torch_dtype"]} cannot be saved; expected'
      f' {" or ".join(hf_files.DTYPES.values())}'
    )
  source = None if source is None else paths.expand(source)
  if source is not None:
    settings = _with_source(settings, config, source)
  files: dict[str, dict[str, np.ndarray]] = {hf_tensors.MODEL: {}}
  described = memory_file.find(model)
  _, params = nnx.split_state(  # counts of accesses belong to a trainer
    nnx.state(model, nnx.Any(nnx.Param, memory_lib.SlotLessons)),
    memory_lib.AccessCounts,
    ...,
  )
  places = hf_tensors.places(params)
  for path, variable in nnx.to_flat_state(params):
    array, place = layout_lib.to_numpy(variable.get_value()), places[path]
    if processes.is_main():  # only this process holds the whole model
      tensors = files.setdefault(place.file, {})
      tensors[place.name] = place.write(array)
  replaced = described.replaced_layers if described else ()
  if config.memory_placement == 'replace':
    replaced += config.memory_layers
  for layer in replaced:
    files[hf_tensors.MODEL] |= hf_tensors.zero_ffn(
      layer, config.model_dim, config.ffn_dim, config.param_dtype
    )
  processes.on_main(
    'a Hugging Face checkpoint',
    _write,
    *(paths.expand(folder), files, memory_file.describe(config, described)),
    *(settings, source),
  )


def _with_source(
  settings: dict[str, Any],
  config: layers.TransformerConfig,
  source: pathlib.Path,
) -> dict[str, Any]:
  """Adds the other settings of a source checkpoint."""
  theirs = hf_config.read(source, config.dtype)
  ours = dataclasses.replace(
    config,
    memory=None,
    memory_layers=(),
    memory_placement=theirs.memory_placement,
  )
  differing = schema.differences(
    dataclasses.asdict(theirs), dataclasses.asdict(ours), 'model'
  )
  if differing:
    raise schema.UserError(
      f'{hf_config.settings_file(source)} is of another model, with'
      f' {"; ".join(differing[:4])}'
    )
  kept = hf_config.read_settings(source)
  return {k: v for k, v in kept.items() if k not in _RENAMED} | settings


def _write(
  folder: pathlib.Path,
  files: Mapping[str, Mapping[str, np.ndarray]],
  memory: Mapping[str, Any],
  settings: Mapping[str, Any],
  source: pathlib.Path | None,
) -> None:
  """Writes all files under a temporary name, then renames them."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ('config.json', '*.safetensors', '*.safetensors.index.json'):
      for file in folder.glob(pattern):
        raise schema.UserError(f'{file} already exists; choose another folder')
    with tempfile.TemporaryDirectory(prefix='.partial-', dir=folder) as name:
      partial = pathlib.Path(name)
      for name, tensors in files.items():
        metadata = {'format': 'pt'}  # `transformers` requires it
        if name == hf_tensors.MEMORY:
          metadata[memory_file.KEY] = json.dumps(memory)
        safetensors.numpy.save_file(dict(tensors), partial / name, metadata)
      if source is not None and hf_gguf.is_gguf(source):
        hf_tokenizer.write(source, partial)
      elif source is not None:
        for carried in _CARRIED:
          if (source / carried).exists():
            shutil.copyfile(source / carried, partial / carried)
      atomic.write_json(partial / 'config.json', settings)
      names = sorted(file.name for file in partial.iterdir())
      for name in names:
        # safetensors makes files that only their owner can read.
        shutil.copymode(partial / 'config.json', partial / name)
        with open(partial / name, 'rb') as written:
          os.fsync(written.fileno())
      # A folder without config.json is no checkpoint.
      for name in sorted(names, key='config.json'.__eq__):
        os.replace(partial / name, folder / name)
  except (OSError, safetensors.SafetensorError) as error:
    raise schema.UserError(
      f'{folder} cannot be written: {schema.one_line(error)}'
    ) from None
