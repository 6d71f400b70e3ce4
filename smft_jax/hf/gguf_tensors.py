"""Names, layouts and quantisation of the tensors of a GGUF.

Tensors are dequantised when they are read. Q and K of Llama have their rows
permuted for interleaved rotary positions, which is undone.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
import re
from typing import Any

import numpy as np

from smft_jax import schema
from smft_jax.hf import files as hf_files
from smft_jax.hf import gguf as hf_gguf

# llama.cpp permutes only these: it computes Qwen's positions as we do.
_PERMUTED = {'llama': ('attn_q.weight', 'attn_k.weight')}

_NAMES = {
  'model.embed_tokens.weight': hf_gguf.TOKENS,
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': hf_gguf.UNTIED,
}
_IN_BLOCK = {
  'input_layernorm': 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'self_attn.o_proj': 'attn_output',
  'post_attention_layernorm': 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
}


def name_of(name: str) -> str:
  """Returns the name in a GGUF of a tensor of a Hugging Face checkpoint.

  Example:
    >>> name_of('model.layers.7.self_attn.q_proj.bias')
    'blk.7.attn_q.bias'
  """
  if name in _NAMES:
    return _NAMES[name]
  _, _, layer, *middle, kind = name.split('.')
  return f'blk.{layer}.{_IN_BLOCK[".".join(middle)]}.{kind}'


def _hf_name(name: str) -> str:
  """Inverts `name_of`; returns other names as they are."""
  if name in _NAMES.values():
    return next(ours for ours, theirs in _NAMES.items() if theirs == name)
  match = re.fullmatch(r'blk\.(\d+)\.(\w+)\.(\w+)', name)
  for ours, theirs in _IN_BLOCK.items():
    if match and match[2] == theirs:
      return f'model.layers.{match[1]}.{ours}.{match[3]}'
  return name


def find(path: pathlib.Path) -> dict[str, hf_files.Stored]:
  """Finds all tensors by their names in a Hugging Face checkpoint.

  Raises:
    UserError: If the file cannot be opened, or the library cannot dequantise a
      tensor.
  """
  file, settings = hf_gguf.opened(path), hf_gguf.read_settings(path)
  permuted = _PERMUTED.get(settings['model_type'], ())
  found = {}
  for name, tensor in file.tensors.items():
    if name == hf_gguf.FREQUENCIES:  # part of the settings
      continue
    if not _is_readable(path, tensor.tensor_type):
      raise schema.UserError(
        f'{path}: {name} is quantised as {tensor.tensor_type.name}, which the'
        ' gguf library cannot read; expected F32, F16, BF16, Q8_0, Q4_K or'
        ' another type that it can'
      )
    is_permuted = name.split('.', 2)[-1] in permuted
    found[_hf_name(name)] = hf_files.Stored(
      file=path,
      name=name,
      slice=_Rows(path, tensor, settings['head_dim'] if is_permuted else None),
      shape=tuple(int(size) for size in reversed(tensor.shape)),
      dtype='F32',  # once it is read
    )
  return found


@functools.cache
def _is_readable(path: pathlib.Path, kind: Any) -> bool:
  """Whether the library can dequantise a type, tried on a block of zeros."""
  library = hf_gguf.library(path)
  block = np.zeros((1, library.GGML_QUANT_SIZES[kind][1]), np.uint8)
  try:
    with np.errstate(all='ignore'):
      library.quants.dequantize(block, kind)
  except NotImplementedError:
    return False
  return True


@dataclasses.dataclass(frozen=True)
class _Rows:
  """A tensor [out, in] or [out], float32; only rows asked for are dequantised.

  Attributes:
    path: The file.
    tensor: The library's tensor.
    head_dim: Rows of a head, if they are permuted; whole heads must be asked
      for.
  """

  path: pathlib.Path
  tensor: Any
  head_dim: int | None = None

  def __getitem__(self, index: Sequence[slice]) -> np.ndarray:
    quants = hf_gguf.library(self.path).quants
    data, kind = self.tensor.data, self.tensor.tensor_type
    if data.ndim == 1:  # short, and perhaps in blocks
      return quants.dequantize(data, kind)[tuple(index)]
    rows = quants.dequantize(data[index[0]], kind)
    if self.head_dim is not None:
      # From (pair, half of the head) to (half, pair).
      pairs = rows.reshape(-1, self.head_dim // 2, 2, rows.shape[-1])
      rows = pairs.swapaxes(1, 2).reshape(rows.shape)
    return rows[:, *index[1:]]
