"""Memory layer: a sparse key-value table in the place of a feed-forward block.

A token's query picks `k` of `num_slots` slots per head by product keys; the
values of those slots, weighted by a softmax over the kept scores, are summed
over slots and heads; a silu gate and an output projection bring the sum back to
the model dimension (Memory+ of "Memory Layers at Scale", arXiv 2412.09764):

  y = sum_{h, j} softmax_j(score[h, j]) * V[slot[h, j]]
  out = W2 (y * silu(W1 x))

Shapes: D model dim, N slots, n = sqrt(N) sub-keys per half, V value dim,
H heads, K key dim, k slots per head, A = H * k accesses per token.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from smft_jax import counting
from smft_jax import lookup
from smft_jax import overlay as overlay_lib
from smft_jax import product_keys
from smft_jax import schema
from smft_jax.sharded import layout as layout_lib
from smft_jax.sharded import lookup as sharded_lookup
from smft_jax.sharded import search as sharded_search


class MemoryParam(nnx.Param):
  """Any parameter of a memory layer: what healing trains, and nothing else."""


class MemoryValue(MemoryParam):
  """The value table [N, V]: what sparse memory finetuning may change.

  A type of its own, so that `wrt=MemoryValue` selects the gradient, the
  optimizer state and the part of a checkpoint that belong to the table.
  """


class MemorySubkeys(MemoryParam):
  """Sub-keys [H, 2, n, K / 2]: a type of its own, as a mesh splits them so."""


class AccessCounts(MemoryParam):
  """A count carrier [3, N]: its gradient tells which slots a loss read."""


class SlotIds(nnx.Intermediate):
  """Sown: the slots a layer read, int32 [..., A]."""


class SlotWeights(nnx.Intermediate):
  """Sown: the weights they were read with, float32 [..., A]."""


class ReadPerturbation(nnx.Perturbation):
  """A zero added to what a layer read, [..., V]: its gradient is the read's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySizes:
  """Sizes of a memory, which do not depend on the model around it.

  Attributes:
    num_slots: N, rows of the value table; a square, n * n.
    value_dim: V, size of one row; need not equal `model_dim`.
    num_heads: H, independent searches per token.
    k: slots each head reads; at most n.
    key_dim: K, size of one head's query; even, a half per sub-key.
    qk_norm: Normalise query and key halves, so that growing norms cannot
      collapse the softmax; keeps small models stable.

  Raises:
    ValueError: For a `num_slots` that is no square, a `k` above n, an odd
      `key_dim` or a size below 1.
  """

  num_slots: int
  value_dim: int
  num_heads: int = 4
  k: int = 32
  key_dim: int = 64
  qk_norm: bool = True

  def __post_init__(self) -> None:
    schema.at_least(
      1, self, 'num_slots', 'value_dim', 'num_heads', 'k', 'key_dim'
    )
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
    count_carrier: Hold `access_counts` beside the table. Their gradient shows
      `optim.sparse_memory_finetuning` what was read, in trainers that pass
      their optimizer gradients and nothing else.
    layout: Placement of tables, sub-keys and tokens on a mesh; None without
      one.
    dtype: Of parameters and computation. Softmax, norms and sums over slots
      are always float32.

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
  dtype: jax.typing.DTypeLike = jnp.float32

  def __post_init__(self) -> None:
    # By name, so that equal dtypes make equal configs.
    object.__setattr__(self, 'dtype', jnp.dtype(self.dtype).name)
    schema.at_least(1, self, 'model_dim')
    super().__post_init__()
    if self.layout is not None:
      self.layout.check(self.num_slots, self.value_dim, self.num_heads)


def make_values(config: MemoryConfig, rngs: nnx.Rngs) -> MemoryValue:
  """A fresh value table [N, V], normal with standard deviation V ** -0.5."""
  scale = config.value_dim**-0.5
  init = nnx.initializers.normal(scale)
  shape = (config.num_slots, config.value_dim)
  return MemoryValue(init(rngs.params(), shape, config.dtype))


def _unit(x: jax.Array, eps: float = 1e-6) -> jax.Array:
  """x over its root mean square along the last axis, in float32."""
  x = x.astype(jnp.float32)
  mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(mean_square + eps)


class ProductKeyMemory(nnx.Module):
  """Product-key memory layer with input gate (PAPER: SMF section 2, Memory+).

  Keeps the signature of a feed-forward block, [..., D] -> [..., D], so that it
  can stand in the place of one in any NNX model. What it read is sown as
  `SlotIds` and `SlotWeights`, to be collected by `nnx.capture`.

  Example:
    >>> config = MemoryConfig(model_dim=8, num_slots=49, value_dim=6,
    ...                       num_heads=2, k=3, key_dim=4)
    >>> layer = ProductKeyMemory(config, rngs=nnx.Rngs(0))
    >>> y, sown = nnx.capture(layer, SlotIds)(jnp.ones((2, 5, 8)))
    >>> y.shape, sown['slot_ids'][0].shape
    ((2, 5, 8), (2, 5, 6))
  """

  def __init__(
    self,
    config: MemoryConfig,
    *,
    rngs: nnx.Rngs,
    own_values: bool = True,
    output_gate: bool = False,
  ):
    """Makes the layer.

    Args:
      config: Its sizes.
      rngs: Source of the initial parameters.
      own_values: Whether the layer holds a table. Layers that share one pool
        hold none, and take it as the call argument `values`.
      output_gate: Whether the output is multiplied by a number per channel,
        zero at first. A layer that is put beside a trained block then adds
        nothing until it has learned to. The first step can only move the gate,
        all following ones the values too.

    Raises:
      ValueError: If there is to be a count carrier, but no table beside it.
    """
    if config.count_carrier and not own_values:
      raise ValueError(
        'count_carrier needs own_values: layers that share a pool carry no '
        'counts.'
      )
    self.config = config
    heads, n, half = (
      config.num_heads,
      config.subkeys_per_half,
      config.key_dim // 2,
    )
    dtype = config.dtype

    def normal(shape, stddev):
      init = nnx.initializers.normal(stddev)
      return MemoryParam(init(rngs.params(), shape, dtype))

    bound = config.key_dim**-0.5
    self.subkeys = MemorySubkeys(
      jax.random.uniform(
        rngs.params(), (heads, 2, n, half), dtype, -bound, bound
      )
    )
    self.query = normal(
      (config.model_dim, heads, config.key_dim), config.model_dim**-0.5
    )
    self.gate = normal(
      (config.model_dim, config.value_dim), config.value_dim**-0.5
    )
    self.out = normal(
      (config.value_dim, config.model_dim), config.model_dim**-0.5
    )
    if config.qk_norm:
      self.query_scale = MemoryParam(jnp.ones((heads, 2, half), dtype))
    if output_gate:
      self.output_gate = MemoryParam(jnp.zeros((config.model_dim,), dtype))
    if own_values:
      self.values = make_values(config, rngs)
    if config.count_carrier:
      self.access_counts = AccessCounts(counting.make_carrier(config.num_slots))

  def search(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The slots that x reads.

    Args:
      x: [..., D].

    Returns:
      Slot ids, int32 [..., A], and weights, float32 [..., A]; within a head
      best first and the weights summing to one.
    """
    config = self.config
    queries = jnp.einsum('...d,dhk->...hk', x, self.query[...])
    subkeys = self.subkeys[...]
    if config.qk_norm:
      halves = (*queries.shape[:-1], 2, config.key_dim // 2)
      scale = self.query_scale[...].astype(jnp.float32)
      scale = jnp.broadcast_to(scale, halves)
      queries = (_unit(queries.reshape(halves)) * scale).reshape(queries.shape)
      # Unit-length keys: a half's score is then about standard normal at
      # the start, and `query_scale` learns how sharp the softmax is.
      subkeys = _unit(subkeys) * (config.key_dim // 2) ** -0.5
    topk = product_keys.product_key_topk
    if config.layout is not None:
      topk = functools.partial(sharded_search.product_key_topk, config.layout)
    slot_ids, scores = topk(
      queries.astype(jnp.float32), subkeys.astype(jnp.float32), config.k
    )
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
    flat = (*x.shape[:-1], config.accesses_per_token)
    return slot_ids.reshape(flat), weights.reshape(flat)

  def __call__(
    self,
    x: jax.Array,
    values: jax.Array | None = None,
    overlay: overlay_lib.Overlay | None = None,
  ) -> jax.Array:
    """Reads the memory.

    Args:
      x: [..., D], the normed input of the block.
      values: [N, V], the shared pool; only for a layer without its own.
      overlay: Rows to read in place of the table's, for each row of a batch; x
        is [B, ..., D] then.

    Returns:
      [..., D] of x's dtype.

    Raises:
      ValueError: If there are two tables to read from, or none, or x is not of
        the model dimension.
    """
    if x.shape[-1] != self.config.model_dim:
      raise ValueError(
        f'a memory layer of model_dim = {self.config.model_dim} was given '
        f'{x.shape[-1]} channels: set model_dim to that.'
      )
    if (values is None) != hasattr(self, 'values'):
      raise ValueError(
        'a memory layer reads its own values or the shared pool given as '
        'the call argument `values`: exactly one of them.'
      )
    table = self.values[...] if values is None else values
    slot_ids, weights = self.search(x)
    read_rows = lookup.read_rows
    if self.config.layout is not None:
      read_rows = functools.partial(
        sharded_lookup.read_rows, self.config.layout
      )
    if overlay is None:
      read = read_rows(table, slot_ids, weights)
    else:
      read = overlay_lib.read_rows(table, overlay, slot_ids, weights, read_rows)
    read = read.astype(x.dtype)
    if self.config.count_carrier:
      read = counting.count_carrier(self.access_counts[...], slot_ids, read)
    # Outside nnx.capture, sow and perturb would write into the module.
    if hasattr(self, '__captures__'):
      self.sow(SlotIds, 'slot_ids', slot_ids)
      self.sow(SlotWeights, 'slot_weights', weights)
      read = self.perturb('read', read, ReadPerturbation)
    gate = jax.nn.silu(x @ self.gate[...])
    y = (read * gate) @ self.out[...]
    if not hasattr(self, 'output_gate'):
      return y
    channel_gate = self.output_gate[...]
    return y * channel_gate.reshape((1,) * (y.ndim - 1) + channel_gate.shape)


def layout_of(model: nnx.Module) -> layout_lib.Layout | None:
  """How a model's memory lies on a mesh; None without one."""
  for _, module in nnx.iter_modules(model):
    if isinstance(module, ProductKeyMemory):
      return module.config.layout
  return None


def spec_of(variable: nnx.Variable, layout: layout_lib.Layout) -> PartitionSpec:
  """How a Variable of a model lies on a mesh, or a moment of it."""
  if isinstance(variable, MemoryValue):
    return layout.values_NxV
  if isinstance(variable, AccessCounts):
    return PartitionSpec(None, *layout.slots_N)
  if isinstance(variable, MemorySubkeys):
    return layout.subkeys_Hx2xnxC
  return layout.dense(variable.shape)


def shardings_of(params: nnx.State, layout: layout_lib.Layout) -> nnx.State:
  """A sharding for each Variable of a model, or of its shapes."""
  return nnx.map_state(
    lambda _, variable: variable.replace(
      layout.sharding(spec_of(variable, layout))
    ),
    params,
  )
