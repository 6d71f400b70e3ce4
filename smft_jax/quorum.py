"""The quorum: a token reads only if enough of its reads are of one lesson.

A fitted memory holds nothing but lessons: rows that none taught are zero. Reads
of taught slots gather in few tokens, such as the names that a lesson is about,
where they are most of the weight; elsewhere they are chance hits. Below the
quorum a token reads nothing, so that the model is there, bit for bit, what it
was before any lesson. The share is taken within one lesson, because that of all
lessons together grows with their number.

Shape letters: A accesses of a token, T tokens (all leading dims).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from smft_jax import blocks

# Pairs of accesses compared at once.
_PAIRS = 2**24


def largest_share(lessons: jax.Array, weights: jax.Array) -> jax.Array:
  r"""Sums each token's read weight by lesson, and returns the largest sum.

  .. math:: \max_{l > 0} \sum_{a : l_a = l} w_a

  Args:
    lessons: Integers [..., A], the lesson that taught each slot read, from 1; 0
      if none did.
    weights: Floats [..., A], the weights of the reads.

  Returns:
    Floats [...]; 0 for a token that reads no taught slot.

  Example:
    >>> from smft_jax import quorum
    >>> quorum.largest_share(
    ...     jnp.array([[3, 0, 3, 5], [0, 0, 0, 0]]),
    ...     jnp.array([[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]])
    ... ).tolist()
    [0.5, 0.0]
  """
  num_accesses = lessons.shape[-1]

  def block(lessons_TxA, weights_TxA):
    taught_TxA = jnp.where(lessons_TxA > 0, weights_TxA, 0)
    same_TxAxA = lessons_TxA[:, :, None] == lessons_TxA[:, None, :]
    sums_TxA = jnp.sum(
      jnp.where(same_TxAxA, taught_TxA[:, None, :], 0), axis=-1
    )
    return jnp.max(jnp.where(lessons_TxA > 0, sums_TxA, 0), axis=-1)

  share_T = blocks.apply(
    block,
    max(1, _PAIRS // num_accesses**2),
    lessons.reshape(-1, num_accesses),
    weights.reshape(-1, num_accesses),
  )
  return share_T.reshape(lessons.shape[:-1])
