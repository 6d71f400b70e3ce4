"""Exact search for the best of n * n keys among 2 * n sub-keys.

A slot's key is the concatenation of one sub-key of the first half and one of
the second, so its score is the sum of two dot products and the k best slots
are among the k x k sums of the k best sub-keys of each half (product-key
memory, arXiv:1907.05242).

Shape letters: H heads, K key dim, C = K / 2, n sub-keys in a half, N = n * n
slots, k slots kept, c candidates for them, X any leading dims.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def _check(
  queries_XxHxK: jax.Array, subkeys_Hx2xnxC: jax.Array, k: int
) -> None:
  """Raises a one-line ValueError for shapes that do not fit together."""
  if subkeys_Hx2xnxC.ndim != 4 or subkeys_Hx2xnxC.shape[1] != 2:
    raise ValueError(
      'subkeys must have shape [heads, 2, n, key_dim / 2], got '
      f'{subkeys_Hx2xnxC.shape}.'
    )
  heads, _, n, half_dim = subkeys_Hx2xnxC.shape
  if queries_XxHxK.ndim < 2 or queries_XxHxK.shape[-2:] != (
    heads,
    2 * half_dim,
  ):
    raise ValueError(
      f'queries must have shape [..., {heads}, {2 * half_dim}] to match '
      f'subkeys {subkeys_Hx2xnxC.shape}, got {queries_XxHxK.shape}.'
    )
  if not 1 <= k <= n:
    raise ValueError(
      f'k = {k} must lie between 1 and the {n} sub-keys of a half: lower k '
      'or use more slots.'
    )


def _top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """`lax.top_k` that XLA:CPU does not turn into a full sort.

  XLA:CPU loses its fast top-k when the operand or the result is fused with
  other work; the barriers keep the two apart (about 8 times faster there).
  """
  scores = jax.lax.optimization_barrier(scores)
  return jax.lax.optimization_barrier(jax.lax.top_k(scores, k))


def product_key_topk(
  queries: jax.Array, subkeys: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
  r"""Finds the k best of n * n product keys for every query and head.

  With q = [q_1, q_2] and slot id i = i_1 * n + i_2, the score of slot i is

  .. math:: s_i = q_1 \cdot c_{1, i_1} + q_2 \cdot c_{2, i_2}

  and the result holds the k slots of highest score: exact, not approximate,
  because a slot whose half is not among that half's k best is beaten by k
  others. No 1 / sqrt(K) factor is applied. Of slots with equal scores, any may
  be kept, the same ones each time.

  Differentiable with respect to `queries` and `subkeys` through `scores`.

  Args:
    queries: Floats [..., H, K].
    subkeys: Floats [H, 2, n, K / 2], own per head and half.
    k: Number of slots to keep, at most n.

  Returns:
    A pair `(slot_ids, scores)`: int32 [..., H, k] in [0, n * n), and scores
    [..., H, k] in the promoted dtype of the inputs, best first.

  Raises:
    ValueError: If the shapes do not fit together or k is not in [1, n].

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import product_keys
    >>> subkeys = jnp.array([[[[1.0], [2.0]], [[0.0], [5.0]]]])  # H=1, n=2
    >>> slot_ids, scores = product_keys.product_key_topk(
    ...     jnp.ones([1, 2]), subkeys, k=2)
    >>> slot_ids.tolist(), scores.tolist()
    ([[3, 1]], [[7.0, 6.0]])

  References:
    Lample et al., Large Memory Layers with Product Keys, arXiv:1907.05242.
  """
  _check(queries, subkeys, k)
  n, half_dim = subkeys.shape[2:]
  queries_XxHx2xC = queries.reshape(*queries.shape[:-1], 2, half_dim)
  # With heads and halves in front each is one matmul, its result in place.
  half_scores_Hx2xXxn = jnp.einsum(
    '...hpc,hpnc->hp...n', queries_XxHx2xC, subkeys
  )
  best_Hx2xXxk, ids_Hx2xXxk = _top_k(half_scores_Hx2xXxn, k)
  # Sum (a, b) of the sorted halves is beaten by the (a + 1) * (b + 1) - 1 sums
  # above it, so of the k * k sums only about k * log(k) can be among the best.
  firsts_c, seconds_c = np.array(
    [(a, b) for a in range(k) for b in range(k // (a + 1))], np.int32
  ).T
  sums_HxXxc = best_Hx2xXxk[:, 0][..., firsts_c]
  sums_HxXxc += best_Hx2xXxk[:, 1][..., seconds_c]
  scores_HxXxk, winners_HxXxk = _top_k(sums_HxXxc, k)
  candidates_HxXxc = ids_Hx2xXxk[:, 0][..., firsts_c] * n
  candidates_HxXxc += ids_Hx2xXxk[:, 1][..., seconds_c]
  slot_ids_HxXxk = jnp.take_along_axis(
    candidates_HxXxc, winners_HxXxk, axis=-1, mode='promise_in_bounds'
  )
  return (
    jnp.moveaxis(slot_ids_HxXxk, 0, -2),
    jnp.moveaxis(scores_HxXxk, 0, -2),
  )
