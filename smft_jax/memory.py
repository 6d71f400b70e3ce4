"""Memory layer: a sparse key-value table in place of a feed-forward block.

A token's query selects `k` of `num_slots` slots per head by product keys. Their
values, weighted by a softmax over the selected scores, are summed over slots
and heads; a silu gate and an output projection map the sum back to the model
dimension (Memory+ of "Memory Layers at Scale", arXiv:2412.09764):

  y = sum_{h, j} softmax_j(score[h, j]) * V[slot[h, j]]
  out = W2 (y * silu(W1 x))

A memory that `retrofit.fit_memory` adds has no gate: out = y. With a quorum
(`smft_jax.quorum`) a token reads the slots of one lesson, or none.

Shapes: D model dim, N slots, n = sqrt(N) sub-keys per half, V value dim,
H heads, K key dim, k slots per head, A = H * k accesses per token.
"""

from __future__ import annotations

import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from smft_jax import counting
from smft_jax import lookup
from smft_jax import overlay as overlay_lib
from smft_jax import product_keys
from smft_jax import quorum
from smft_jax.memory_config import MemoryConfig as MemoryConfig
from smft_jax.memory_config import MemorySizes as MemorySizes
from smft_jax.sharded import layout as layout_lib
from smft_jax.sharded import lookup as sharded_lookup
from smft_jax.sharded import search as sharded_search


class MemoryParam(nnx.Param):
  """Any parameter of a memory layer: exactly what healing trains."""


class MemoryValue(MemoryParam):
  """The value table [N, V], which sparse memory finetuning changes.

  `wrt=MemoryValue` selects its gradient, optimizer state and checkpoint. With a
  layout `nnx.get_partition_spec` finds its spec, as it does those of sub-keys,
  lessons and carriers.
  """


class MemorySubkeys(MemoryParam):
  """Sub-keys [H, 2, n, K / 2]; a mesh may split them differently."""


class AccessCounts(MemoryParam):
  """A count carrier [3, N]: its gradient counts the slots a loss read."""


class SlotLessons(nnx.Variable):
  """int32 [N]: the last lesson that taught each slot, from 1; 0 if none did.

  No parameter: nothing differentiates it. Only with a quorum.
  """


class MemoryInput(nnx.Intermediate):
  """Sown: what a layer was called with, [..., D]."""


class SlotIds(nnx.Intermediate):
  """Sown: the slots a layer read, int32 [..., A]."""


class SlotWeights(nnx.Intermediate):
  """Sown: the weights they were read with, float32 [..., A].

  With a quorum, 0 for slots that were found but not read.
  """


class ReadPerturbation(nnx.Perturbation):
  """A zero added to a layer's read, [..., V], to take the read's gradient."""


def make_values(config: MemoryConfig, rngs: nnx.Rngs) -> MemoryValue:
  """Makes a value table [N, V], normal with standard deviation V ** -0.5."""
  init = nnx.initializers.normal(config.value_dim**-0.5)
  shape = (config.num_slots, config.value_dim)
  values = init(rngs.params(), shape, config.value_dtype)
  return MemoryValue(values, **_placed(config, 'values_NxV'))


def make_counts(config: MemoryConfig) -> AccessCounts:
  """Makes the count carrier [3, N] of a table."""
  carrier = counting.make_carrier(config.num_slots)
  return AccessCounts(carrier, **_placed(config, 'slots_N', None))


def make_lessons(config: MemoryConfig) -> SlotLessons:
  """Makes the lessons [N] of a table that was taught nothing."""
  lessons = jnp.zeros((config.num_slots,), jnp.int32)
  return SlotLessons(lessons, **_placed(config, 'slots_N'))


def _placed(config: MemoryConfig, name: str, *before: None) -> dict[str, Any]:
  """Returns the metadata from which other trainers read a partition spec."""
  if config.layout is None:
    return {}
  spec = (*before, *getattr(config.layout, name))
  # Placed by `shardings_of` or by the trainer, not when it is made.
  return {'out_sharding': spec, 'eager_sharding': False}


def _unit(x: jax.Array, eps: float = 1e-6) -> jax.Array:
  """Divides x by its root mean square along the last axis, in float32."""
  x = x.astype(jnp.float32)
  mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(mean_square + eps)


class ProductKeyMemory(nnx.Module):
  """Product-key memory layer with input gate (arXiv:2510.15103, section 2).

  Has the signature of a feed-forward block, [..., D] -> [..., D], and can
  replace one in any NNX model. Sows what it read as `SlotIds` and
  `SlotWeights`; `nnx.capture` collects them.

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
    """Initializes the layer.

    Args:
      config: Sizes and options.
      rngs: Source of the initial parameters.
      own_values: Whether the layer has its own table. Layers that share a pool
        take it as the call argument `values` instead.
      output_gate: Whether to multiply the output by a number per channel, zero
        at first. A layer added to a trained block then adds nothing until it is
        trained. The first step moves the gate only, later steps also the rest.
    """
    self.config = config
    heads, half = config.num_heads, config.key_dim // 2
    dtype = config.param_dtype
    model_dim, value_dim = config.model_dim, config.value_dim

    def normal(stddev, *shape):
      init = nnx.initializers.normal(stddev)
      return MemoryParam(init(rngs.params(), shape, dtype))

    shape = (heads, 2, config.subkeys_per_half, half)
    bound = config.key_dim**-0.5
    subkeys = jax.random.uniform(rngs.params(), shape, dtype, -bound, bound)
    self.subkeys = MemorySubkeys(subkeys, **_placed(config, 'subkeys_Hx2xnxC'))
    self.query = normal(model_dim**-0.5, model_dim, heads, config.key_dim)
    if config.gated:
      self.gate = normal(value_dim**-0.5, model_dim, value_dim)
      self.out = normal(model_dim**-0.5, value_dim, model_dim)
    if config.qk_norm:
      self.query_scale = MemoryParam(jnp.ones((heads, 2, half), dtype))
    if output_gate:
      self.output_gate = MemoryParam(jnp.zeros((model_dim,), dtype))
    if own_values:
      self.values = make_values(config, rngs)
      if config.quorum:
        self.lessons = make_lessons(config)
      if config.count_carrier:
        self.access_counts = make_counts(config)

  def search(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Finds the slots that x reads.

    Args:
      x: [..., D].

    Returns:
      Slot ids, int32 [..., A], and weights, float32 [..., A]; within a head
      they are best first, and the weights sum to one.
    """
    config = self.config
    # In float32 and at full precision, as it decides which slots are read.
    queries = jnp.einsum(
      '...d,dhk->...hk',
      x.astype(jnp.float32),
      self.query[...].astype(jnp.float32),
      precision=jax.lax.Precision.HIGHEST,
    )
    subkeys = self.subkeys[...]
    if config.qk_norm:
      halves = (*queries.shape[:-1], 2, config.key_dim // 2)
      scale = jnp.broadcast_to(
        self.query_scale[...].astype(jnp.float32), halves
      )
      queries = (_unit(queries.reshape(halves)) * scale).reshape(queries.shape)
      # With keys of unit length, a half's score is about standard normal at
      # first; `query_scale` learns how sharp the softmax is.
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
    lessons: jax.Array | None = None,
    carrier: jax.Array | None = None,
    mask: jax.Array | None = None,
  ) -> jax.Array:
    """Reads the memory.

    Args:
      x: [..., D], the normalized input of the block.
      values: [N, V], the shared pool; only for a layer without its own table.
      overlay: Rows to read in place of the table's, for x of [B, ..., D].
      lessons: int32 [N], those of the shared pool; only with a quorum.
      carrier: [3, N], that of the shared pool; only with `count_carrier`.
      mask: bool [...], False at padding, which the carrier does not count;
        None counts the tokens that the loss depends on.

    Returns:
      [..., D] of x's dtype.

    Raises:
      ValueError: If there are two tables or none, x does not have `model_dim`
        channels, or x is split over an Explicit mesh and the layer has no
        layout.
    """
    if x.shape[-1] != self.config.model_dim:
      raise ValueError(
        f'a memory layer of model_dim = {self.config.model_dim} got '
        f'{x.shape[-1]} channels: set model_dim to {x.shape[-1]}.'
      )
    if self.config.layout is None:
      _check_whole(x)
    if (values is None) != hasattr(self, 'values'):
      raise ValueError('a layer reads exactly one table: its own or `values`.')
    table = self.values[...] if values is None else values
    slot_ids, weights = self.search(x)
    if self.config.quorum:
      if lessons is None:
        lessons = self.lessons[...]
      weights = quorum.read_one_lesson(
        overlay_lib.read_lessons(lessons, overlay, slot_ids),
        weights,
        # The weights of each head sum to one.
        self.config.quorum * self.config.num_heads,
      )
    layout, read_rows = self.config.layout, lookup.read_rows
    if layout is not None:
      read_rows = functools.partial(sharded_lookup.read_rows, layout)
    if overlay is None:
      read = read_rows(table, slot_ids, weights)
    else:
      read = overlay_lib.read_rows(table, overlay, slot_ids, weights, read_rows)
    read = read.astype(x.dtype)
    if self.config.count_carrier:
      if carrier is None:
        carrier = self.access_counts[...]
      read = counting.count_carrier(carrier, slot_ids, read, mask)
    # Outside nnx.capture, sow and perturb would change the module.
    if hasattr(self, '__captures__'):
      self.sow(MemoryInput, 'input', x)
      self.sow(SlotIds, 'slot_ids', slot_ids)
      self.sow(SlotWeights, 'slot_weights', weights)
      read = self.perturb('read', read, ReadPerturbation)
    y = read
    if self.config.gated:
      gate = jax.nn.silu(x @ self.gate[...].astype(x.dtype))
      y = (read * gate) @ self.out[...].astype(x.dtype)
    if hasattr(self, 'output_gate'):
      gate = self.output_gate[...].astype(x.dtype)
      y *= gate.reshape(*(1,) * (y.ndim - 1), -1)
    return y


def _check_whole(x: jax.Array) -> None:
  """Raises a ValueError if x is split over axes of the type Explicit."""
  sharding = jax.typeof(x).sharding
  if any(entry is not None for entry in sharding.spec):
    raise ValueError(
      f'x {x.shape} is split by {sharding.spec} over an Explicit mesh, and the'
      ' memory layer has no layout: give MemoryConfig(layout=make_layout(mesh))'
      ' a mesh from sharded.layout.make_mesh, or make yours with axes of the'
      ' type Auto.'
    )


def layout_of(model: nnx.Module) -> layout_lib.Layout | None:
  """Returns the layout of a model's memory layers; None without a mesh."""
  for _, module in nnx.iter_modules(model):
    if isinstance(module, ProductKeyMemory):
      return module.config.layout
  return None


def spec_of(variable: nnx.Variable, layout: layout_lib.Layout) -> PartitionSpec:
  """Returns the partition spec of a Variable of a model, or of its moments."""
  if isinstance(variable, MemoryValue):
    return layout.values_NxV
  if isinstance(variable, SlotLessons):
    return layout.slots_N
  if isinstance(variable, AccessCounts):
    return PartitionSpec(None, *layout.slots_N)
  if isinstance(variable, MemorySubkeys):
    return layout.subkeys_Hx2xnxC
  return layout.dense(variable.shape)


def shardings_of(params: nnx.State, layout: layout_lib.Layout) -> nnx.State:
  """Returns the sharding of each Variable of a model, or of its shapes."""

  def place(_, variable):
    return variable.replace(layout.sharding(spec_of(variable, layout)))

  return nnx.map_state(place, params)
