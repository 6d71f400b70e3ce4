"""Splits a batch into parts that are differentiated one after the other.

The activations of one part are kept at a time; what is summed or put together
is that of the whole batch.

Shape letters: B batch, n parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Parts = Callable[[Any, jax.Array | None], tuple[Any, Any]]


def apply(
  function: Parts,
  batch: Any,
  hidden: jax.Array | None,
  size: int | None,
) -> tuple[Any, Any]:
  """Applies a function to each part of a batch.

  Args:
    function: (part of the batch, of hidden) -> (arrays to add over the parts,
      arrays [B / n, ...] to put together).
    batch: A `batches.Batch` of B rows. `counted` is [n, P], with places in each
      part's own tokens, if there is more than one part.
    hidden: [B, ...], or None.
    size: Rows of a part, a divisor of B; None makes one part. Of n parts, part
      i has the rows i, i + n and so on, so that a mesh that splits B splits
      each part alike.

  Returns:
    The sums, and arrays [B, ...].
  """
  rows = batch.tokens.shape[0]
  num = 1 if size is None else rows // size
  if num == 1:
    return function(batch, hidden)

  def split(array: jax.Array) -> jax.Array:
    return jnp.asarray(array).reshape(-1, num, *array.shape[1:]).swapaxes(0, 1)

  def join(array: jax.Array) -> jax.Array:
    return array.swapaxes(0, 1).reshape(rows, *array.shape[2:])

  parts = jax.tree.map(split, batch._replace(counted=None))
  parts = (
    parts._replace(counted=batch.counted),
    (None if hidden is None else split(hidden)),
  )
  like, _ = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], parts))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)

  def add(sums, part):
    found, rows = function(*part)
    return jax.tree.map(jnp.add, sums, found), rows

  sums, joined = jax.lax.scan(add, zeros, parts)
  return sums, jax.tree.map(join, joined)
