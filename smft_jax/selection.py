"""Selects the slots to update, at a cost independent of the table's size.

Scoring all N slots is cheap where N is a few times the number of accesses. In
a larger table only the accessed slots are scored (no other has a score above
0), and no array grows with N.

Shape letters: N slots, M accesses (of all tokens and layers), t selected slots.
"""

from __future__ import annotations

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from smft_jax import blocks
from smft_jax import ids
from smft_jax import ranking

# Up to this many slots per access, scoring all slots costs no more than listing
# the accessed ones (65,536 accesses on a CPU).
_SLOTS_PER_LISTED_ACCESS = 4


def select_slots(
  score: Callable[[jax.Array, jax.Array], jax.Array],
  slot_ids: jax.Array,
  document_frequency: jax.Array,
  t: int,
  *,
  mask: jax.Array | None = None,
  pointwise: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Counts accesses, scores slots and selects the t best.

  Selects the same slots as `ranking.count_accesses`, `score` and
  `ranking.top_slots` in turn.

  Args:
    score: (counts, document_frequency) -> scores, each [N]; if `pointwise`, it
      may get the accessed slots alone, each [M]. A slot that was not accessed
      must not score above 0.
    slot_ids: Integers [..., A]; the accesses of all memory layers.
    document_frequency: Numbers [N].
    t: Number of slots to select.
    mask: Booleans with the shape of leading dims of `slot_ids`; False =
      padding.
    pointwise: Whether accessed slots score the same without the others, as by
      the rankings in `ranking.POINTWISE`.

  Returns:
    A pair `(slots, num_accessed)`: int32 [t] as `ranking.top_slots` returns
    them, and int32 [], the number of slots accessed.

  Raises:
    ValueError: As `ranking.count_accesses` and `ranking.top_slots` do.

  Example:
    >>> import functools
    >>> from smft_jax import ranking, selection
    >>> tf_idf = functools.partial(ranking.tf_idf, num_documents=9)
    >>> slots, num_accessed = selection.select_slots(
    ...     tf_idf, jnp.array([[3, 7], [7, 5]]), jnp.zeros(8).at[7].set(9), t=3)
    >>> slots.tolist(), int(num_accessed)
    ([3, 5, 8], 3)
  """
  num_slots = document_frequency.shape[0]
  ranking.check_t(t, num_slots)
  slot_ids = ids.as_int32(slot_ids, num_slots)
  if not pointwise or not lists_accesses(slot_ids.size, num_slots, t):
    counts_N = ranking.count_accesses(slot_ids, num_slots, mask)
    slots_t = ranking.top_slots(score(counts_N, document_frequency), t)
    return slots_t, jnp.sum(counts_N > 0)
  slots_M, counts_M = accessed_slots(slot_ids, num_slots, mask)
  # A place without a slot has count 0 and so score 0, whatever its frequency.
  frequency_M = document_frequency.at[slots_M].get(mode='clip')
  scores_M = score(counts_M, frequency_M)
  slots_t, _ = top_listed(slots_M, scores_M, t, num_slots)
  return slots_t, jnp.sum(counts_M > 0)


def lists_accesses(num_accesses: int, num_slots: int, t: int) -> bool:
  """Whether a table is so large that only its accessed slots are scored."""
  few = num_slots <= num_accesses * _SLOTS_PER_LISTED_ACCESS
  return not few and t <= num_accesses


def accessed_slots(
  slot_ids: jax.Array, num_slots: int, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Lists the accessed slots and how often each was accessed.

  Finds the counts of `ranking.count_accesses` by sorting: time and memory
  depend on the M accesses, not on the N slots.

  Args:
    slot_ids: As for `ranking.count_accesses`.
    num_slots: N.
    mask: As for `ranking.count_accesses`.

  Returns:
    A pair `(slots, counts)`, int32 [M] and float32 [M]: every accessed slot in
    one place, in ascending order, with its count. Other places between and
    after them hold N, which is out of range, and 0.

  Raises:
    ValueError: As `ranking.count_accesses` does.

  Example:
    >>> from smft_jax import selection
    >>> slots, counts = selection.accessed_slots(
    ...     jnp.array([[7, 2], [2, 1]]), num_slots=9)
    >>> slots.tolist(), counts.tolist()
    ([1, 2, 9, 7], [1.0, 2.0, 0.0, 1.0])
  """
  return _accessed_slots(
    ids.counted(slot_ids, num_slots, mask).reshape(-1), num_slots
  )


@functools.partial(jax.jit, static_argnames='num_slots', inline=True)
def _accessed_slots(ids_M, num_slots):
  ids_M = jnp.sort(jnp.minimum(ids_M, num_slots))
  places_M = jnp.arange(ids_M.size, dtype=jnp.int32)
  # The first access of each slot represents it; its run ends at the next slot.
  is_first_M = jnp.diff(ids_M, prepend=jnp.int32(-1)) > 0
  starts_M = jnp.where(is_first_M, places_M, ids_M.size)
  ends_M = jax.lax.cummin(
    jnp.append(starts_M[1:], jnp.int32(ids_M.size)), reverse=True
  )
  is_first_M &= ids_M < num_slots
  counts_M = jnp.where(is_first_M, ends_M - places_M, 0)
  slots_M = jnp.where(is_first_M, ids_M, num_slots)
  return slots_M, counts_M.astype(jnp.float32)


def top_listed(
  slots_M: jax.Array, scores_M: jax.Array, t: int, num_slots: int
) -> tuple[jax.Array, jax.Array]:
  """`ranking.top_slots` of the slots that `accessed_slots` lists, and scores.

  Unused places of the t <= M hold `num_slots` and score 0.
  """
  return _top_listed(slots_M, scores_M, t, num_slots)


@functools.partial(jax.jit, static_argnames=('t', 'num_slots'), inline=True)
def _top_listed(slots_M, scores_M, t, num_slots):
  best_t, places_t = blocks.top_k(jnp.where(scores_M > 0, scores_M, 0), t)
  return jnp.where(best_t > 0, slots_M[places_t], num_slots), best_t


def sort_slots(slots: jax.Array, scores: jax.Array) -> jax.Array:
  """Sorts slots by their scores, best first, ties to the lower id."""
  return jax.lax.sort((-scores, slots), num_keys=2)[1]
