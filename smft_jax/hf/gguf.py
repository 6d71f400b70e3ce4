"""Reads GGUF files, the format of llama.cpp, through the `gguf` library.

A file's metadata becomes the settings that a config.json would hold. For its
tensors see `gguf_tensors`, for its tokenizer `tokenizer`.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np

from smft_jax import schema
from smft_jax.models import rotary
from smft_jax.store import paths

_ARCHITECTURES = ('llama', 'qwen2', 'qwen3')
# Settings of config.json by key of the metadata, without the architecture.
_REQUIRED = {
  'num_hidden_layers': ('block_count', int),
  'hidden_size': ('embedding_length', int),
  'num_attention_heads': ('attention.head_count', int),
  'intermediate_size': ('feed_forward_length', int),
  'rms_norm_eps': ('attention.layer_norm_rms_epsilon', float),
}
TOKENS = 'token_embd.weight'
UNTIED = 'output.weight'
FREQUENCIES = 'rope_freqs.weight'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class File:
  """An opened GGUF.

  Attributes:
    path: The file.
    metadata: Its metadata: numbers, strings, lists of them.
    tensors: The library's tensors by name, not read yet.
  """

  path: pathlib.Path
  metadata: Mapping[str, Any]
  tensors: Mapping[str, Any]

  def get(self, key: str, hint: Any, default: Any = None) -> Any:
    """Returns an entry of the metadata as the type `hint`.

    Raises:
      UserError: If it is missing without a default, or of another type.
    """
    value = self.metadata.get(key, default)
    if value is None:
      raise schema.UserError(f'{self.path}: {key} is missing in its metadata')
    return schema.coerce(value, hint, f'{self.path}: {key}')

  def unsupported(self, key: str, value: Any, wanted: Any) -> schema.UserError:
    """Returns the error for an entry of the metadata."""
    return schema.UserError(
      f'{self.path}: {key} = {schema.brief(value)} is not supported; expected'
      f' {wanted}'
    )


def is_gguf(path: pathlib.Path) -> bool:
  """Whether a checkpoint's path is that of a file, which must be a GGUF."""
  return path.is_file() or (path.suffix == '.gguf' and not path.is_dir())


def opened(path: pathlib.Path) -> File:
  """Opens a GGUF, without reading tensors; the last one is kept.

  Raises:
    UserError: If it is missing, damaged or one part of several, or there is no
      library.
  """
  try:
    stat = os.stat(path)
  except OSError:
    folder = path.parent
    names = [f.name for f in folder.iterdir()] if folder.is_dir() else []
    close = schema.nearest(path.name, names)
    hint = f'; did you mean {folder / close}?' if close else ''
    raise schema.UserError(f'{path} does not exist{hint}') from None
  return _opened(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _opened(path: pathlib.Path, size: int, mtime: int) -> File:
  """Opens a file; its size and time tell when it is another one."""
  paths.check_fetched(path)
  with path.open('rb') as file:
    magic = file.read(4)
  if magic != b'GGUF':
    raise schema.UserError(
      f'{path} is no GGUF file; expected one, or a Hugging Face folder'
    )
  parse = library(path).GGUFReader
  try:
    reader = parse(path)
    metadata = {key: f.contents() for key, f in reader.fields.items()}
  except Exception as error:  # The library raises what its slices raise.
    raise schema.UserError(
      f'{path} is truncated or damaged: {schema.one_line(error)}; expected a'
      f' complete GGUF, this one ends after {size} bytes'
    ) from None
  if reader.byte_order != 'I':
    raise schema.UserError(f'{path} has the bytes of its numbers reversed')
  tensors = {tensor.name: tensor for tensor in reader.tensors}
  found = File(path=path, metadata=metadata, tensors=tensors)
  parts = found.get('split.count', int, 1)
  if parts > 1:
    raise schema.UserError(
      f'{path} is one of {parts} parts; join them into one file first, with'
      ' `llama-gguf-split --merge` of llama.cpp'
    )
  return found


def library(path: pathlib.Path) -> Any:
  """Imports the gguf library.

  Raises:
    UserError: If it is not installed; the line names `path`.
  """
  try:
    import gguf
  except ImportError:
    raise schema.UserError(
      f'{path} needs the gguf library: pip install "smft_jax[gguf]"'
    ) from None
  return gguf


def read_settings(path: pathlib.Path) -> dict[str, Any]:
  """Returns the settings that a config.json of this model would hold.

  Raises:
    UserError: If the file cannot be opened, or its metadata lacks something or
      is of a model that is not supported.
  """
  file = opened(path)
  arch = file.get('general.architecture', str)
  if arch not in _ARCHITECTURES:
    raise file.unsupported(
      'general.architecture', arch, ' or '.join(_ARCHITECTURES)
    )
  settings = {'model_type': arch}
  for name, (key, hint) in _REQUIRED.items():
    settings[name] = file.get(f'{arch}.{key}', hint)
  heads = settings['num_attention_heads']
  default = settings['hidden_size'] // max(heads, 1)
  head_dim = file.get(f'{arch}.attention.key_length', int, default)
  for key in ('attention.value_length', 'rope.dimension_count'):
    if file.get(f'{arch}.{key}', int, head_dim) != head_dim:
      raise file.unsupported(
        f'{arch}.{key}', file.metadata[f'{arch}.{key}'], head_dim
      )
  if file.metadata.get(f'{arch}.expert_count'):
    settings['expert_count'] = file.metadata[f'{arch}.expert_count']
  for key in ('sliding_window', 'attention.sliding_window'):
    if f'{arch}.{key}' in file.metadata:
      settings['sliding_window'] = file.metadata[f'{arch}.{key}']
  if TOKENS not in file.tensors:
    raise schema.UserError(f'{path}: {TOKENS} is missing')
  theta = _plain(file.get(f'{arch}.rope.freq_base', float, 10_000.0))
  return settings | {
    'num_key_value_heads': file.get(
      f'{arch}.attention.head_count_kv', int, heads
    ),
    'head_dim': head_dim,
    'vocab_size': int(file.tensors[TOKENS].shape[-1]),
    'rms_norm_eps': _plain(settings['rms_norm_eps']),
    'rope_theta': theta,
    'rope_scaling': _scaling(file, arch, head_dim, theta),
    'tie_word_embeddings': UNTIED not in file.tensors,
    'max_position_embeddings': file.get(f'{arch}.context_length', int, 2048),
    **_special_ids(file),
  }


def _special_ids(file: File) -> dict[str, Any]:
  """Returns the ids of the special tokens, by their names in config.json."""
  ids = {}
  for name, key in (('bos', 'bos'), ('eos', 'eos'), ('pad', 'padding')):
    token_id = file.metadata.get(f'tokenizer.ggml.{key}_token_id')
    if token_id is not None:
      ids[f'{name}_token_id'] = token_id
  turn = file.metadata.get('tokenizer.ggml.eot_token_id')
  if turn is not None and turn != ids.get('eos_token_id', turn):
    ids['eos_token_id'] = [ids['eos_token_id'], turn]  # either ends a text
  return ids


def _scaling(
  file: File, arch: str, head_dim: int, theta: float
) -> dict[str, Any] | None:
  """Returns the scaling of rotary frequencies as in config.json.

  Llama 3's is stored as a divisor for each frequency. The numbers that it comes
  from are the same in all its models but for the factor, so they are tried.
  """
  key = f'{arch}.rope.scaling.type'
  if file.metadata.get(key, 'none') != 'none':
    raise file.unsupported(key, file.metadata[key], "'none'")
  if key not in file.metadata:  # which means that a factor counts
    for name in ('scaling.factor', 'scale_linear'):
      factor_key = f'{arch}.rope.{name}'
      factor = file.metadata.get(factor_key, 1.0)
      if factor not in (0, 1):
        raise file.unsupported(factor_key, factor, '1')
  if FREQUENCIES not in file.tensors:
    return None
  tensor = file.tensors[FREQUENCIES]
  divisors = library(file.path).quants.dequantize(
    tensor.data, tensor.tensor_type
  )
  factor = float(divisors.max(initial=0.0))
  if np.all(divisors == 1.0):
    return None
  length_key = f'{arch}.rope.scaling.original_context_length'
  if factor > 0:
    numbers: dict[str, Any] = {
      'factor': factor,
      'low_freq_factor': 1.0,
      'high_freq_factor': 4.0,
      'original_max_position_embeddings': file.get(length_key, int, 8192),
    }
    half = head_dim // 2
    plain = np.asarray(rotary.frequencies(half, theta))
    scaled = np.asarray(
      rotary.frequencies(half, theta, rotary.RopeScaling(**numbers))
    )
    if divisors.shape == plain.shape and np.allclose(
      plain / scaled, divisors, rtol=1e-4
    ):
      return {'rope_type': 'llama3', **numbers}
  raise schema.UserError(
    f'{file.path}: {FREQUENCIES} scales the rotary frequencies in another way'
    ' than Llama 3.1 and later, which is not supported'
  )


def _plain(value: float) -> float:
  """Returns the shortest number that is the same in float32, as written."""
  return float(str(np.float32(value)))
