"""Sizes and options of a memory layer.

Use them as `memory.MemoryConfig` and `memory.MemorySizes`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from smft_jax import ids
from smft_jax import schema
from smft_jax.sharded import layout as layout_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySizes:
  """Sizes of a memory, which do not depend on the model around it.

  Attributes:
    num_slots: N, rows of the value table; a square, n * n.
    value_dim: V, size of one row; 0 takes the model dim.
    num_heads: H, independent searches per token.
    k: slots each head reads; at most n.
    key_dim: K, size of one head's query; even, a half per sub-key.
    qk_norm: Normalise query and key halves, so that growing norms cannot
      collapse the softmax; keeps small models stable.
    gated: Pass what is read through an input gate and an output projection;
      False adds it to the model as it is, which takes a `value_dim` of D.
    value_dtype: Dtype of the value table; a read is summed in float32, then
      takes the dtype of the model's computation.
    quorum: Share of a token's read weight that must fall on slots of one lesson
      before the token reads them, and nothing else; 0 lets all tokens read all
      slots. Above 0, rows that no lesson taught are never read.

  Raises:
    ValueError: For a `num_slots` that is no square, a `k` above n, an odd
      `key_dim`, a size that is no int or below 1, or a `quorum` outside [0, 1).
  """

  num_slots: int
  value_dim: int = 0
  num_heads: int = 4
  k: int = 32
  key_dim: int = 64
  qk_norm: bool = True
  gated: bool = True
  quorum: float = 0.0
  value_dtype: jax.typing.DTypeLike = dataclasses.field(
    default='float32', metadata={'type': Literal['float32', 'bfloat16']}
  )

  def __post_init__(self) -> None:
    # By name, so that equal dtypes make equal configs.
    value_dtype = jnp.dtype(self.value_dtype).name
    object.__setattr__(self, 'value_dtype', value_dtype)
    for name in ('num_slots', 'value_dim', 'num_heads', 'k', 'key_dim'):
      ids.check_int(name, getattr(self, name))
    schema.at_least(1, self, 'num_slots', 'num_heads', 'k', 'key_dim')
    schema.at_least(0, self, 'value_dim')
    n = math.isqrt(self.num_slots)
    if n * n != self.num_slots:
      raise ValueError(
        f'num_slots must be a square, got {self.num_slots}; the nearest are'
        f' {n * n} and {(n + 1) ** 2}'
      )
    if self.k > n:
      raise ValueError(
        f'k must be at most sqrt(num_slots) = {n}, got {self.k}: lower k or'
        f' raise num_slots to {self.k**2}'
      )
    if self.key_dim % 2:
      raise ValueError(
        f'key_dim must be even, half for each sub-key, got {self.key_dim};'
        f' take {self.key_dim + 1}'
      )
    if not 0 <= self.quorum < 1:
      raise ValueError(
        f'quorum must be at least 0 and below 1, got {self.quorum}'
      )

  @property
  def subkeys_per_half(self) -> int:
    """n, the sub-keys that each half of a query is scored against."""
    return math.isqrt(self.num_slots)

  @property
  def accesses_per_token(self) -> int:
    """A = H * k."""
    return self.num_heads * self.k


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryConfig(MemorySizes):
  """Sizes and options of a memory layer.

  Attributes:
    model_dim: D, size of the layer's input and output.
    count_carrier: Whether to hold `access_counts` too. Its gradient tells
      `optim.sparse_memory_finetuning` what was read, in trainers that pass
      nothing but gradients to their optimizer.
    layout: Placement of tables, sub-keys and tokens on a mesh; None without
      one.
    param_dtype: Dtype of all parameters but the values. The layer computes in
      the dtype of its input; the search, norms, softmax and sums over slots are
      always float32.

  Raises:
    ValueError: As `MemorySizes`, and for sizes that the mesh does not divide.

  Example:
    >>> config = MemoryConfig(model_dim=8, num_slots=49, value_dim=6, k=3)
    >>> config.subkeys_per_half, config.accesses_per_token
    (7, 12)
  """

  model_dim: int
  count_carrier: bool = False
  layout: layout_lib.Layout | None = None
  param_dtype: jax.typing.DTypeLike = 'float32'

  def __post_init__(self) -> None:
    param_dtype = jnp.dtype(self.param_dtype).name
    object.__setattr__(self, 'param_dtype', param_dtype)
    schema.at_least(1, self, 'model_dim')
    if not self.value_dim:
      object.__setattr__(self, 'value_dim', self.model_dim)
    super().__post_init__()
    if not self.gated and self.value_dim != self.model_dim:
      raise ValueError(
        'a memory that is not gated adds its rows to the model as they are, so'
        f' value_dim must be {self.model_dim} like model_dim, got'
        f' {self.value_dim}'
      )
    if self.layout is not None:
      self.layout.check(self.num_slots, self.value_dim, self.num_heads)
