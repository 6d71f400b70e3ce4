"""Sizes and parts of a Llama-family decoder: norm, rotary attention, SwiGLU.

Shapes: B batch, L length, S attended length, D model dim, H query heads,
G key-value heads, K head dim, F FFN dim.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import memory as memory_lib
from smft_jax import schema
from smft_jax.models import products
from smft_jax.models import rotary


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderOptions:
  """Options of every decoder, made from scratch or loaded.

  Attributes:
    dtype: Dtype of computation; norms, softmax and logits are float32.
    param_dtype: Dtype in which parameters are stored. What trains needs
      float32: a step of 1e-5 does not move a bfloat16 of 1.0. Frozen weights
      may be bfloat16. The value table has its own, `memory.value_dtype`.
    memory_layers: Blocks with memory, counted from 0; they share one value
      table.
    memory_placement: 'replace' puts memory in place of those blocks' FFNs,
      'beside' next to them, with an output gate that starts at zero.
    remat: Keep a block's input alone for its gradient, which then computes the
      rest again: a third more time in exchange for memory. Blocks with memory
      keep all.
  """

  dtype: jax.typing.DTypeLike = dataclasses.field(
    default='float32', metadata={'type': Literal['float32', 'bfloat16']}
  )
  param_dtype: jax.typing.DTypeLike = dataclasses.field(
    default='float32', metadata={'type': Literal['float32', 'bfloat16']}
  )
  memory_layers: tuple[int, ...] = ()
  memory_placement: Literal['replace', 'beside'] = 'replace'
  remat: bool = False

  def __post_init__(self) -> None:
    # By name, so that equal dtypes make equal configs.
    for name in ('dtype', 'param_dtype'):
      object.__setattr__(self, name, jnp.dtype(getattr(self, name)).name)
    placements = ('replace', 'beside')
    schema.one_of('memory_placement', self.memory_placement, placements)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderSizes(DecoderOptions):
  """Sizes and options of a decoder, which do not depend on its vocabulary.

  Attributes:
    num_layers: Number of blocks.
    model_dim: D, size of the hidden states.
    num_heads: H, query heads.
    num_kv_heads: G, key-value heads; divides `num_heads`.
    head_dim: K, size of one head; even, for the rotation.
    ffn_dim: F, inner size of the SwiGLU.
    rope_theta: Base of the rotary frequencies.
    rope_scaling: Llama 3.1's scaling of the rotary frequencies, or None.
    norm_eps: Constant added to the mean square in RMSNorm.
    qkv_bias: Use biases on the query, key and value projections (Qwen2).
    qk_norm: Use RMSNorm on each head's query and key (Qwen3).
    tie_embeddings: Compute logits from the embedding table.

  Raises:
    ValueError: For sizes that do not fit together.
  """

  num_layers: int
  model_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  ffn_dim: int
  rope_theta: float = 10_000.0
  rope_scaling: rotary.RopeScaling | None = None
  norm_eps: float = 1e-6
  qkv_bias: bool = False
  qk_norm: bool = False
  tie_embeddings: bool = True

  def __post_init__(self) -> None:
    super().__post_init__()
    schema.at_least(1, self, 'num_layers', 'model_dim', 'num_heads')
    schema.at_least(1, self, 'num_kv_heads', 'head_dim', 'ffn_dim')
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f'num_kv_heads must divide num_heads = {self.num_heads}, got'
        f' {self.num_kv_heads}'
      )
    if self.head_dim % 2:
      raise ValueError(
        'head_dim must be even for rotary positions, got'
        f' {self.head_dim}; take {self.head_dim + 1}'
      )
    if len(set(self.memory_layers)) < len(self.memory_layers):
      raise ValueError(
        f'memory_layers = {self.memory_layers} names a block twice'
      )
    for layer in self.memory_layers:
      if not 0 <= layer < self.num_layers:
        raise ValueError(
          f'memory_layers has {layer}, but there is no block {layer}; blocks'
          f' are 0 to {self.num_layers - 1}'
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(DecoderSizes):
  """A whole decoder: its sizes, its vocabulary and its memory.

  Attributes:
    vocab_size: T, tokens.
    memory: The memory layers' sizes; None for a plain decoder.

  Raises:
    ValueError: For sizes that do not fit together.
  """

  vocab_size: int
  memory: memory_lib.MemoryConfig | None = None

  def __post_init__(self) -> None:
    super().__post_init__()
    schema.at_least(1, self, 'vocab_size')
    if bool(self.memory_layers) != (self.memory is not None):
      raise ValueError(
        'memory and memory_layers go together: give both or neither'
      )
    if self.memory and self.memory.model_dim != self.model_dim:
      raise ValueError(
        f'memory.model_dim must be model_dim = {self.model_dim}, got'
        f' {self.memory.model_dim}'
      )


class RMSNorm(nnx.Module):
  """Computes x / rms(x) * scale over the last axis, in float32."""

  def __init__(self, dim: int, eps: float, dtype: jax.typing.DTypeLike):
    self.scale = nnx.Param(jnp.ones((dim,), dtype))
    self.eps = eps

  def __call__(self, x: jax.Array) -> jax.Array:
    """Norms x, [..., D]."""
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    normed = (x32 * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype)
    scale = self.scale[...].astype(x.dtype)
    return normed * scale.reshape((1,) * (x.ndim - 1) + scale.shape)


def token_positions(
  mask: jax.Array, segments: jax.Array | None = None
) -> jax.Array:
  """Counts tokens from 0 at the start of their row or segment.

  Args:
    mask: bool [B, L], False at padding, which is not counted.
    segments: int32 [B, L], the number of the text that each token belongs to.
      The texts of a row follow each other without gaps. None if every row has
      one text.

  Returns:
    int32 [B, L].

  Example:
    >>> segments = jnp.array([[1, 1, 1, 2, 2, 0]])
    >>> token_positions(segments > 0).tolist()
    [[0, 1, 2, 3, 4, 4]]
    >>> token_positions(segments > 0, segments).tolist()
    [[0, 1, 2, 0, 1, 0]]
  """
  positions = jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)
  if segments is None:
    return positions
  before = jnp.pad(segments, ((0, 0), (1, 0)))[:, :-1]
  starts = jnp.where(segments != before, positions, 0)
  return positions - jax.lax.cummax(starts, axis=1)


def causal_mask(
  mask: jax.Array, segments: jax.Array | None = None
) -> jax.Array:
  """Lets each token attend to the real tokens up to itself, in its segment.

  Args:
    mask: As for `token_positions`.
    segments: As for `token_positions`.

  Returns:
    bool [B, L, L]: attending token by attended token.

  Example:
    >>> segments = jnp.array([[1, 2, 2]])
    >>> causal_mask(segments > 0, segments).astype(int).tolist()
    [[[1, 0, 0], [0, 1, 0], [0, 1, 1]]]
  """
  columns = jnp.arange(mask.shape[1])
  attend = (columns[:, None] >= columns[None, :])[None] & mask[:, None, :]
  if segments is not None:
    attend &= segments[:, :, None] == segments[:, None, :]
  return attend


class Projection(nnx.Module):
  """A matrix from one group of axes to another, such as [D] to [H, K].

  A module, so that methods can replace it: see `methods.surgery`.

  Attributes:
    weight: [*in_shape, *out_shape]; normal, with standard deviation
      prod(in_shape) ** -0.5.
    num_in: Number of input axes of `weight`.
  """

  def __init__(
    self,
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    config: TransformerConfig,
    *,
    rngs: nnx.Rngs,
  ):
    init = nnx.initializers.normal(math.prod(in_shape) ** -0.5)
    shape = (*in_shape, *out_shape)
    self.weight = nnx.Param(init(rngs.params(), shape, config.param_dtype))
    self.num_in = len(in_shape)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., *in_shape] -> [..., *out_shape]."""
    if x.dtype.itemsize < 4:
      return products.project(x, self.weight[...], self.num_in)
    return jnp.tensordot(x, self.weight[...].astype(x.dtype), self.num_in)


class Attention(nnx.Module):
  """Causal grouped-query attention."""

  def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
    self.config = config
    d, k = config.model_dim, config.head_dim
    h, g = config.num_heads, config.num_kv_heads
    self.query = Projection((d,), (h, k), config, rngs=rngs)
    self.key = Projection((d,), (g, k), config, rngs=rngs)
    self.value = Projection((d,), (g, k), config, rngs=rngs)
    self.out = Projection((h, k), (d,), config, rngs=rngs)
    if config.qkv_bias:
      self.query_bias = nnx.Param(jnp.zeros((h, k), config.param_dtype))
      self.key_bias = nnx.Param(jnp.zeros((g, k), config.param_dtype))
      self.value_bias = nnx.Param(jnp.zeros((g, k), config.param_dtype))
    if config.qk_norm:
      self.query_norm = RMSNorm(k, config.norm_eps, config.param_dtype)
      self.key_norm = RMSNorm(k, config.norm_eps, config.param_dtype)

  def __call__(self, x, positions, attend, past=None, start=None):
    """Attends.

    Args:
      x: [B, L, D], normed.
      positions: int32 [B, L].
      attend: bool [B, L, S]; S is L without a cache.
      past: Cached keys and values, each [B, S, G, K], or None.
      start: int32 [], the cache column of x's first token.

    Returns:
      The output [B, L, D], and keys and values [B, S, G, K] that include x's.
    """
    config = self.config
    query, key, value = self.query(x), self.key(x), self.value(x)
    if config.qkv_bias:
      query += self.query_bias[...].astype(x.dtype)[None, None]
      key += self.key_bias[...].astype(x.dtype)[None, None]
      value += self.value_bias[...].astype(x.dtype)[None, None]
    if config.qk_norm:
      query, key = self.query_norm(query), self.key_norm(key)
    query, key = (
      rotary.rotate(x, positions, config.rope_theta, config.rope_scaling)
      for x in (query, key)
    )
    if past is not None:
      key, value = (
        jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=1)
        for old, new in zip(past, (key, value), strict=True)
      )
    return self.out(mix(query, key, value, attend)), (key, value)


def mix(
  query: jax.Array, key: jax.Array, value: jax.Array, attend: jax.Array
) -> jax.Array:
  """Mixes values by the softmax of scores, which is float32.

  Args:
    query: [B, L, H, K], heads in G groups that share one key-value head each.
    key: [B, S, G, K].
    value: [B, S, G, K].
    attend: bool [B, L, S].

  Returns:
    [B, L, H, K].
  """
  size, length, num_heads, dim = query.shape
  groups = key.shape[2]
  # One product of [H / G * L, K] for each row and group: in this order CPUs
  # take two thirds of the time of the products of [B, L, H, K] as they are.
  split = (size, length, groups, num_heads // groups, dim)
  query = query.reshape(split).transpose(0, 2, 3, 1, 4)
  key, value = (x.transpose(0, 2, 1, 3) for x in (key, value))
  att = jnp.einsum(
    'bgmk,bgsk->bgms',
    query.reshape(size, groups, -1, dim),
    key,
    preferred_element_type=jnp.float32,
  )
  att = att.reshape(*query.shape[:-1], -1) * dim**-0.5
  att = jnp.where(attend[:, None, None], att, jnp.finfo(jnp.float32).min)
  att = jax.nn.softmax(att, axis=-1).astype(value.dtype)
  mixed = jnp.einsum(
    'bgms,bgsk->bgmk', att.reshape(size, groups, -1, att.shape[-1]), value
  )
  mixed = mixed.reshape(query.shape).transpose(0, 3, 1, 2, 4)
  return mixed.reshape(size, length, num_heads, dim)


class FeedForward(nnx.Module):
  """SwiGLU: (silu(x W_gate) * x W_up) W_down."""

  def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
    d, f = config.model_dim, config.ffn_dim
    self.gate = Projection((d,), (f,), config, rngs=rngs)
    self.up = Projection((d,), (f,), config, rngs=rngs)
    self.down = Projection((f,), (d,), config, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., D]."""
    # In float32, in which CPUs compute bfloat16 anyway, but round once.
    gate, up = (y.astype(jnp.float32) for y in (self.gate(x), self.up(x)))
    return self.down((jax.nn.silu(gate) * up).astype(x.dtype))
