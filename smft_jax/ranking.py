"""Which slots to update: access counts, background frequency, scores, top-t.

A slot should change when this batch uses it much and the rest of the world
seldom does. The counts say the first, the document frequencies over a
background corpus the second, and a ranking joins the two into one score.

Shape letters: N slots, B background documents, A accesses of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import types

import jax
import jax.numpy as jnp

from smft_jax import blocks

Ranking = Callable[[jax.Array, jax.Array, 'int | jax.Array'], jax.Array]


def counted_ids(
  slot_ids: jax.Array, num_slots: int, mask: jax.Array | None = None
) -> jax.Array:
  """Slot ids with everything that must not count moved out of range.

  Args:
    slot_ids: As for `count_accesses`.
    num_slots: N.
    mask: As for `count_accesses`.

  Returns:
    Integers of the shape of `slot_ids`; padding and negative ids became N.

  Raises:
    ValueError: As `count_accesses` does.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> ranking.counted_ids(jnp.array([[4, -1], [2, 3]]), 5,
    ...                     mask=jnp.array([True, False])).tolist()
    [[4, 5], [5, 5]]
  """
  if num_slots < 1:
    raise ValueError(f'num_slots must be at least 1, got {num_slots}.')
  if not jnp.issubdtype(slot_ids.dtype, jnp.integer):
    raise ValueError(f'slot_ids must be integers, got {slot_ids.dtype}.')
  # A negative id would count from the end of the table.
  counted = slot_ids >= 0
  if mask is not None:
    if mask.shape != slot_ids.shape[: mask.ndim] or mask.ndim >= slot_ids.ndim:
      raise ValueError(
        f'mask {mask.shape} must match the leading dims of slot_ids '
        f'{slot_ids.shape}.'
      )
    trailing = tuple(range(mask.ndim, slot_ids.ndim))
    counted &= jnp.expand_dims(mask.astype(bool), trailing)
  return jnp.where(counted, slot_ids, num_slots)


def count_accesses(
  slot_ids: jax.Array, num_slots: int, mask: jax.Array | None = None
) -> jax.Array:
  """Counts how often each slot was accessed: c(i).

  Every occurrence counts, over all tokens, heads and k, whatever its weight.
  The sum is taken in int32 and so is exact; float32 holds it exactly up to
  2**24 accesses of one slot. Counts of replicas and micro-batches are to be
  added before ranking.

  Args:
    slot_ids: Integers [..., A]. Ids outside [0, num_slots) are not counted.
    num_slots: N.
    mask: Booleans with the shape of leading dims of `slot_ids`, such as
      [batch, length] for [batch, length, heads, k]; False = padding.

  Returns:
    float32 [N].

  Raises:
    ValueError: If num_slots < 1, slot_ids are no integers or the mask does not
      fit them.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> slot_ids = jnp.array([[0, 2], [2, 1]])
    >>> ranking.count_accesses(slot_ids, 4).tolist()
    [1.0, 1.0, 2.0, 0.0]
    >>> ranking.count_accesses(
    ...     slot_ids, 4, mask=jnp.array([True, False])).tolist()
    [1.0, 0.0, 1.0, 0.0]
  """
  ids = counted_ids(slot_ids, num_slots, mask).reshape(-1)
  counts_N = jnp.zeros((num_slots,), jnp.int32).at[ids].add(1, mode='drop')
  return counts_N.astype(jnp.float32)


def document_frequency(
  slot_ids: jax.Array, num_slots: int, mask: jax.Array | None = None
) -> jax.Array:
  """Counts in how many documents each slot was accessed at least once: df(i).

  What a document is, the caller says by the leading axis: a sequence, or a
  whole batch as in the paper. Frequencies of several calls add up.

  Args:
    slot_ids: Integers [documents, ..., A]. Ids outside [0, num_slots) are not
      counted.
    num_slots: N.
    mask: Booleans with the shape of leading dims of `slot_ids`; False =
      padding.

  Returns:
    float32 [N], at most the number of documents.

  Raises:
    ValueError: If num_slots < 1, slot_ids are no integers or have no document
      axis, or the mask does not fit them.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> slot_ids = jnp.array([[[0, 2], [2, 1]], [[2, 2], [2, 2]]])
    >>> ranking.document_frequency(slot_ids, 4).tolist()
    [1.0, 1.0, 2.0, 0.0]
  """
  if slot_ids.ndim < 2:
    raise ValueError(
      f'slot_ids must have shape [documents, ..., A], got {slot_ids.shape}.'
    )
  ids = counted_ids(slot_ids, num_slots, mask)

  def add_document(frequency_N, document_ids):
    present_N = jnp.zeros((num_slots,), jnp.int32)
    present_N = present_N.at[document_ids].set(1, mode='drop')
    return frequency_N + present_N, None

  frequency_N, _ = jax.lax.scan(
    add_document,
    jnp.zeros((num_slots,), jnp.int32),
    ids.reshape(ids.shape[0], -1),
  )
  return frequency_N.astype(jnp.float32)


def inverse_document_frequency(
  document_frequency: jax.Array, num_documents: int | jax.Array
) -> jax.Array:
  r"""Weighs slots by how seldom the background corpus uses them.

  .. math:: idf(i) = \log \frac{|B| + 1}{df(i) + 1}

  Zero for a slot that every background document uses.

  Args:
    document_frequency: Numbers [N].
    num_documents: |B|, the number of background documents.

  Returns:
    float32 [N].

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> idf = ranking.inverse_document_frequency(jnp.array([0, 3, 7]), 7)
    >>> [round(x, 3) for x in idf.tolist()]
    [2.079, 0.693, 0.0]

  References:
    Lin et al., Continual Learning via Sparse Memory Finetuning,
    arXiv:2510.15103.
  """
  documents = jnp.asarray(num_documents, jnp.float32)
  frequency_N = jnp.asarray(document_frequency, jnp.float32)
  return jnp.log((documents + 1) / (frequency_N + 1))


def _shares(counts_N: jax.Array) -> jax.Array:
  """counts / sum(counts), and zeros where nothing was accessed."""
  counts_N = jnp.asarray(counts_N, jnp.float32)
  total = jnp.sum(counts_N)
  return counts_N / jnp.where(total > 0, total, 1)


def _check_matching(counts: jax.Array, document_frequency: jax.Array) -> None:
  if counts.ndim != 1 or counts.shape != document_frequency.shape:
    raise ValueError(
      'counts and document_frequency must both be [num_slots], got '
      f'{counts.shape} and {document_frequency.shape}.'
    )


def tf_idf(
  counts: jax.Array,
  document_frequency: jax.Array,
  num_documents: int | jax.Array,
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
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> scores = ranking.tf_idf(
    ...     jnp.array([3.0, 1.0, 0.0]), jnp.array([7.0, 0.0, 0.0]), 7)
    >>> [round(x, 3) for x in scores.tolist()]
    [0.0, 0.52, 0.0]

  References:
    Lin et al., Continual Learning via Sparse Memory Finetuning,
    arXiv:2510.15103.
  """
  _check_matching(counts, document_frequency)
  idf_N = inverse_document_frequency(document_frequency, num_documents)
  return _shares(counts) * idf_N


def tf_idf_cubed(
  counts: jax.Array,
  document_frequency: jax.Array,
  num_documents: int | jax.Array,
) -> jax.Array:
  r"""Scores slots by :math:`c(i) / \sum_j c(j) \cdot idf(i)^3`.

  The cube makes a slot that the background uses much costlier still, so more
  of what was known is kept. Not from the paper. Arguments, result and errors
  as for `tf_idf`.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> scores = ranking.tf_idf_cubed(
    ...     jnp.array([3.0, 1.0]), jnp.array([3.0, 0.0]), 7)
    >>> [round(x, 3) for x in scores.tolist()]
    [0.25, 2.248]
  """
  _check_matching(counts, document_frequency)
  idf_N = inverse_document_frequency(document_frequency, num_documents)
  return _shares(counts) * idf_N**3


def tf(
  counts: jax.Array,
  document_frequency: jax.Array,
  num_documents: int | jax.Array,
) -> jax.Array:
  """Scores slots by their share of the accesses; ignores the background.

  The paper's ablation. Arguments, result and errors as for `tf_idf`.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> ranking.tf(jnp.array([3.0, 1.0]), jnp.array([7.0, 0.0]), 7).tolist()
    [0.75, 0.25]
  """
  del num_documents
  _check_matching(counts, document_frequency)
  return _shares(counts)


def all_accessed(
  counts: jax.Array,
  document_frequency: jax.Array,
  num_documents: int | jax.Array,
) -> jax.Array:
  """Scores 1 for every accessed slot; to be used with t = N.

  With a smaller t, the lowest ids win the tie. The paper's ablation.
  Arguments, result and errors as for `tf_idf`.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> ranking.all_accessed(jnp.array([3.0, 0.0]), jnp.zeros(2), 7).tolist()
    [1.0, 0.0]
  """
  del num_documents
  _check_matching(counts, document_frequency)
  return (counts > 0).astype(jnp.float32)


def kl(
  counts: jax.Array,
  document_frequency: jax.Array,
  num_documents: int | jax.Array,
) -> jax.Array:
  r"""Scores slots by their part of the divergence from the background.

  .. math:: s(i) = P(i) \log \frac{P(i)}{Q(i)}

  with P the share of the accesses of this batch and Q(i) the share of
  df(i) + 1 in its sum. Arguments, result and errors as for `tf_idf`.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> scores = ranking.kl(
    ...     jnp.array([1.0, 3.0, 0.0]), jnp.array([4.0, 0.0, 0.0]), 4)
    >>> [round(x, 3) for x in scores.tolist()]
    [-0.262, 1.244, 0.0]

  References:
    arXiv:2604.05248, with df in place of the background's access counts.
  """
  del num_documents
  _check_matching(counts, document_frequency)
  p_N = _shares(counts)
  q_N = _shares(jnp.asarray(document_frequency, jnp.float32) + 1)
  # log(1) where P = 0, so that no NaN arises.
  return p_N * jnp.log(jnp.where(p_N > 0, p_N / q_N, 1))


RANKINGS: Mapping[str, Ranking] = types.MappingProxyType(
  {
    'tf_idf': tf_idf,
    'tf_idf_cubed': tf_idf_cubed,
    'tf': tf,
    'all_accessed': all_accessed,
    'kl': kl,
  }
)
"""Rankings by name: (counts, document_frequency, num_documents) -> scores."""


def random_scores(key: jax.Array, counts: jax.Array) -> jax.Array:
  """Scores accessed slots at random, uniform in (0, 1]; the others 0.

  Args:
    key: PRNG key.
    counts: Access counts of this batch, numbers [N].

  Returns:
    float32 [N].

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> scores = ranking.random_scores(jax.random.key(0), jnp.array([2, 0, 1]))
    >>> (scores > 0).tolist()
    [True, False, True]
  """
  uniform_N = jax.random.uniform(key, counts.shape, jnp.float32)  # [0, 1)
  return jnp.where(counts > 0, 1 - uniform_N, 0)


def top_slots(scores: jax.Array, t: int) -> jax.Array:
  """Selects the t slots of highest score.

  Only a score above 0 qualifies, so fewer than t slots may be selected: never
  one that was not accessed, nor one whose score is NaN or negative. Ties, which
  are common, go to the lower id.

  Args:
    scores: Floats [N].
    t: Number of places, in [1, N].

  Returns:
    int32 [t], best first; unused places hold N, which is out of range and is
    dropped by scatters with mode='drop'.

  Raises:
    ValueError: If scores are not [N], or t is not in [1, N].

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import ranking
    >>> ranking.top_slots(
    ...     jnp.array([0.1, jnp.nan, 0.7, 0.0, 0.7]), 4).tolist()
    [2, 4, 0, 5]
  """
  if scores.ndim != 1:
    raise ValueError(f'scores must have shape [N], got {scores.shape}.')
  check_t(t, scores.shape[0])
  best_t, slots_t = blocks.top_k(jnp.where(scores > 0, scores, 0), t)
  return jnp.where(best_t > 0, slots_t, scores.shape[0]).astype(jnp.int32)


def check_t(t: int, num_slots: int | None = None) -> None:
  """Raises a one-line ValueError unless 1 <= t <= num_slots.

  Args:
    t: Number of slots to select.
    num_slots: N; None checks the lower end only.

  Example:
    >>> from smft_jax import ranking
    >>> ranking.check_t(500, num_slots=256)
    Traceback (most recent call last):
    ...
    ValueError: t = 500 is more than the 256 slots there are: lower t to 256.
  """
  if t < 1:
    raise ValueError(f't = {t} selects no slots: it must be at least 1.')
  if num_slots is not None and t > num_slots:
    raise ValueError(
      f't = {t} is more than the {num_slots} slots there are: lower t to '
      f'{num_slots}.'
    )
