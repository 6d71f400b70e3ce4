"""Finds the best of n * n product keys exactly, from 2 * n sub-keys.

A slot's key concatenates one sub-key of the first half and one of the second,
so its score is the sum of two dot products, and the k best slots are among the
k x k sums of the k best sub-keys of each half (product-key memory,
arXiv:1907.05242).

Shape letters: H heads, K key dim, C = K / 2, n sub-keys in a half, N = n * n
slots, k slots kept, c candidates for them, T tokens (all leading dims), B
tokens of a block, R rows (one for each token, head and half).
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import blocks
from smft_jax import ids

TopK = Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]
"""(rows [R, n], k) -> the k highest of each row and their indices, [R, k]."""

Merge = Callable[[TopK, jax.Array, jax.Array], tuple[jax.Array, jax.Array, int]]
"""(top_k, best half scores [R, j], ids [R, j]) -> the k best of all shards,
their ids among all sub-keys, and the number of all sub-keys."""

Halve = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""(slot ids [B, H, k], gradients of their scores) -> the winning sub-keys of
each half, and the gradients of their half scores, both [B, H, 2, k]."""

# Half scores in one block of tokens. On a CPU a block should fit in the caches,
# and be too small for its allocation to fault in fresh pages each time;
# elsewhere it only bounds the memory (1 GB in float32).
_CPU_BLOCK = 2**21
_BLOCK = 2**28

# XLA:CPU's top-k runs on one thread, but independent ones run in parallel if
# more than 8 are ready at once.
_CPU_PARTS = 16
_CPU_PART_ROWS = 128


def product_key_topk(
  queries: jax.Array, subkeys: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
  r"""Finds the k best of n * n product keys for every query and head.

  With q = [q_1, q_2] and slot id i = i_1 * n + i_2, the score of slot i is

  .. math:: s_i = q_1 \cdot c_{1, i_1} + q_2 \cdot c_{2, i_2}

  The search is exact: a slot whose half is not among that half's k best is
  beaten by k others. There is no 1 / sqrt(K) factor. Ties are broken
  arbitrarily but deterministically.

  Differentiable with respect to `queries` and `subkeys` through `scores`, in
  reverse mode. Searches long sequences in blocks of tokens to bound memory.

  Args:
    queries: Floats [..., H, K].
    subkeys: Floats [H, 2, n, K / 2].
    k: Number of slots to keep, at most n.

  Returns:
    A pair `(slot_ids, scores)`: int32 [..., H, k] in [0, n * n), and scores
    [..., H, k] in the promoted dtype of the inputs, best first.

  Raises:
    ValueError: If shapes do not match or k is not in [1, n].

  Example:
    >>> from smft_jax import product_keys
    >>> subkeys = jnp.array([[[[1.0], [2.0]], [[0.0], [5.0]]]])  # H=1, n=2
    >>> slot_ids, scores = product_keys.product_key_topk(
    ...     jnp.ones([1, 2]), subkeys, k=2)
    >>> slot_ids.tolist(), scores.tolist()
    ([[3, 1]], [[7.0, 6.0]])

  References:
    Lample et al., Large Memory Layers with Product Keys, arXiv:1907.05242.
  """
  queries, subkeys = jnp.asarray(queries), jnp.asarray(subkeys)
  check(queries, subkeys, k)
  heads, _, _, half_dim = subkeys.shape
  num_tokens = math.prod(queries.shape[:-2])
  slot_ids_TxHxk, scores_TxHxk = _jitted_search(
    queries.reshape(num_tokens, heads, 2, half_dim), subkeys, k
  )
  shape = (*queries.shape[:-1], k)
  return slot_ids_TxHxk.reshape(shape), scores_TxHxk.reshape(shape)


def check(queries: jax.Array, subkeys: jax.Array, k: int) -> None:
  """Raises the ValueError of `product_key_topk`."""
  if subkeys.ndim != 4 or subkeys.shape[1] != 2:
    raise ValueError(
      'subkeys must have shape [heads, 2, n, key_dim / 2], got '
      f'{subkeys.shape}.'
    )
  heads, _, n, half_dim = subkeys.shape
  if queries.ndim < 2 or queries.shape[-2:] != (heads, 2 * half_dim):
    raise ValueError(
      f'queries must have shape [..., {heads}, {2 * half_dim}] to match '
      f'subkeys {subkeys.shape}, got {queries.shape}.'
    )
  ids.check_int('k', k)
  if not 1 <= k <= n:
    raise ValueError(
      f'k = {k} must be between 1 and the {n} sub-keys of a half: lower k '
      'or use more slots.'
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _search(queries_TxHx2xC, subkeys_Hx2xnxC, k):
  return search_tokens(queries_TxHx2xC, subkeys_Hx2xnxC, k)


def search_tokens(
  queries_TxHx2xC: jax.Array,
  subkeys_Hx2xnxC: jax.Array,
  k: int,
  merge: Merge | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Finds slot ids and scores, [T, H, k]; has no gradient.

  With the sub-keys of a shard, `merge` merges the best half scores of all
  shards.
  """

  def make_search(block_scores: int, top_k: TopK):
    def search(queries_TxHx2xC, subkeys_Hx2xnxC):
      block = functools.partial(_search_block, subkeys_Hx2xnxC, k, top_k, merge)
      size = _block_size(subkeys_Hx2xnxC, block_scores)
      return blocks.apply(block, size, queries_TxHx2xC)

    return search

  return jax.lax.platform_dependent(
    queries_TxHx2xC,
    subkeys_Hx2xnxC,
    cpu=make_search(_CPU_BLOCK, _cpu_top_k),
    default=make_search(_BLOCK, jax.lax.top_k),
  )


def _search_block(subkeys_Hx2xnxC, k, top_k, merge, queries_BxHx2xC):
  size, heads = queries_BxHx2xC.shape[:2]
  n = subkeys_Hx2xnxC.shape[2]
  half_scores_2xHxBxn = jnp.einsum(
    'bhpc,hpnc->phbn',
    queries_BxHx2xC,
    subkeys_Hx2xnxC,
    # It decides which slots are read: bfloat16 products, an accelerator's
    # default, would read others.
    precision=jax.lax.Precision.HIGHEST,
  )
  best_Rxk, ids_Rxk = top_k(half_scores_2xHxBxn.reshape(-1, n), min(k, n))
  if merge is not None:
    best_Rxk, ids_Rxk, n = merge(top_k, best_Rxk, ids_Rxk)
  best_2xRxk, ids_2xRxk = (x.reshape(2, -1, k) for x in (best_Rxk, ids_Rxk))
  # The sum of the a-th and b-th best halves is beaten by (a + 1) * (b + 1) - 1
  # others, so only about k * log(k) of the k * k sums can be among the k best.
  firsts_c, seconds_c = np.array(
    [(a, b) for a in range(k) for b in range(k // (a + 1))], np.int32
  ).T
  sums_Rxc = best_2xRxk[0][:, firsts_c] + best_2xRxk[1][:, seconds_c]
  scores_Rxk, winners_Rxk = top_k(sums_Rxc, k)
  candidates_Rxc = ids_2xRxk[0][:, firsts_c] * n + ids_2xRxk[1][:, seconds_c]
  slot_ids_Rxk = jnp.take_along_axis(
    candidates_Rxc, winners_Rxk, axis=-1, mode='promise_in_bounds'
  )
  return tuple(
    jnp.moveaxis(x.reshape(heads, size, k), 0, 1)
    for x in (slot_ids_Rxk, scores_Rxk)
  )


def _search_forward(queries_TxHx2xC, subkeys_Hx2xnxC, k):
  slot_ids_TxHxk, scores_TxHxk = _search(queries_TxHx2xC, subkeys_Hx2xnxC, k)
  residuals = queries_TxHx2xC, subkeys_Hx2xnxC, slot_ids_TxHxk
  return (slot_ids_TxHxk, scores_TxHxk), residuals


def _search_backward(k, residuals, gradients):
  del k
  queries_TxHx2xC, subkeys_Hx2xnxC, slot_ids_TxHxk = residuals
  halve = functools.partial(halves, subkeys_Hx2xnxC.shape[2])
  return search_gradients(
    queries_TxHx2xC, subkeys_Hx2xnxC, slot_ids_TxHxk, gradients[1], halve
  )


def halves(
  n: int, slot_ids_BxHxk: jax.Array, gradient_BxHxk: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Splits slots into sub-keys, which share their gradient; see `Halve`."""
  halves_BxHx2xk = jnp.stack(jnp.divmod(slot_ids_BxHxk, n), axis=2)
  gradient_BxHx2xk = jnp.broadcast_to(
    gradient_BxHxk[:, :, None], halves_BxHx2xk.shape
  )
  return halves_BxHx2xk, gradient_BxHx2xk


def search_gradients(
  queries_TxHx2xC: jax.Array,
  subkeys_Hx2xnxC: jax.Array,
  slot_ids_TxHxk: jax.Array,
  gradient_TxHxk: jax.Array,
  halve: Halve,
) -> tuple[jax.Array, jax.Array]:
  """Computes the gradients of queries and sub-keys from those of the scores.

  The sub-keys are all, or those of a shard; `halve` finds a slot's among them.
  """

  def make(block_scores: int):
    return functools.partial(_gradients, halve, block_scores)

  return jax.lax.platform_dependent(
    queries_TxHx2xC,
    subkeys_Hx2xnxC,
    slot_ids_TxHxk,
    gradient_TxHxk,
    cpu=make(_CPU_BLOCK),
    default=make(_BLOCK),
  )


def _gradients(
  halve,
  block_scores,
  queries_TxHx2xC,
  subkeys_Hx2xnxC,
  slot_ids_TxHxk,
  gradient_TxHxk,
):
  # A slot's gradient belongs to one sub-key of each half. Scattered over the
  # half scores, it yields both gradients by two matmuls.
  k, n = slot_ids_TxHxk.shape[2], subkeys_Hx2xnxC.shape[2]
  # Summed over blocks of tokens, in bfloat16, sums would lose percents.
  dtype = jnp.promote_types(queries_TxHx2xC.dtype, subkeys_Hx2xnxC.dtype)
  wide = jnp.float64 if dtype == jnp.float64 else jnp.float32

  def block(subkeys_gradient_Hx2xnxC, tokens):
    queries_BxHx2xC, slot_ids_BxHxk, gradient_BxHxk = tokens
    halves_BxHx2xk, gradient_BxHx2xk = halve(slot_ids_BxHxk, gradient_BxHxk)
    shape = (*queries_BxHx2xC.shape[:3], n)
    rows_Rx1 = jnp.arange(math.prod(shape[:3]))[:, None]
    gradient_Rxn = jnp.zeros((rows_Rx1.size, n), gradient_BxHxk.dtype)
    gradient_BxHx2xn = (
      gradient_Rxn.at[rows_Rx1, halves_BxHx2xk.reshape(-1, k)]
      .add(gradient_BxHx2xk.reshape(-1, k), mode='promise_in_bounds')
      .reshape(shape)
    )
    subkeys_gradient_Hx2xnxC += jnp.einsum(
      'bhpn,bhpc->hpnc',
      gradient_BxHx2xn,
      queries_BxHx2xC,
      preferred_element_type=wide,
    )
    queries_gradient_BxHx2xC = jnp.einsum(
      'bhpn,hpnc->bhpc', gradient_BxHx2xn, subkeys_Hx2xnxC
    )
    return subkeys_gradient_Hx2xnxC, queries_gradient_BxHx2xC

  tokens = queries_TxHx2xC, slot_ids_TxHxk, gradient_TxHxk
  num_tokens = queries_TxHx2xC.shape[0]
  size = max(1, min(num_tokens, _block_size(subkeys_Hx2xnxC, block_scores)))
  subkeys_gradient_Hx2xnxC, queries_gradient = jax.lax.scan(
    block,
    jnp.zeros(subkeys_Hx2xnxC.shape, wide),
    tuple(blocks.split(x, size) for x in tokens),
  )
  return (
    blocks.join(queries_gradient, num_tokens).astype(queries_TxHx2xC.dtype),
    subkeys_gradient_Hx2xnxC.astype(subkeys_Hx2xnxC.dtype),
  )


# Jitted so that calls outside jit compile once a shape; inlined so that within
# jit nothing changes.
_inlined = functools.partial(jax.jit, inline=True)
_search.defvjp(
  _inlined(_search_forward, static_argnums=2),
  _inlined(_search_backward, static_argnums=0),
)
_jitted_search = _inlined(_search, static_argnums=2)


def _block_size(subkeys_Hx2xnxC, block_scores):
  """Returns the number of tokens with at most `block_scores` half scores."""
  return max(1, block_scores // math.prod(subkeys_Hx2xnxC.shape[:3]))


def _cpu_top_k(rows_Rxn, k):
  """Finds the k best of each row, by enough operations to keep a CPU busy."""
  num_parts = max(1, min(_CPU_PARTS, rows_Rxn.shape[0] // _CPU_PART_ROWS))
  parts = jnp.array_split(jax.lax.optimization_barrier(rows_Rxn), num_parts)
  found = [_tournament_top_k(part, k) for part in parts]
  values, places = zip(*found, strict=True)
  return jnp.concatenate(values), jnp.concatenate(places)


def _tournament_top_k(rows_Rxn, k):
  """`lax.top_k` for finite rows, fast on XLA:CPU; breaks ties arbitrarily.

  XLA:CPU keeps a heap of the k best so far and spends its time on mispredicted
  branches, as better elements enter. With the winners of a vectorised
  tournament put in front, few later elements enter.
  """
  n = rows_Rxn.shape[1]
  # Lanes l, l + lanes, l + 2 * lanes... compete; the winner of each lane leads.
  lanes = next((l for l in range(k, n // 8 + 1) if n % l == 0), None)
  if lanes is None:
    return blocks.top_k(rows_Rxn, k)
  rounds = jnp.arange(n // lanes, dtype=jnp.int32)[None, :, None]
  laned = rows_Rxn.reshape(-1, n // lanes, lanes)
  best = jnp.max(laned, axis=1, keepdims=True)
  won = jnp.min(
    jnp.where(laned == best, rounds, n // lanes - 1), axis=1, keepdims=True
  )
  rest = jnp.where(rounds == won, -jnp.inf, laned)
  values, places = blocks.top_k(
    jnp.concatenate([best[:, 0], rest.reshape(-1, n)], axis=1), k
  )
  winners = won[:, 0] * lanes + jnp.arange(lanes, dtype=jnp.int32)[None]
  winner = jnp.minimum(places, lanes - 1)
  won_places = jnp.take_along_axis(
    winners, winner, axis=1, mode='promise_in_bounds'
  )
  return values, jnp.where(places < lanes, won_places, places - lanes)
