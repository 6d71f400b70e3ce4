"""The quorum: a token reads one lesson, and only with enough of its reads.

A fitted memory holds nothing but lessons: rows that none taught are zero. Reads
of taught slots gather in few tokens, such as the names that a lesson is about,
where they are most of the weight; elsewhere they are chance hits. Below the
quorum a token reads nothing, so that the model is there, bit for bit, what it
was before any lesson. The share is taken within one lesson, because that of all
lessons together grows with their number; and no other lesson is read beside it,
so that lessons do not disturb each other where they share a token.

Shape letters: A accesses of a token, T tokens (all leading dims).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from smft_jax import blocks

# Pairs of accesses compared at once.
_PAIRS = 2**24


def read_one_lesson(
  lessons: jax.Array, weights: jax.Array, quorum: float | jax.Array
) -> jax.Array:
  r"""Keeps the weights of the lesson that each token reads; others become 0.

  That is the lesson with the largest share of the token's read weight,

  .. math:: \sum_{a : l_a = l} w_a,

  if that is at least the quorum; of two with the same share the one met first.

  Args:
    lessons: Integers [..., A], the lesson that taught each slot read, from 1; 0
      if none did.
    weights: Floats [..., A], the weights of the reads.
    quorum: The least share, above 0, in the units of the weights.

  Returns:
    Floats [..., A].

  Example:
    >>> from smft_jax import quorum
    >>> lessons = jnp.array([[3, 0, 3, 5], [0, 0, 0, 5]])
    >>> weights = jnp.array([[0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.15, 0.1]])
    >>> quorum.read_one_lesson(lessons, weights, 0.2).tolist()
    [[0.25, 0.0, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0]]
  """
  num_accesses = lessons.shape[-1]

  def block(lessons_TxA, weights_TxA):
    taught_TxA = jnp.where(lessons_TxA > 0, weights_TxA, 0)
    same_TxAxA = lessons_TxA[:, :, None] == lessons_TxA[:, None, :]
    share_TxA = jnp.sum(
      jnp.where(same_TxAxA, taught_TxA[:, None, :], 0), axis=-1
    )
    # Untaught reads have a share of 0.
    best_T = jnp.argmax(share_TxA, axis=-1)
    lesson_T = jnp.take_along_axis(lessons_TxA, best_T[:, None], axis=-1)
    is_read = (lessons_TxA == lesson_T) & (share_TxA >= quorum)
    return jnp.where(is_read, taught_TxA, 0)

  kept_TxA = blocks.apply(
    block,
    max(1, _PAIRS // num_accesses**2),
    lessons.reshape(-1, num_accesses),
    weights.reshape(-1, num_accesses),
  )
  return kept_TxA.reshape(weights.shape)
