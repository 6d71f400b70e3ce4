"""Processes long arrays block by block, to keep temporaries small.

Shape letters: T tokens, B tokens of a block, k places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def split(array: jax.Array, size: int) -> jax.Array:
  """Splits an array into blocks and pads the last one with zeros.

  Args:
    array: [T, ...].
    size: B.

  Returns:
    [ceil(T / B), B, ...].

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import blocks
    >>> blocks.split(jnp.array([1, 2, 3]), 2).tolist()
    [[1, 2], [3, 0]]
  """
  padding = -array.shape[0] % size
  padded = jnp.pad(array, [(0, padding)] + [(0, 0)] * (array.ndim - 1))
  return padded.reshape(-1, size, *array.shape[1:])


def join(parts: jax.Array, length: int) -> jax.Array:
  """Undoes `split`, dropping the padding: [blocks, B, ...] -> [T, ...]."""
  return parts.reshape(-1, *parts.shape[2:])[:length]


def apply(function: Callable[..., Any], size: int, *arrays: jax.Array) -> Any:
  """Applies a function to blocks of tokens, one after another.

  Args:
    function: Arrays [B, ...] -> arrays [B, ...], independent for each token. It
      also sees the last block's padding.
    size: B; arrays up to this length are not split.
    *arrays: [T, ...] each.

  Returns:
    The function's result for the whole arrays.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import blocks
    >>> blocks.apply(lambda x: 2 * x, 2, jnp.array([1, 2, 3])).tolist()
    [2, 4, 6]
  """
  length = arrays[0].shape[0]
  if length <= size:
    return function(*arrays)
  parts = tuple(split(array, size) for array in arrays)
  results = jax.lax.map(lambda block: function(*block), parts)
  return jax.tree.map(lambda result: join(result, length), results)


def top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """`lax.top_k` that XLA:CPU does not fuse with other operations.

  Fused, it becomes a full sort, about 8 times slower.

  Args:
    scores: [..., M].
    k: At most M.

  Returns:
    The k best scores and their indices, [..., k]; ties to the lower index.
  """
  scores, places = jax.lax.top_k(jax.lax.optimization_barrier(scores), k)
  # One barrier for both would abort the compiler on a mesh.
  return (
    jax.lax.optimization_barrier(scores),
    jax.lax.optimization_barrier(places),
  )
