"""Weighted reads of value-table rows, and their gradients.

A read touches A rows per token, so the obvious `values[slot_ids]` makes an
array [..., A, V]: a gigabyte for a modest batch. Everything here loops over
accesses and keeps [tokens, V], which on a CPU is also several times faster,
forward and backward.

Shape letters: N slots, V value dim, A accesses of a token (heads x k), T
tokens (all leading dims flattened), M = T x A, t selected slots, h hits.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import math

import jax
import jax.numpy as jnp

from smft_jax import blocks
from smft_jax import ids

# Accesses summed per loop turn in the forward read: XLA fuses them into one
# pass over the accumulator. 4 took 1.8 times as long, 16 as long as 8.
_UNROLL = 8

# Numbers read for one block of tokens on a CPU; they fit in a core's caches.
_CPU_BLOCK = 2**17

# Up to this many selected slots per access, `row_gradient` multiplies by a
# [t, T] matrix of weights instead of scattering the hits. With many hits the
# two took the same time at 5 to 16.
_MATRIX_SLOTS_PER_ACCESS = 8

# Hits scattered per loop turn.
_HITS = 4096


def wide_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
  """The dtype to accumulate in: float32, or float64 for float64 tables."""
  return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def _rows(values_NxV: jax.Array, slot_ids_T: jax.Array) -> jax.Array:
  """Gathers rows without a bounds check."""
  return values_NxV.at[slot_ids_T].get(mode='promise_in_bounds')


def _checked_accesses(
  slot_ids: jax.Array, weights: jax.Array, num_slots: int | None = None
) -> tuple[jax.Array, jax.Array]:
  """Returns slot ids, as int32, and weights; raises for shapes that differ."""
  slot_ids, weights = ids.as_int32(slot_ids, num_slots), jnp.asarray(weights)
  if slot_ids.shape != weights.shape or slot_ids.ndim < 1:
    raise ValueError(
      'slot_ids and weights must have the same shape [..., A], got '
      f'{slot_ids.shape} and {weights.shape}.'
    )
  return slot_ids, weights


def checked(
  values: jax.Array, slot_ids: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the arguments of `read_rows` as arrays, or raises its error."""
  values = jnp.asarray(values)
  if values.ndim != 2:
    raise ValueError(f'values must have shape [N, V], got {values.shape}.')
  return values, *_checked_accesses(slot_ids, weights, values.shape[0])


def flat(array: jax.Array) -> jax.Array:
  """[..., X] -> [T, X], also if one of them is 0."""
  return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def read_rows(
  values: jax.Array, slot_ids: jax.Array, weights: jax.Array
) -> jax.Array:
  r"""Sums weighted rows of the value table for every token.

  .. math:: y = \sum_a w_a V_{s_a}

  Accumulates in float32 (float64 for a float64 table) and never makes the
  [..., A, V] array of gathered rows. The gradient with respect to `values` is
  a dense [N, V] array. To change a few rows only, take the gradient with
  respect to the read instead and pass it to `row_gradient`.

  Args:
    values: Value table, floats [N, V].
    slot_ids: Integers [..., A] in [0, N), not checked: an id out of range
      reads an unspecified row. An id may occur more than once.
    weights: Floats [..., A]. A token of no accesses, A = 0, reads zeros.

  Returns:
    Floats [..., V] in the dtype of `values`.

  Raises:
    ValueError: If shapes do not match, or `slot_ids` are not integers of a
      dtype that can hold N.

  Example:
    >>> from smft_jax import lookup
    >>> values = jnp.array([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    >>> lookup.read_rows(
    ...     values, jnp.array([[2, 0]]), jnp.array([[0.5, 3.0]])).tolist()
    [[5.0, 2.0]]

  References:
    Berges et al., Memory Layers at Scale, arXiv:2412.09764.
  """
  values, slot_ids, weights = checked(values, slot_ids, weights)
  read_TxV = _jitted_read(values, flat(slot_ids), flat(weights))
  return read_TxV.reshape(*slot_ids.shape[:-1], values.shape[1])


@jax.custom_vjp
def _read(values_NxV, slot_ids_TxA, weights_TxA):
  return read_tokens(values_NxV, slot_ids_TxA, weights_TxA, values_NxV.dtype)


def read_tokens(
  values_NxV: jax.Array,
  slot_ids_TxA: jax.Array,
  weights_TxA: jax.Array,
  dtype: jax.typing.DTypeLike,
) -> jax.Array:
  """`read_rows` with a result of `dtype`; has no gradient."""
  if not slot_ids_TxA.size:
    return jnp.zeros((len(slot_ids_TxA), values_NxV.shape[1]), dtype)
  return _by_platform(
    functools.partial(_read_block, values_NxV, dtype),
    values_NxV.shape[1],
    slot_ids_TxA,
    weights_TxA,
  )


def _by_platform(
  function: Callable[..., jax.Array], value_dim: int, *tokens: jax.Array
) -> jax.Array:
  """Applies a function to tokens, in blocks on a CPU, else to all at once."""
  size = max(1, _CPU_BLOCK // value_dim)
  return jax.lax.platform_dependent(
    *tokens,
    cpu=functools.partial(blocks.apply, function, size),
    default=function,
  )


def _read_block(values_NxV, dtype, slot_ids_TxA, weights_TxA):
  wide = wide_dtype(values_NxV.dtype)

  def add_access(read_TxV, access):
    slot_ids_T, weights_T = access
    rows_TxV = _rows(values_NxV, slot_ids_T).astype(wide)
    return read_TxV + weights_T[:, None] * rows_TxV, None

  read_TxV = jnp.zeros((slot_ids_TxA.shape[0], values_NxV.shape[1]), wide)
  read_TxV, _ = jax.lax.scan(
    add_access,
    read_TxV,
    (slot_ids_TxA.T, weights_TxA.T.astype(wide)),
    unroll=_UNROLL,
  )
  return read_TxV.astype(dtype)


def _read_forward(values_NxV, slot_ids_TxA, weights_TxA):
  read_TxV = _read(values_NxV, slot_ids_TxA, weights_TxA)
  return read_TxV, (values_NxV, slot_ids_TxA, weights_TxA)


def _read_backward(residuals, gradient_TxV):
  # Differentiating the scan would carry a dense [N, V] gradient through every
  # access. The loops are separate so that XLA drops an unused one: with frozen
  # values the compiled step has no [N, V] array.
  values_NxV, slot_ids_TxA, weights_TxA = residuals
  gradient_TxV = gradient_TxV.astype(wide_dtype(values_NxV.dtype))
  values_gradient_NxV = scatter_rows(
    gradient_TxV, slot_ids_TxA, weights_TxA, values_NxV.shape[0]
  )
  weights_gradient_TxA = dot_tokens(values_NxV, slot_ids_TxA, gradient_TxV)
  return (
    values_gradient_NxV.astype(values_NxV.dtype),
    None,
    weights_gradient_TxA.astype(weights_TxA.dtype),
  )


def dot_tokens(
  values_NxV: jax.Array, slot_ids_TxA: jax.Array, gradient_TxV: jax.Array
) -> jax.Array:
  """Multiplies every row read by its token's gradient, [T, A]."""
  if not slot_ids_TxA.size:
    return jnp.zeros(slot_ids_TxA.shape, gradient_TxV.dtype)
  return _by_platform(
    functools.partial(_dot_block, values_NxV),
    values_NxV.shape[1],
    slot_ids_TxA,
    gradient_TxV,
  )


def _dot_block(values_NxV, slot_ids_TxA, gradient_TxV):
  def dot_access(_, slot_ids_T):
    rows_TxV = _rows(values_NxV, slot_ids_T).astype(gradient_TxV.dtype)
    return None, jnp.einsum('tv,tv->t', rows_TxV, gradient_TxV)

  _, weights_gradient_AxT = jax.lax.scan(dot_access, None, slot_ids_TxA.T)
  return weights_gradient_AxT.T


# Jitted so that calls outside jit compile once a shape; inlined so that within
# jit nothing changes.
_inlined = functools.partial(jax.jit, inline=True)
_read.defvjp(_inlined(_read_forward), _inlined(_read_backward))
_jitted_read = _inlined(_read)


def scatter_rows(
  gradient_TxV: jax.Array,
  rows_TxA: jax.Array,
  weights_TxA: jax.Array,
  num_rows: int,
) -> jax.Array:
  """Adds weight * gradient to row `rows[t, a]`; drops rows >= num_rows.

  Adds in a fixed order, access by access. Its time is that of the hits, the
  accesses that are not dropped.
  """
  num_tokens, value_dim = gradient_TxV.shape
  sums_RxV = jnp.zeros((num_rows, value_dim), gradient_TxV.dtype)
  num_all = rows_TxA.size
  if not num_all:
    return sums_RxV
  rows_M, weights_M = rows_TxA.T.reshape(-1), weights_TxA.T.reshape(-1)
  hit_M = rows_M < num_rows
  rank_M = jnp.cumsum(hit_M, dtype=jnp.int32) - 1
  # Hits first, padded with indices out of range.
  hits = jnp.full((num_all + _HITS,), num_all, jnp.int32)
  hits = hits.at[jnp.where(hit_M, rank_M, hits.size)].set(
    jnp.arange(num_all, dtype=jnp.int32), mode='drop'
  )

  def add_hits(state):
    start, sums_RxV = state
    hits_h = jax.lax.dynamic_slice_in_dim(hits, start, _HITS)
    rows_h = rows_M.at[hits_h].get(mode='fill', fill_value=num_rows)
    weights_h = weights_M.at[hits_h].get(mode='fill', fill_value=0)
    added_hxV = _rows(gradient_TxV, hits_h % num_tokens)
    added_hxV *= weights_h[:, None].astype(gradient_TxV.dtype)
    return start + _HITS, sums_RxV.at[rows_h].add(added_hxV, mode='drop')

  num_hits = rank_M[-1] + 1
  return jax.lax.while_loop(
    lambda state: state[0] < num_hits, add_hits, (jnp.int32(0), sums_RxV)
  )[1]


def _multiply_rows(gradient_TxV, rows_TxA, weights_TxA, num_rows):
  """`scatter_rows` by a matrix product."""
  num_tokens = rows_TxA.shape[0]
  tokens_Tx1 = jnp.arange(num_tokens, dtype=rows_TxA.dtype)[:, None]
  zeros = jnp.zeros((num_rows, num_tokens), gradient_TxV.dtype)
  weights_RxT = zeros.at[rows_TxA, tokens_Tx1].add(
    weights_TxA.astype(zeros.dtype), mode='drop'
  )
  return jnp.einsum(
    'rt,tv->rv', weights_RxT, gradient_TxV, precision=jax.lax.Precision.HIGHEST
  )


def row_gradient(
  read_gradient: jax.Array,
  slot_ids: jax.Array,
  weights: jax.Array,
  slots: jax.Array,
) -> jax.Array:
  r"""Computes the gradient of the rows `slots` of the value table.

  .. math:: g_j = \sum_{a : s_a = slot_j} w_a \frac{dL}{dy}

  Equal to `dense_gradient[slots]` without an [N, V] array: time and memory do
  not depend on N.

  Args:
    read_gradient: Gradient of the loss with respect to the read, [..., V].
    slot_ids: Integers [..., A] that were read.
    weights: Floats [..., A] they were read with.
    slots: Integers [t] from `ranking.top_slots`, distinct except for unused
      places. A slot that was not read gets zeros.

  Returns:
    Floats [t, V], float32 (float64 if `read_gradient` is).

  Raises:
    ValueError: If shapes do not match, or `slot_ids` or `slots` are not
      integers.

  Example:
    >>> from smft_jax import lookup
    >>> lookup.row_gradient(
    ...     read_gradient=jnp.array([[1.0, 2.0], [10.0, 20.0]]),
    ...     slot_ids=jnp.array([[4, 7], [7, 1]]),
    ...     weights=jnp.array([[0.5, 1.0], [0.1, 1.0]]),
    ...     slots=jnp.array([7, 4, 9])).tolist()
    [[2.0, 4.0], [0.5, 1.0], [0.0, 0.0]]
  """
  slot_ids, weights = _checked_accesses(slot_ids, weights)
  read_gradient = jnp.asarray(read_gradient)
  slots = ids.as_int32(slots, name='slots')
  if read_gradient.shape[:-1] != slot_ids.shape[:-1]:
    raise ValueError(
      f'read_gradient {read_gradient.shape} and slot_ids {slot_ids.shape} '
      'must agree in all but their last dim.'
    )
  if slots.ndim != 1:
    raise ValueError(f'slots must have shape [t], got {slots.shape}.')
  by_matrix = len(slots) <= _MATRIX_SLOTS_PER_ACCESS * slot_ids.shape[-1]
  return _row_gradient(
    flat(read_gradient), flat(slot_ids), flat(weights), slots, by_matrix
  )


@functools.partial(jax.jit, static_argnames='by_matrix', inline=True)
def _row_gradient(gradient_TxV, slot_ids_TxA, weights_TxA, slots_t, by_matrix):
  t = len(slots_t)
  gradient_TxV = gradient_TxV.astype(wide_dtype(gradient_TxV.dtype))
  if not slot_ids_TxA.size or not t:
    return jnp.zeros((t, gradient_TxV.shape[1]), gradient_TxV.dtype)
  rows_TxA = _places(slot_ids_TxA, slots_t)
  add_up = _multiply_rows if by_matrix else scatter_rows
  return add_up(gradient_TxV, rows_TxA, weights_TxA, t)


def _places(slot_ids_TxA: jax.Array, slots_t: jax.Array) -> jax.Array:
  """Returns every access's index in `slots`, or t if it has none."""
  order_t = jnp.argsort(slots_t)
  sorted_t = slots_t[order_t]
  last = slots_t.shape[0] - 1
  found_TxA = jnp.searchsorted(sorted_t, slot_ids_TxA, method='scan_unrolled')
  found_TxA = jnp.minimum(found_TxA, last)
  return jnp.where(
    sorted_t[found_TxA] == slot_ids_TxA, order_t[found_TxA], last + 1
  )
