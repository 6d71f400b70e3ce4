"""Decides which slots to update: counts, document frequency, scores, top-t.

A slot should change if this batch uses it often and other text rarely does.
Access counts measure the first, document frequencies over a background corpus
the second, and a ranking combines the two into one score.

Shape letters: N slots, B background documents, A accesses of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
import math
import types

import jax
import jax.numpy as jnp

from smft_jax import blocks
from smft_jax import ids

Number = int | jax.Array
Ranking = Callable[[jax.Array, jax.Array, Number], jax.Array]


def count_accesses(
  slot_ids: jax.Array, num_slots: int, mask: jax.Array | None = None
) -> jax.Array:
  """Counts how often each slot was accessed: c(i).

  Every occurrence counts, over all tokens, heads and k, whatever its weight.
  Counts are exact up to 2**24 accesses of one slot. Add up the counts of
  replicas and micro-batches before ranking.

  Args:
    slot_ids: Integers [..., A]. Ids outside [0, num_slots) are not counted.
    num_slots: N.
    mask: Booleans with the shape of leading dims of `slot_ids`, for example
      [batch, length] for [batch, length, heads, k]; False = padding.

  Returns:
    float32 [N].

  Raises:
    ValueError: If num_slots is not an int of 1 or more, `slot_ids` are not
      integers or the mask does not match them.

  Example:
    >>> from smft_jax import ranking
    >>> slot_ids, mask = jnp.array([[0, 2], [2, 1]]), jnp.array([True, False])
    >>> ranking.count_accesses(slot_ids, 4).tolist()
    [1.0, 1.0, 2.0, 0.0]
    >>> ranking.count_accesses(slot_ids, 4, mask).tolist()
    [1.0, 0.0, 1.0, 0.0]
  """
  counted = ids.counted(slot_ids, num_slots, mask)
  return _count(counted.reshape(-1), num_slots)


@functools.partial(jax.jit, static_argnames='num_slots', inline=True)
def _count(ids_M, num_slots):
  counts_N = jnp.zeros((num_slots,), jnp.int32).at[ids_M].add(1, mode='drop')
  return counts_N.astype(jnp.float32)


def document_frequency(
  slot_ids: jax.Array, num_slots: int, mask: jax.Array | None = None
) -> jax.Array:
  """Counts the documents in which each slot was accessed: df(i).

  The leading axis is documents: one per sequence, or one per batch as in the
  paper. Frequencies of several calls add up.

  Args:
    slot_ids: Integers [documents, ..., A]. Ids outside [0, num_slots) are not
      counted.
    num_slots: N.
    mask: As for `count_accesses`.

  Returns:
    float32 [N], at most the number of documents.

  Raises:
    ValueError: As `count_accesses` does, and if `slot_ids` have no document
      axis.

  Example:
    >>> from smft_jax import ranking
    >>> slot_ids = jnp.array([[[0, 2], [2, 1]], [[2, 2], [2, 2]]])
    >>> ranking.document_frequency(slot_ids, 4).tolist()
    [1.0, 1.0, 2.0, 0.0]
  """
  counted = ids.counted(slot_ids, num_slots, mask)
  if counted.ndim < 2:
    raise ValueError(
      f'slot_ids must have shape [documents, ..., A], got {counted.shape}.'
    )
  return _document_frequency(counted, num_slots)


@functools.partial(jax.jit, static_argnames='num_slots', inline=True)
def _document_frequency(ids_BxM, num_slots):
  def add_document(frequency_N, document_ids):
    present_N = jnp.zeros((num_slots,), jnp.int32)
    present_N = present_N.at[document_ids].set(1, mode='drop')
    return frequency_N + present_N, None

  frequency_N, _ = jax.lax.scan(
    add_document,
    jnp.zeros((num_slots,), jnp.int32),
    ids_BxM.reshape(len(ids_BxM), math.prod(ids_BxM.shape[1:])),
  )
  return frequency_N.astype(jnp.float32)


def inverse_document_frequency(
  document_frequency: jax.Array, num_documents: Number
) -> jax.Array:
  r"""Weighs slots by how rarely the background corpus uses them.

  .. math:: idf(i) = \log \frac{|B| + 1}{df(i) + 1}

  Zero for a slot that every background document uses (arXiv:2510.15103).

  Args:
    document_frequency: Numbers [N].
    num_documents: |B|, the number of background documents.

  Returns:
    float32 [N].

  Example:
    >>> idf = inverse_document_frequency(jnp.array([0, 3, 7]), 7)
    >>> [round(x, 3) for x in idf.tolist()]
    [2.079, 0.693, 0.0]
  """
  documents = jnp.asarray(num_documents, jnp.float32)
  frequency_N = jnp.asarray(document_frequency, jnp.float32)
  return jnp.log((documents + 1) / (frequency_N + 1))


def _shares(counts: jax.Array, document_frequency: jax.Array) -> jax.Array:
  """counts / sum(counts); zeros where nothing was accessed."""
  counts_N = jnp.asarray(counts, jnp.float32)
  shapes = counts_N.shape, jnp.asarray(document_frequency).shape
  if counts_N.ndim != 1 or shapes[0] != shapes[1]:
    raise ValueError(
      'counts and document_frequency must both be [num_slots], got '
      f'{shapes[0]} and {shapes[1]}.'
    )
  total = jnp.sum(counts_N)
  return counts_N / jnp.where(total > 0, total, 1)


def tf_idf(
  counts: jax.Array, document_frequency: jax.Array, num_documents: Number
) -> jax.Array:
  r"""Scores slots as the paper does.

  .. math:: s(i) = \frac{c(i)}{\sum_j c(j)} \log \frac{|B| + 1}{df(i) + 1}

  Args:
    counts: Access counts of this batch, numbers [N].
    document_frequency: Numbers [N].
    num_documents: |B|, the number of background documents.

  Returns:
    float32 [N]; zeros if nothing was accessed.

  Raises:
    ValueError: If `counts` and `document_frequency` are not both [N].

  Example:
    >>> from smft_jax import ranking
    >>> scores = ranking.tf_idf(
    ...     jnp.array([3.0, 1.0, 0.0]), jnp.array([7.0, 0.0, 0.0]), 7)
    >>> [round(x, 3) for x in scores.tolist()]
    [0.0, 0.52, 0.0]

  References:
    Lin et al., Continual Learning via Sparse Memory Finetuning,
    arXiv:2510.15103.
  """
  idf_N = inverse_document_frequency(document_frequency, num_documents)
  return _shares(counts, document_frequency) * idf_N


def tf_idf_squared(
  counts: jax.Array, document_frequency: jax.Array, num_documents: Number
) -> jax.Array:
  r"""Scores slots by :math:`c(i) / \sum_j c(j) \cdot idf(i)^2`.

  Penalizes slots that the background uses more than `tf_idf` does, and so
  keeps more of what the model knew. Not from the paper. Arguments, result and
  errors are those of `tf_idf`.

  Example:
    >>> scores = tf_idf_squared(
    ...     jnp.array([3.0, 1.0]), jnp.array([3.0, 0.0]), 7)
    >>> [round(x, 3) for x in scores.tolist()]
    [0.36, 1.081]
  """
  idf_N = inverse_document_frequency(document_frequency, num_documents)
  return _shares(counts, document_frequency) * idf_N**2


def tf_idf_cubed(
  counts: jax.Array, document_frequency: jax.Array, num_documents: Number
) -> jax.Array:
  """Like `tf_idf_squared`, with the cube of the idf."""
  idf_N = inverse_document_frequency(document_frequency, num_documents)
  return _shares(counts, document_frequency) * idf_N**3


def tf(
  counts: jax.Array, document_frequency: jax.Array, num_documents: Number
) -> jax.Array:
  """Scores slots by their share of the accesses; ignores the background.

  An ablation of the paper. Arguments, result and errors are those of `tf_idf`.

  Example:
    >>> tf(jnp.array([3.0, 1.0]), jnp.array([7.0, 0.0]), 7).tolist()
    [0.75, 0.25]
  """
  del num_documents
  return _shares(counts, document_frequency)


def all_accessed(
  counts: jax.Array, document_frequency: jax.Array, num_documents: Number
) -> jax.Array:
  """Scores every accessed slot 1; use it with t = N.

  With a smaller t the lowest ids win the tie. An ablation of the paper.
  Arguments, result and errors are those of `tf_idf`.

  Example:
    >>> all_accessed(jnp.array([3.0, 0.0]), jnp.zeros(2), 7).tolist()
    [1.0, 0.0]
  """
  del num_documents
  return (_shares(counts, document_frequency) > 0).astype(jnp.float32)


def kl(
  counts: jax.Array, document_frequency: jax.Array, num_documents: Number
) -> jax.Array:
  r"""Scores slots by their term of the KL divergence from the background.

  .. math:: s(i) = P(i) \log \frac{P(i)}{Q(i)}

  P is a slot's share of the accesses of this batch, Q its share of df + 1.
  Arguments, result and errors are those of `tf_idf`.

  Example:
    >>> scores = kl(
    ...     jnp.array([1.0, 3.0, 0.0]), jnp.array([4.0, 0.0, 0.0]), 4)
    >>> [round(x, 3) for x in scores.tolist()]
    [-0.262, 1.244, 0.0]

  References:
    arXiv:2604.05248, with df in place of the background's access counts.
  """
  del num_documents
  p_N = _shares(counts, document_frequency)
  q_N = _shares(jnp.asarray(document_frequency, jnp.float32) + 1, counts)
  # log(1) where P = 0, to avoid NaN.
  return p_N * jnp.log(jnp.where(p_N > 0, p_N / q_N, 1))


RANKINGS: Mapping[str, Ranking] = types.MappingProxyType(
  {
    f.__name__: f
    for f in (tf_idf, tf_idf_squared, tf_idf_cubed, tf, all_accessed, kl)
  }
)
"""Rankings by name: (counts, document_frequency, num_documents) -> scores."""

WITHOUT_BACKGROUND = frozenset({'tf', 'all_accessed'})
"""Rankings that do not read document frequencies."""

POINTWISE = frozenset(
  {'tf_idf', 'tf_idf_squared', 'tf_idf_cubed', 'tf', 'all_accessed'}
)
"""Rankings that score a slot by its own count and frequency and the sum of all
counts: accessed slots score the same with and without the others."""


def random_scores(key: jax.Array, counts: jax.Array) -> jax.Array:
  """Scores accessed slots at random, uniformly in (0, 1], and others 0.

  Args:
    key: PRNG key.
    counts: Access counts of this batch, numbers [N].

  Returns:
    float32 [N].

  Example:
    >>> scores = random_scores(jax.random.key(0), jnp.array([2, 0, 1]))
    >>> (scores > 0).tolist()
    [True, False, True]
  """
  uniform_N = jax.random.uniform(key, counts.shape, jnp.float32)  # [0, 1)
  return jnp.where(counts > 0, 1 - uniform_N, 0)


def top_slots(scores: jax.Array, t: int) -> jax.Array:
  """Selects the t slots of highest score.

  Only scores above 0 qualify, so fewer than t slots may be selected: never one
  that was not accessed, or whose score is NaN or negative. Ties, which are
  common, go to the lower id.

  Args:
    scores: Floats [N].
    t: Number of places, in [1, N].

  Returns:
    int32 [t], best first. Unused places hold N, which is out of range: scatters
    with mode='drop' skip it.

  Raises:
    ValueError: If scores are not [N] or t is no int in [1, N].

  Example:
    >>> from smft_jax import ranking
    >>> scores = jnp.array([0.1, jnp.nan, 0.7, 0.0, 0.7])
    >>> ranking.top_slots(scores, 4).tolist()
    [2, 4, 0, 5]
  """
  scores = jnp.asarray(scores)
  if scores.ndim != 1:
    raise ValueError(f'scores must have shape [N], got {scores.shape}.')
  check_t(t, scores.shape[0])
  return _top_slots(scores, t)


@functools.partial(jax.jit, static_argnames='t', inline=True)
def _top_slots(scores, t):
  best_t, slots_t = blocks.top_k(jnp.where(scores > 0, scores, 0), t)
  return jnp.where(best_t > 0, slots_t, scores.shape[0]).astype(jnp.int32)


def check_t(t: int, num_slots: int | None = None) -> None:
  """Raises a ValueError unless t is an int in [1, num_slots].

  Args:
    t: Number of slots to select.
    num_slots: N; None leaves it open.
  """
  ids.check_int('t', t)
  if t < 1:
    raise ValueError(f't = {t} selects no slots: it must be at least 1.')
  if num_slots is not None and t > num_slots:
    raise ValueError(
      f't = {t} is more than the {num_slots} slots there are: lower t to '
      f'{num_slots}.'
    )
