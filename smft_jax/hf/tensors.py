"""Names and layouts of the tensors of a Hugging Face checkpoint.

A checkpoint's matrices are [out, in] and have attention heads flattened into
one axis; ours are [in, out] with an axis for heads. `Groups` describe a layout:
for each axis of the checkpoint's tensor, our axes that are flattened into it.

Shapes: D model dim, H heads, K head dim, F FFN dim, T vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import numpy as np

from smft_jax import schema

MODEL = 'model.safetensors'
# The two files of a checkpoint with memory; an index names their tensors.
DECODER, MEMORY = 'decoder.safetensors', 'memory.safetensors'

Groups = tuple[tuple[int, ...], ...]
Path = tuple[Any, ...]  # path of a Variable in the model

_VECTOR: Groups = ((0,),)
_TABLE: Groups = ((0,), (1,))
_MATRIX: Groups = ((1,), (0,))  # ours is [D, F]
_TO_HEADS: Groups = ((1, 2), (0,))  # [D, H, K]
_FROM_HEADS: Groups = ((2,), (0, 1))  # [H, K, D]
_HEADS: Groups = ((0, 1),)  # [H, K]

_OUTSIDE: dict[Path, tuple[str, Groups]] = {
  ('embedding',): ('model.embed_tokens.weight', _TABLE),
  ('final_norm', 'scale'): ('model.norm.weight', _VECTOR),
  ('unembedding',): ('lm_head.weight', _TABLE),
}
_FFN: dict[Path, tuple[str, Groups]] = {
  ('mlp', 'gate', 'weight'): ('mlp.gate_proj.weight', _MATRIX),
  ('mlp', 'up', 'weight'): ('mlp.up_proj.weight', _MATRIX),
  ('mlp', 'down', 'weight'): ('mlp.down_proj.weight', _MATRIX),
}
_IN_BLOCK: dict[Path, tuple[str, Groups]] = {
  ('attention_norm', 'scale'): ('input_layernorm.weight', _VECTOR),
  ('attention', 'query', 'weight'): ('self_attn.q_proj.weight', _TO_HEADS),
  ('attention', 'key', 'weight'): ('self_attn.k_proj.weight', _TO_HEADS),
  ('attention', 'value', 'weight'): ('self_attn.v_proj.weight', _TO_HEADS),
  ('attention', 'query_bias'): ('self_attn.q_proj.bias', _HEADS),
  ('attention', 'key_bias'): ('self_attn.k_proj.bias', _HEADS),
  ('attention', 'value_bias'): ('self_attn.v_proj.bias', _HEADS),
  ('attention', 'query_norm', 'scale'): ('self_attn.q_norm.weight', _VECTOR),
  ('attention', 'key_norm', 'scale'): ('self_attn.k_norm.weight', _VECTOR),
  ('attention', 'out', 'weight'): ('self_attn.o_proj.weight', _FROM_HEADS),
  ('mlp_norm', 'scale'): ('post_attention_layernorm.weight', _VECTOR),
  **_FFN,
}
# Variables of a memory layer and its table.
_TABLE_OF_SLOTS = ('values', 'lessons')
_MEMORY = ('subkeys', 'query', 'query_scale', 'gate', 'out', *_TABLE_OF_SLOTS)
# A table that memory layers share.
_SHARED = {('pool',): 'table.values', ('lessons',): 'table.lessons'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """Place of a Variable in a checkpoint.

  Attributes:
    file: `MODEL` or `MEMORY`.
    name: Name of the tensor.
    groups: Layout of the tensor; see the module.
    shape: Shape of the Variable.

  Example:
    >>> place = place_of(('blocks', 7, 'attention', 'key_bias'), (2, 3))
    >>> place.name, place.stored_shape
    ('model.layers.7.self_attn.k_proj.bias', (6,))
  """

  file: str
  name: str
  groups: Groups
  shape: tuple[int, ...]

  @property
  def stored_shape(self) -> tuple[int, ...]:
    """The tensor's shape in the file."""
    return tuple(
      math.prod(self.shape[axis] for axis in group) for group in self.groups
    )

  def read(self, stored: Any, index: Sequence[slice]) -> np.ndarray:
    """Reads a part of the Variable, and little more from the file.

    Args:
      stored: The tensor: an array or a slice of safetensors.
      index: The part: a slice for each axis of the Variable.

    Returns:
      The part, in the stored dtype.
    """
    bounds = [
      part.indices(size)[:2]
      for part, size in zip(index, self.shape, strict=True)
    ]
    # Of axes that are flattened into one, only the first is read in part.
    rows, sizes, inner = [], [], []
    for first, *rest in self.groups:
      count = math.prod(self.shape[axis] for axis in rest)
      start, stop = bounds[first]
      rows.append(slice(start * count, stop * count))
      sizes += [stop - start, *(self.shape[axis] for axis in rest)]
      inner += [slice(None), *(slice(*bounds[axis]) for axis in rest)]
    block = stored[tuple(rows)].reshape(sizes)[tuple(inner)]
    return block.transpose(np.argsort(self._order()))

  def write(self, array: np.ndarray) -> np.ndarray:
    """Returns the file's tensor for the whole Variable."""
    flat = array.transpose(self._order()).reshape(self.stored_shape)
    return np.ascontiguousarray(flat)

  def _order(self) -> list[int]:
    return [axis for group in self.groups for axis in group]


def place_of(path: Path, shape: tuple[int, ...]) -> Place:
  """Returns the place of a Transformer's Variable.

  Raises:
    UserError: If the format has no place for it.
  """
  if path[2:4] == ('mlp', 'ffn'):  # the FFN beside a memory of `retrofit`
    path = (*path[:3], *path[4:])
  memory = _memory_name(path)
  if memory is not None:
    each: Groups = tuple((axis,) for axis in range(len(shape)))
    return Place(file=MEMORY, name=memory, groups=each, shape=shape)
  prefix, table, key = '', _OUTSIDE, path
  if path[0] == 'blocks':
    prefix, table, key = f'model.layers.{path[1]}.', _IN_BLOCK, path[2:]
  if key not in table:
    raise schema.UserError(
      f'{".".join(map(str, path))} has no place in a Hugging Face checkpoint;'
      ' it holds only a decoder and its memory'
    )
  name, groups = table[key]
  return Place(file=MODEL, name=prefix + name, groups=groups, shape=shape)


def _memory_name(path: Path) -> str | None:
  """Returns the name of a memory's tensor; None for one of the decoder.

  It is the same beside an FFN and in its place.
  """
  if path in _SHARED:
    return _SHARED[path]
  if not (
    path[2:3] == ('memory',)
    or path[2:4] == ('mlp', 'memory')
    or (path[2:3] == ('mlp',) and path[3:] in [(name,) for name in _MEMORY])
  ):
    return None
  name = path[-1] if path[-1] not in _TABLE_OF_SLOTS else f'table.{path[-1]}'
  return f'model.layers.{path[1]}.mlp.memory.{name}'


def places(params: nnx.State) -> dict[Path, Place]:
  """Returns the place of each Variable of a model, or of its shapes."""
  return {
    path: place_of(path, variable.shape)
    for path, variable in nnx.to_flat_state(params)
  }


def zero_ffn(
  layer: int, model_dim: int, ffn_dim: int, dtype: jax.typing.DTypeLike
) -> dict[str, np.ndarray]:
  """Returns the tensors, by name, of a block's FFN that adds nothing."""
  found = {}
  for path in _FFN:
    down = path[1] == 'down'
    shape = (ffn_dim, model_dim) if down else (model_dim, ffn_dim)
    place = place_of(('blocks', layer, *path), shape)
    found[place.name] = np.zeros(place.stored_shape, dtype)
  return found
