"""Counts, rankings and top-t of slots that lie on many devices.

Each function is the one of its name in `ranking` or `selection`, with a
`layout_lib.Layout` put in front: it takes and returns whole arrays, and every
slot is counted and scored where its row lies. Counts, pointwise scores and so
the slots selected, their order and ties are the same to the last bit; rankings
that look at all slots may round their sums in another order.

Shape letters: A accesses of a token, N slots, M accesses of the batch, t
selected slots.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from smft_jax import ranking
from smft_jax import selection
from smft_jax.sharded import layout as layout_lib


def count_accesses(
  layout: layout_lib.Layout,
  slot_ids: jax.Array,
  num_slots: int,
  mask: jax.Array | None = None,
) -> jax.Array:
  """`ranking.count_accesses`, every slot counted where its row lies.

  Counts, a float for each slot of a device, are added up over replicas.

  Args:
    layout: Where arrays lie.
    slot_ids: As there, with a batch in front.
    num_slots: As there.
    mask: As there.

  Returns:
    As there; split as the rows of the table are.
  """
  return _count(layout, ranking.count_accesses, slot_ids, num_slots, mask)


def document_frequency(
  layout: layout_lib.Layout,
  slot_ids: jax.Array,
  num_slots: int,
  mask: jax.Array | None = None,
) -> jax.Array:
  """`ranking.document_frequency`; travels and returns as `count_accesses`.

  Args:
    layout: Where arrays lie.
    slot_ids: As there; documents, the leading axis, are split over replicas.
    num_slots: As there.
    mask: As there.

  Returns:
    As there; split as the rows of the table are.
  """
  return _count(layout, ranking.document_frequency, slot_ids, num_slots, mask)


def _count(layout, count, slot_ids, num_slots, mask):
  row_axes = layout.row_axes
  batch_axes = layout.batch_axes(slot_ids.shape)

  def counts(slot_ids, mask):
    ids = ranking.counted_ids(slot_ids, num_slots, mask)
    shard = num_slots // layout.size(row_axes)
    ids, _ = layout_lib.own(ids, row_axes, shard)
    return layout_lib.add_up(count(ids, shard), batch_axes)

  mask = _mask(slot_ids, mask)
  return layout_lib.map_parts(
    layout,
    counts,
    (layout.batch(slot_ids.shape), layout.batch(mask.shape)),
    layout.slots_N,
    slot_ids,
    mask,
  )


def top_slots(
  layout: layout_lib.Layout, scores: jax.Array, t: int
) -> jax.Array:
  """`ranking.top_slots`: each device's t best travel, and their scores.

  Args:
    layout: Where arrays lie.
    scores: As there.
    t: As there.

  Returns:
    As there, whole on every device.
  """
  num_slots = scores.shape[0]
  ranking.check_t(t, num_slots)

  def top(scores):
    best = _top(scores, min(t, scores.size))
    return _best(layout, *best, t, num_slots)

  return layout_lib.map_parts(
    layout, top, (layout.slots_N,), PartitionSpec(None), scores
  )


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
  """`selection.select_slots`, every slot scored where its row lies.

  For a ranking that is `pointwise`, slot ids travel over replicas, M in all,
  and candidates over the shards of the table: the same bytes for any number of
  slots. Else counts do as by `count_accesses`, and candidates as by
  `top_slots`.

  Args:
    layout: Where arrays lie.
    score: As there. Where not `pointwise`, it is applied to split arrays.
    slot_ids: As there, with a batch in front.
    document_frequency: As there.
    t: As there.
    mask: As there.
    pointwise: As there.

  Returns:
    As there, whole on every device.
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
    ids = ranking.counted_ids(slot_ids, num_slots, mask)
    ids = layout_lib.gather(ids, batch_axes, 0)
    ids, _ = layout_lib.own(ids, row_axes, shard)
    most = min(t, shard)
    listed = selection.lists_accesses(ids.size, shard, most)
    if listed:
      slots, counts = selection.accessed_slots(ids, shard)
      frequency = frequency.at[slots].get(mode='clip')
    else:
      counts = ranking.count_accesses(ids, shard)
    # Scores hang on the sum of all counts. One entry stands for those of the
    # other devices, and is none that can be selected.
    total = jnp.sum(counts)
    others = layout_lib.add_up(total, row_axes) - total
    scores = score(
      jnp.append(counts, others), jnp.append(frequency, frequency[0])
    )[:-1]
    if listed:
      best = selection.top_listed(slots, scores, most, shard)
    else:
      best = _top(scores, most)
    num_accessed = layout_lib.add_up(jnp.sum(counts > 0), row_axes)
    return _best(layout, *best, t, num_slots), num_accessed

  mask = _mask(slot_ids, mask)
  return layout_lib.map_parts(
    layout,
    select,
    (layout.batch(slot_ids.shape), layout.batch(mask.shape), layout.slots_N),
    (PartitionSpec(None), PartitionSpec()),
    slot_ids,
    mask,
    document_frequency,
  )


def _top(scores: jax.Array, t: int) -> tuple[jax.Array, jax.Array]:
  """`ranking.top_slots`, and their scores; 0 of an unused place."""
  slots = ranking.top_slots(scores, t)
  return slots, scores.at[slots].get(mode='fill', fill_value=0)


def _mask(slot_ids: jax.Array, mask: jax.Array | None) -> jax.Array:
  """A mask that leaves nothing out, where there is none."""
  return jnp.ones(slot_ids.shape[:1], bool) if mask is None else mask


def _best(
  layout: layout_lib.Layout,
  slots: jax.Array,
  scores: jax.Array,
  t: int,
  num_slots: int,
) -> jax.Array:
  """The t best slots of all devices, of the best ones of each."""
  row_axes = layout.row_axes
  if not row_axes:
    return slots
  shard = num_slots // layout.size(row_axes)
  first = jax.lax.axis_index(row_axes) * shard
  slots = jnp.where(slots < shard, slots + first, num_slots)
  slots, scores = (layout_lib.gather(x, row_axes, 0) for x in (slots, scores))
  return selection.in_order(scores, slots)[0][:t]
