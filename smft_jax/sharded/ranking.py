"""Counts, ranks and selects slots that are split over many devices.

Each function takes a `layout.Layout` and then the arguments of its namesake in
`ranking` or `selection`, with a leading batch. It takes and returns whole
arrays; the device that has a slot counts and scores it. Counts and pointwise
scores, and so the slots selected, their order and ties, are the same to the
last bit. Rankings that depend on all slots may sum in another order.

Shape letters: A accesses of a token, N slots, M accesses of the batch, t
selected slots.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from smft_jax import ids
from smft_jax import ranking
from smft_jax import selection
from smft_jax.sharded import layout as layout_lib


def count_accesses(
  layout: layout_lib.Layout,
  slot_ids: jax.Array,
  num_slots: int,
  mask: jax.Array | None = None,
) -> jax.Array:
  """`ranking.count_accesses`; counts are split like the rows of the table.

  An all-reduce over replicas sends a float for each slot of a device.
  """
  return _count(layout, ranking.count_accesses, slot_ids, num_slots, mask)


def document_frequency(
  layout: layout_lib.Layout,
  slot_ids: jax.Array,
  num_slots: int,
  mask: jax.Array | None = None,
) -> jax.Array:
  """`ranking.document_frequency`; splits documents, the leading axis.

  Same communication and output sharding as `count_accesses`.
  """
  return _count(layout, ranking.document_frequency, slot_ids, num_slots, mask)


def _count(layout, count, slot_ids, num_slots, mask):
  row_axes = layout.row_axes
  batch_axes = layout.batch_axes(slot_ids.shape)

  def counts(slot_ids, mask):
    counted = ids.counted(slot_ids, num_slots, mask)
    shard = num_slots // layout.size(row_axes)
    local, _ = layout_lib.local_ids(counted, row_axes, shard)
    return layout_lib.psum(count(local, shard), batch_axes)

  mask = _mask(slot_ids, mask)
  specs = layout.batch(slot_ids.shape), layout.batch(mask.shape)
  return layout_lib.map_parts(layout, counts, specs, layout.slots_N)(
    slot_ids, mask
  )


def top_slots(
  layout: layout_lib.Layout, scores: jax.Array, t: int
) -> jax.Array:
  """`ranking.top_slots`, whole on every device.

  Devices exchange the t best slots of each, and their scores.
  """
  num_slots = scores.shape[0]
  ranking.check_t(t, num_slots)

  def top(scores):
    best = _top(scores, min(t, scores.size))
    return _best(layout, *best, t, num_slots)

  return layout_lib.map_parts(
    layout, top, (layout.slots_N,), PartitionSpec(None)
  )(scores)


def select_slots(
  layout: layout_lib.Layout,
  score: Callable[[jax.Array, jax.Array], jax.Array],
  slot_ids: jax.Array,
  document_frequency: jax.Array,
  t: int,
  *,
  mask: jax.Array | None = None,
  pointwise: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """`selection.select_slots`; both results are whole on every device.

  If `pointwise`, replicas exchange slot ids, M in all, and the shards of the
  table exchange candidates: bytes that do not depend on the number of slots.
  Otherwise the communication is that of `count_accesses` and `top_slots`, and
  `score` gets split arrays.
  """
  num_slots = document_frequency.shape[0]
  ranking.check_t(t, num_slots)
  if not pointwise:
    counts_N = count_accesses(layout, slot_ids, num_slots, mask)
    scores_N = score(counts_N, document_frequency)
    return top_slots(layout, scores_N, t), jnp.sum(counts_N > 0)
  row_axes = layout.row_axes
  batch_axes = layout.batch_axes(slot_ids.shape)

  def select(slot_ids, mask, frequency):
    shard = frequency.size
    counted = ids.counted(slot_ids, num_slots, mask)
    counted = layout_lib.all_gather(counted, batch_axes, 0)
    local, _ = layout_lib.local_ids(counted, row_axes, shard)
    most = min(t, shard)
    listed = selection.lists_accesses(local.size, shard, most)
    if listed:
      slots, counts = selection.accessed_slots(local, shard)
      frequency = frequency.at[slots].get(mode='clip')
    else:
      counts = ranking.count_accesses(local, shard)
    # Scores depend on the sum of all counts. One more entry holds the counts of
    # the other devices; it is dropped before the selection.
    total = jnp.sum(counts)
    others = layout_lib.psum(total, row_axes) - total
    scores = score(
      jnp.append(counts, others), jnp.append(frequency, frequency[0])
    )[:-1]
    if listed:
      best = selection.top_listed(slots, scores, most, shard)
    else:
      best = _top(scores, most)
    num_accessed = layout_lib.psum(jnp.sum(counts > 0), row_axes)
    return _best(layout, *best, t, num_slots), num_accessed

  mask = _mask(slot_ids, mask)
  return layout_lib.map_parts(
    layout,
    select,
    (layout.batch(slot_ids.shape), layout.batch(mask.shape), layout.slots_N),
    (PartitionSpec(None), PartitionSpec()),
  )(slot_ids, mask, document_frequency)


def _top(scores: jax.Array, t: int) -> tuple[jax.Array, jax.Array]:
  """`ranking.top_slots` and their scores; 0 for an unused place."""
  slots = ranking.top_slots(scores, t)
  return slots, scores.at[slots].get(mode='fill', fill_value=0)


def _mask(slot_ids: jax.Array, mask: jax.Array | None) -> jax.Array:
  """Returns the mask, or one without padding if there is none."""
  return jnp.ones(slot_ids.shape[:1], bool) if mask is None else mask


def _best(layout, slots, scores, t, num_slots):
  """Merges the best slots of each device into the t best of all."""
  row_axes = layout.row_axes
  if not row_axes:
    return slots
  shard = num_slots // layout.size(row_axes)
  first = jax.lax.axis_index(row_axes) * shard
  slots = jnp.where(slots < shard, slots + first, num_slots)
  slots, scores = (
    layout_lib.all_gather(x, row_axes, 0) for x in (slots, scores)
  )
  return selection.sort_slots(slots, scores)[:t]
