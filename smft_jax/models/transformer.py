"""A Llama-family decoder with memory layers in place of or beside its FFNs.

Has the options that Llama, Qwen2 and Qwen3 weights need.

Shapes: B batch, L length, D model dim, H query heads, G key-value heads,
K head dim, S length of the key-value cache, T vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import memory as memory_lib
from smft_jax import overlay as overlay_lib
from smft_jax.models import layers
from smft_jax.models import vocabulary
from smft_jax.sharded import layout as layout_lib


class Cache(NamedTuple):
  """Keys and values of earlier tokens, for decoding.

  Attributes:
    keys: Per block [B, S, G, K], already rotated.
    values: Per block [B, S, G, K].
    mask: [B, S], True where a real token has been written.
    length: int32 [], columns written, padding included.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  mask: jax.Array
  length: jax.Array

  def repeated(self, batch_size: int, columns: int) -> Cache:
    """Repeats a cache of one row, with room for that many columns more."""

    def repeat(x):
      x = jnp.broadcast_to(x, (batch_size, *x.shape[1:]))
      return jnp.pad(x, [(0, 0), (0, columns), *[(0, 0)] * (x.ndim - 2)])

    return self._replace(
      keys=tuple(map(repeat, self.keys)),
      values=tuple(map(repeat, self.values)),
      mask=repeat(self.mask),
    )


class Block(nnx.Module):
  """Attention, then FFN, memory or both, each added to the residual stream."""

  def __init__(
    self, config: layers.TransformerConfig, layer: int, *, rngs: nnx.Rngs
  ):
    d, eps, dtype = config.model_dim, config.norm_eps, config.param_dtype
    has_memory = layer in config.memory_layers
    beside = config.memory_placement == 'beside'
    self.attention_norm = layers.RMSNorm(d, eps, dtype)
    self.attention = layers.Attention(config, rngs=rngs)
    self.mlp_norm = layers.RMSNorm(d, eps, dtype)
    self.mlp = (
      None
      if has_memory and not beside
      else layers.FeedForward(config, rngs=rngs)
    )
    self.memory = (
      memory_lib.ProductKeyMemory(
        config.memory,
        rngs=rngs,
        own_values=False,
        output_gate=beside and config.memory.gated,
      )
      if config.memory is not None and has_memory
      else None
    )

  def __call__(
    self, x, pool, mask, positions, attend, past=None, start=None, overlay=None
  ):
    """Applies the block.

    Args and returns are those of `layers.Attention`, with `pool`, the shared
    arguments of memory layers by name, `mask`, bool [B, L], False at padding,
    and the `overlay` of a memory layer.
    """
    mixed, present = self.attention(
      self.attention_norm(x), positions, attend, past, start
    )
    x += mixed
    normed = self.mlp_norm(x)
    if self.mlp is not None:
      x += self.mlp(normed)
    if self.memory is not None:
      x += self.memory(normed, overlay=overlay, mask=mask, **pool)
    return x, present


def _apply_again(block: Block, x: jax.Array, *args) -> jax.Array:
  """Applies a block without memory; its gradient applies it once more."""
  graphdef, state = nnx.split(block)

  @jax.checkpoint
  def apply(state, x, *args):
    return nnx.merge(graphdef, state)(x, *args)[0]

  return apply(state, x, *args)


class Transformer(nnx.Module):
  """Decoder: tokens -> logits.

  Example:
    >>> config = layers.TransformerConfig(
    ...     vocab_size=11, num_layers=2, model_dim=8, num_heads=2,
    ...     num_kv_heads=1, head_dim=4, ffn_dim=16)
    >>> model = Transformer(config, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((3, 5), jnp.int32)).shape
    (3, 5, 11)
  """

  def __init__(self, config: layers.TransformerConfig, *, rngs: nnx.Rngs):
    self.config = config
    shape = (config.vocab_size, config.model_dim)
    init = nnx.initializers.normal(0.02)
    self.embedding = nnx.Param(init(rngs.params(), shape, config.param_dtype))
    self.blocks = nnx.List(
      [Block(config, i, rngs=rngs) for i in range(config.num_layers)]
    )
    self.final_norm = layers.RMSNorm(
      config.model_dim, config.norm_eps, config.param_dtype
    )
    if not config.tie_embeddings:
      self.unembedding = nnx.Param(
        init(rngs.params(), shape, config.param_dtype)
      )
    # All memory layers read one table, passed in the call: nnx.split and merge
    # would not keep a Variable that is in two places.
    if config.memory is not None:
      self.pool = memory_lib.make_values(config.memory, rngs)
      if config.memory.quorum:
        self.lessons = memory_lib.make_lessons(config.memory)
      if config.memory.count_carrier:
        self.pool_counts = memory_lib.make_counts(config.memory)

  def __call__(
    self,
    tokens: jax.Array,
    mask: jax.Array | None = None,
    hidden: jax.Array | None = None,
    segments: jax.Array | None = None,
    overlay: overlay_lib.Overlay | None = None,
  ) -> jax.Array:
    """Computes the logits of every next token.

    Args:
      tokens: int32 [B, L].
      mask: bool [B, L], False at padding, which is never attended to and has
        no position; None if all tokens are real.
      hidden: [B, L, D], the result of `below_memory` for these tokens; None
        computes it.
      segments: int32 [B, L], the number of the text that each token belongs
        to, 0 at padding. Texts that share a row do not see each other. None if
        every row has one text.
      overlay: Rows that the memory layers read in place of the table's.

    Returns:
      Logits float32 [B, L, T].
    """
    x = self.final_hidden(tokens, mask, hidden, segments, overlay)
    return self.logits(x)

  def final_hidden(
    self,
    tokens: jax.Array,
    mask: jax.Array | None = None,
    hidden: jax.Array | None = None,
    segments: jax.Array | None = None,
    overlay: overlay_lib.Overlay | None = None,
  ) -> jax.Array:
    """Computes what `logits` and `nll` project, [B, L, D], as a call does."""
    if hidden is None:
      hidden = self.below_memory(tokens, mask, segments)
    above = self.blocks[self._num_below() :]
    return self._run(above, hidden, mask, segments, overlay)

  def logits(self, x: jax.Array) -> jax.Array:
    """Projects final hidden states, [..., D] -> float32 [..., T]."""
    return vocabulary.logits(self.final_norm(x), self._unembedding())

  def nll(self, x: jax.Array, targets: jax.Array) -> jax.Array:
    """Computes negative log-likelihoods of tokens, in nats.

    Args:
      x: Final hidden states [..., D].
      targets: int32 [...], the tokens that follow.

    Returns:
      float32 [...]. Large arrays of logits are never made.
    """
    return vocabulary.nll(self.final_norm(x), self._unembedding(), targets)

  def _unembedding(self) -> jax.Array:
    tied = self.config.tie_embeddings
    return (self.embedding if tied else self.unembedding)[...]

  def below_memory(
    self,
    tokens: jax.Array,
    mask: jax.Array | None = None,
    segments: jax.Array | None = None,
  ) -> jax.Array:
    """Computes the input of the lowest block with memory.

    It does not depend on the value table.

    Args:
      tokens: As for a call.
      mask: As for a call.
      segments: As for a call.

    Returns:
      Hidden states [B, L, D]; without memory, the last block's output.
    """
    below = self.blocks[: self._num_below()]
    return self._run(below, self._embed(tokens), mask, segments)

  def _num_below(self) -> int:
    return min(self.config.memory_layers, default=self.config.num_layers)

  def _run(
    self, blocks, x: jax.Array, mask, segments, overlay=None
  ) -> jax.Array:
    """Applies blocks to hidden states [B, L, D]."""
    x = self._split(x)
    if mask is None:
      mask = jnp.ones(x.shape[:2], bool)
    positions = layers.token_positions(mask, segments)
    attend = layers.causal_mask(mask, segments)
    given = self._pool(), mask, positions, attend
    for block in blocks:
      if self.config.remat and block.memory is None:
        x = _apply_again(block, x, *given)
      else:
        x, _ = block(x, *given, overlay=overlay)
    return x

  def init_cache(self, batch_size: int, length: int) -> Cache:
    """Returns an empty cache for `length` tokens."""
    config = self.config
    shape = (batch_size, length, config.num_kv_heads, config.head_dim)
    empty = (jnp.zeros(shape, config.dtype),) * config.num_layers
    mask = jnp.zeros((batch_size, length), bool)
    return Cache(empty, empty, mask, jnp.zeros((), jnp.int32))

  def extend(
    self,
    tokens: jax.Array,
    mask: jax.Array,
    cache: Cache,
    overlay: overlay_lib.Overlay | None = None,
  ) -> tuple[jax.Array, Cache]:
    """Adds tokens to the cache.

    Args:
      tokens: int32 [B, L], the next tokens, padded on the left.
      mask: bool [B, L], False at padding.
      cache: Earlier tokens. Must have L columns left; this is not checked, and
        more tokens would overwrite the last columns.
      overlay: As for a call.

    Returns:
      What `logits` projects, [B, L, D], and the longer cache.
    """
    size, start = tokens.shape[1], cache.length
    seen = jnp.sum(cache.mask, axis=1, dtype=jnp.int32)
    positions = seen[:, None] + jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1
    positions = jnp.maximum(positions, 0)
    key_mask = jax.lax.dynamic_update_slice_in_dim(
      cache.mask, mask, start, axis=1
    )
    rows = start + jnp.arange(size)
    columns = jnp.arange(key_mask.shape[1])
    attend = (rows[:, None] >= columns[None, :])[None] & key_mask[:, None]
    x = self._embed(tokens)
    keys, values = [], []
    for i, block in enumerate(self.blocks):
      past = (cache.keys[i], cache.values[i])
      x, (key, value) = block(
        x, self._pool(), mask, positions, attend, past, start, overlay
      )
      keys.append(key)
      values.append(value)
    return x, Cache(tuple(keys), tuple(values), key_mask, start + size)

  def _embed(self, tokens: jax.Array) -> jax.Array:
    """[B, L] -> [B, L, D]; gathers a split table first."""
    table = layout_lib.constrain_replicated(self._layout(), self.embedding[...])
    return self._split(table[tokens].astype(self.config.dtype))

  def _split(self, x: jax.Array) -> jax.Array:
    """Splits the batch of x over the replicas of a mesh, if there is one."""
    return layout_lib.constrain_batch(self._layout(), x)

  def _layout(self) -> layout_lib.Layout | None:
    memory = self.config.memory
    return None if memory is None else memory.layout

  def _pool(self) -> dict[str, jax.Array]:
    """Returns what memory layers share, by the name of their argument."""
    names = {'values': 'pool', 'lessons': 'lessons', 'carrier': 'pool_counts'}
    return {
      argument: getattr(self, name)[...]
      for argument, name in names.items()
      if hasattr(self, name)
    }
