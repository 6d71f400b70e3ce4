"""The loss over a vocabulary, in pieces where all logits would not fit.

Logits of 64 rows of 512 tokens over a vocabulary of 128,000 take 17 GB. Here a
loop over pieces of the vocabulary keeps the sum of their exponentials alone,
and the gradient computes them again.

Shape letters: D model dim, T vocabulary, C entries of a piece.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

# Logits kept at once, 64 MB of them.
_MOST_LOGITS = 2**24
_LEAST_PIECE = 1024


def nll(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> jax.Array:
  """Computes negative log-likelihoods of tokens.

  Args:
    hidden: [..., D], normed.
    table: [T, D], of any dtype; logits are `hidden @ table.T`.
    targets: int32 [...].

  Returns:
    float32 [...], in nats.

  Example:
    >>> from smft_jax.models import vocabulary
    >>> hidden, table = jnp.ones((3, 2)), jnp.zeros((5, 2))
    >>> vocabulary.nll(hidden, table, jnp.zeros(3, jnp.int32)).round(4).tolist()
    [1.6093999147415161, 1.6093999147415161, 1.6093999147415161]
  """
  size = max(_LEAST_PIECE, _MOST_LOGITS // max(1, targets.size))
  if size < len(table):
    return nll_in_pieces(hidden, table, targets, size)
  return optax.softmax_cross_entropy_with_integer_labels(
    logits(hidden, table), targets
  )


def logits(hidden: jax.Array, table: jax.Array) -> jax.Array:
  """Projects hidden states [..., D] to logits, float32 [..., T]."""
  return jnp.einsum(
    '...d,td->...t',
    hidden,
    table.astype(hidden.dtype),
    preferred_element_type=jnp.float32,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def nll_in_pieces(
  hidden: jax.Array, table: jax.Array, targets: jax.Array, size: int
) -> jax.Array:
  """Computes what `nll` does, with `size` entries of the vocabulary at once."""
  return _forward(hidden, table, targets, size)[0]


def _forward(hidden, table, targets, size):
  """Returns negative log-likelihoods and logarithms of normalizers."""

  def add(carry, start):
    most, total, chosen = carry
    found, _, place = _piece(hidden, table, start, size)
    new = jnp.maximum(most, jnp.max(found, axis=-1))
    total *= jnp.exp(most - new)
    total += jnp.sum(jnp.exp(found - new[..., None]), axis=-1)
    here = _is_target(place, start, targets)
    chosen += jnp.sum(jnp.where(here, found, 0), axis=-1)
    return (new, total, chosen), None

  zeros = jnp.zeros(targets.shape, jnp.float32)
  least = jnp.full_like(zeros, -jnp.inf)
  (most, total, chosen), _ = jax.lax.scan(
    add, (least, zeros, zeros), _starts(table, size)
  )
  log_normalizer = most + jnp.log(total)
  return log_normalizer - chosen, log_normalizer


def _nll_forward(hidden, table, targets, size):
  found, log_normalizer = _forward(
    hidden.value, table.value, targets.value, size
  )
  kept = hidden.value, table.value, targets.value, log_normalizer
  # No gradient of a table that is frozen.
  return found, (*kept, () if table.perturbed else None)


def _nll_backward(size: int, residuals: Any, gradient: Any):
  if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
    return None, None, None
  hidden, table, targets, log_normalizer, trains = residuals

  def add(carry, start):
    to_hidden, to_table = carry
    found, rows, place = _piece(hidden, table, start, size)
    share = jnp.exp(found - log_normalizer[..., None])
    share = jnp.where(_is_target(place, start, targets), share - 1, share)
    share = (share * gradient[..., None]).astype(hidden.dtype)
    to_hidden += _sum_in_float32('...t,td->...d', share, rows)
    if to_table is not None:
      first = _first(table, start, size)
      old = jax.lax.dynamic_slice_in_dim(to_table, first, size)
      new = old + _sum_in_float32('...t,...d->td', share, hidden)
      to_table = jax.lax.dynamic_update_slice_in_dim(
        to_table, new.astype(to_table.dtype), first, axis=0
      )
    return (to_hidden, to_table), None

  to_hidden = jnp.zeros(hidden.shape, jnp.float32)
  to_table = None if trains is None else jnp.zeros_like(table)
  (to_hidden, to_table), _ = jax.lax.scan(
    add, (to_hidden, to_table), _starts(table, size)
  )
  return to_hidden.astype(hidden.dtype), to_table, None


nll_in_pieces.defvjp(_nll_forward, _nll_backward, symbolic_zeros=True)


def _starts(table: jax.Array, size: int) -> jax.Array:
  return jnp.arange(0, len(table), size)


def _first(table: jax.Array, start: jax.Array, size: int) -> jax.Array:
  """Returns where a piece begins; the last one overlaps that before it."""
  return jnp.minimum(start, len(table) - size)


def _piece(hidden, table, start, size):
  """Returns logits [..., C], rows of the table [C, D] and their places [C].

  Logits of what an earlier piece had are minus infinity.
  """
  first = _first(table, start, size)
  rows = jax.lax.dynamic_slice_in_dim(table, first, size).astype(hidden.dtype)
  place = first + jnp.arange(size)
  found = logits(hidden, rows)
  is_new = (place >= start).reshape((1,) * (found.ndim - 1) + place.shape)
  return jnp.where(is_new, found, -jnp.inf), rows, place


def _is_target(place, start, targets):
  """Returns where the target is, bool [..., C]; once, though pieces overlap."""
  place = jnp.where(place >= start, place, -1)
  place = place.reshape((1,) * targets.ndim + place.shape)
  return place == targets[..., None]


def _sum_in_float32(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)
