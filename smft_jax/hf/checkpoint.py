"""Loads and saves Hugging Face checkpoints; loads GGUF files as well.

  config.json         sizes and options
  model.safetensors   the decoder, or shards with model.safetensors.index.json

A model with memory has in place of model.safetensors

  decoder.safetensors           the decoder
  memory.safetensors            memory layers and value tables
  model.safetensors.index.json  which tensor is in which file
  modeling_smft.py              runs the memory in `transformers`, never here

All names, shapes and dtypes are checked before a tensor is read; config.json is
written last.
"""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import dataclasses
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
# Settings of a source that do not hold for what is written: `to_settings` gives
# two by other names, and no code is carried.
_DROPPED = ('auto_map', 'dtype', 'rope_parameters', memory_file.KEY)


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
    The decoder: int32 tokens [B, L] to logits [B, L, T], with the memory layers
    that config.json describes.

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
  if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
    raise schema.UserError(
      f'dtype = {jnp.dtype(dtype).name!r} is no dtype to compute in: give'
      " 'float32' or 'bfloat16'"
    )
  config, described = load_config(folder, dtype), memory_file.read(folder)

  def build():
    model = transformer.Transformer(config, rngs=nnx.Rngs(0))
    if described is None or described.shares_table:
      return model
    return memory_file.add(model, described)

  try:
    return nnx.split(nnx.eval_shape(build))
  except ValueError as error:
    raise memory_file.misfit(folder, error) from None


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
  config = hf_config.read(paths.expand(folder), dtype)
  described = memory_file.read(folder)
  if described is None or not described.shares_table:
    return config
  try:
    return memory_file.in_config(config, described)
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
    The Variables. Those of a memory that the checkpoint does not have are the
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

  With memory, `transformers` needs `trust_remote_code=True`; it then runs the
  code that is written beside it. FFNs that memory layers replace are written as
  zeros.

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
  _, params = nnx.split_state(  # counts of accesses belong to a trainer
    nnx.state(model, nnx.Any(nnx.Param, memory_lib.SlotLessons)),
    memory_lib.AccessCounts,
    ...,
  )
  places, described = hf_tensors.places(params), memory_file.find(model)
  decoder = hf_tensors.MODEL
  if described is not None:
    settings |= memory_file.settings(described, settings['model_type'])
    decoder = hf_tensors.DECODER
  files: dict[str, dict[str, np.ndarray]] = {decoder: {}}
  for path, variable in nnx.to_flat_state(params):
    array, place = layout_lib.to_numpy(variable.get_value()), places[path]
    if processes.is_main():  # only this process holds the whole model
      file = place.file if place.file == hf_tensors.MEMORY else decoder
      tensors = files.setdefault(file, {})
      tensors[place.name] = place.write(array)
  if described is not None and described.placement == 'replace':
    for layer in described.layers:
      files[decoder] |= hf_tensors.zero_ffn(
        layer, config.model_dim, config.ffn_dim, config.param_dtype
      )
  processes.on_main(
    'a Hugging Face checkpoint',
    _write,
    *(paths.expand(folder), files, settings, source),
  )


def _with_source(
  settings: dict[str, Any],
  config: layers.TransformerConfig,
  source: pathlib.Path,
) -> dict[str, Any]:
  """Adds the other settings of a source checkpoint."""
  theirs = hf_config.read(source, config.dtype)
  # Options of ours, not sizes of theirs.
  options = dataclasses.fields(layers.DecoderOptions)
  ours = dataclasses.replace(
    config,
    memory=None,
    **{option.name: getattr(theirs, option.name) for option in options},
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
  return {k: v for k, v in kept.items() if k not in _DROPPED} | settings


def _index(
  files: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, Any]:
  """Returns what the index of several files says, as `transformers` reads."""
  every = [array for tensors in files.values() for array in tensors.values()]
  return {
    'metadata': {'total_size': sum(array.nbytes for array in every)},
    'weight_map': {
      tensor: name for name, tensors in files.items() for tensor in tensors
    },
  }


def _write(
  folder: pathlib.Path,
  files: Mapping[str, Mapping[str, np.ndarray]],
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
        # `transformers` requires the metadata.
        safetensors.numpy.save_file(
          dict(tensors), partial / name, {'format': 'pt'}
        )
      if hf_tensors.MEMORY in files:
        atomic.write_json(partial / hf_files.INDEX, _index(files))
        shutil.copyfile(memory_file.CODE, partial / memory_file.CODE.name)
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
