"""Which slots to update, at a cost that does not hang on how many there are.

Scores of all N slots are cheap where N is a few times the number of accesses.
In a larger table only the slots that were accessed are scored, the rest having
no score above 0, and nothing is made that grows with N.

Shape letters: N slots, M accesses (of all tokens and layers), P places of a
hash table, t selected slots.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from smft_jax import blocks
from smft_jax import ranking

# Up to so many slots per access, scores of all slots cost no more than listing
# the accessed ones (65,536 accesses on a CPU).
_SLOTS_PER_LISTED_ACCESS = 4

# Places of the hash table per access. Emptying more costs time, and with fewer
# more slots collide: at 16, 3% of them do in the first round.
_PLACES_PER_ACCESS = 16

# The bits of the largest finite float32. Smaller positive numbers, read as
# bits, are floats in the same order.
_LARGEST_FLOAT = 0x7F7FFFFF

POINTWISE = frozenset(ranking.RANKINGS) - {'kl'}
"""Rankings that score a slot by its own count and frequency and by the sum of
the counts alone: accessed slots score the same with and without the others."""


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

  The same slots as by `ranking.count_accesses`, `score` and
  `ranking.top_slots`.

  Args:
    score: (counts, document_frequency) -> scores, all [N]; or all [M] with the
      accessed slots alone, if `pointwise`. The score of a slot that was not
      accessed must not be above 0.
    slot_ids: Integers [..., A]; what all memory layers read, side by side.
    document_frequency: Numbers [N].
    t: Number of slots to select.
    mask: Booleans with the shape of leading dims of `slot_ids`; False =
      padding.
    pointwise: Whether `score` gives an accessed slot the same score without
      the slots that were not accessed, as the rankings in `POINTWISE` do.

  Returns:
    A pair `(slots, num_accessed)`: int32 [t] as `ranking.top_slots` gives
    them, and int32 [], the number of slots accessed.

  Raises:
    ValueError: As `ranking.count_accesses` and `ranking.top_slots` do.

  Example:
    >>> import functools
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking, selection
    >>> tf_idf = functools.partial(ranking.tf_idf, num_documents=9)
    >>> slots, num_accessed = selection.select_slots(
    ...     tf_idf, jnp.array([[3, 7], [7, 5]]), jnp.zeros(8).at[7].set(9), t=3)
    >>> slots.tolist(), int(num_accessed)
    ([3, 5, 8], 3)
  """
  num_slots = document_frequency.shape[0]
  ranking.check_t(t, num_slots)
  if not pointwise or not lists_accesses(slot_ids.size, num_slots, t):
    counts_N = ranking.count_accesses(slot_ids, num_slots, mask)
    slots_t = ranking.top_slots(score(counts_N, document_frequency), t)
    return slots_t, jnp.sum(counts_N > 0)
  slots_M, counts_M = accessed_slots(slot_ids, num_slots, mask)
  # Places without a slot take any frequency: their count is 0, so their score.
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

  The same counts as `ranking.count_accesses`, found by hashing: time and memory
  hang on the M accesses, not on the N slots.

  Args:
    slot_ids: As for `ranking.count_accesses`.
    num_slots: N.
    mask: As for `ranking.count_accesses`.

  Returns:
    A pair `(slots, counts)`, int32 [M] and float32 [M]: every accessed slot in
    one place, with its count; all other places hold N, out of range, and 0.

  Raises:
    ValueError: As `ranking.count_accesses` does.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import selection
    >>> slots, counts = selection.accessed_slots(
    ...     jnp.array([[7, 2], [2, 1]]), num_slots=9)
    >>> sorted(zip(slots.tolist(), counts.tolist()))
    [(1, 1.0), (2, 2.0), (7, 1.0), (9, 0.0)]
  """
  ids_M = ranking.counted_ids(slot_ids, num_slots, mask).reshape(-1)
  ids_M = jnp.minimum(ids_M, num_slots).astype(jnp.int32)
  counted_M = ids_M < num_slots
  own_M = jnp.arange(ids_M.size, dtype=jnp.int32)
  places = min(num_slots, ids_M.size * _PLACES_PER_ACCESS)

  def resolve(state):
    """One round: of the accesses that share a place one wins it."""
    round_, open_M, owner_M, winner_P = state
    # No two slots share their places in two rounds.
    place_M = (ids_M + round_ * (ids_M // places)) % places
    # Winners of the last round may stay: what is read was written just now.
    winner_P = winner_P.at[jnp.where(open_M, place_M, places)].set(
      own_M, mode='drop'
    )
    winner_M = winner_P.at[place_M].get(mode='promise_in_bounds')
    same_M = ids_M.at[winner_M].get(mode='promise_in_bounds') == ids_M
    owner_M = jnp.where(open_M & same_M, winner_M, owner_M)
    return round_ + 1, open_M & ~same_M, owner_M, winner_P

  _, _, owner_M, _ = jax.lax.while_loop(
    lambda state: jnp.any(state[1]),
    resolve,
    (jnp.int32(0), counted_M, own_M, jnp.zeros((places,), jnp.int32)),
  )
  counts_M = (
    jnp.zeros(ids_M.shape, jnp.int32)
    .at[owner_M]
    .add(counted_M.astype(jnp.int32), mode='promise_in_bounds')
  )
  slots_M = jnp.where(counts_M > 0, ids_M, num_slots)
  return slots_M, counts_M.astype(jnp.float32)


def top_listed(
  slots_M: jax.Array, scores_M: jax.Array, t: int, num_slots: int
) -> tuple[jax.Array, jax.Array]:
  """`ranking.top_slots` of slots in any order; ties to the lower slot id.

  Args:
    slots_M: Slot ids, distinct where their scores are above 0.
    scores_M: Their scores.
    t: Number of places, in [1, M].
    num_slots: N; what unused places hold.

  Returns:
    Slots int32 [t], best first, and their scores [t]; 0 of an unused place.
  """
  best_t, places_t = blocks.top_k(jnp.where(scores_M > 0, scores_M, 0), t)
  lowest = best_t[-1]
  # Of those that tie for the last places the lowest ids win: as bits of floats,
  # as there is no fast top-k of integers.
  tied_M = (scores_M == lowest) & (scores_M > 0)
  order_M = jax.lax.bitcast_convert_type(
    jnp.int32(_LARGEST_FLOAT) - slots_M, jnp.float32
  )
  _, tied_t = blocks.top_k(jnp.where(tied_M, order_M, 0), t)
  above = jnp.sum(best_t > lowest)
  ranks_t = jnp.arange(t)
  places_t = jnp.where(ranks_t < above, places_t, tied_t[(ranks_t - above) % t])
  slots_t = jnp.where(best_t > 0, slots_M[places_t], num_slots)
  return in_order(best_t, slots_t)


def in_order(
  scores: jax.Array, slots: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Slots and their scores, best first, ties to the lower id."""
  scores, slots = jax.lax.sort((-scores, slots), num_keys=2)
  return slots, -scores
