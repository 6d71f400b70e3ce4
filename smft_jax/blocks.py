"""Work on long arrays block by block, so that what it makes stays small.

Shape letters: T tokens, B tokens of a block, k places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def split(array: jax.Array, size: int) -> jax.Array:
  """Cuts an array into blocks, the last one filled up with zeros.

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
  """Undoes `split`: [blocks, B, ...] -> [T, ...].

  Args:
    parts: The blocks.
    length: T.

  Returns:
    [T, ...], without the filling.
  """
  return parts.reshape(-1, *parts.shape[2:])[:length]


def apply(function: Callable[..., Any], size: int, *arrays: jax.Array) -> Any:
  """Applies a function to blocks of tokens one after another.

  Args:
    function: Arrays [B, ...] -> arrays [B, ...], each token by itself. It also
      sees the filling of the last block, which is zeros.
    size: B; arrays that are no longer are not cut.
    *arrays: [T, ...] each.

  Returns:
    What the function returns for the whole arrays.

  Example:
    >>> import jax.numpy as jnp
    >>> from smft_jax import blocks
    >>> blocks.apply(lambda x: 2 * x, 2, jnp.array([1, 2, 3])).tolist()
    [2, 4, 6]
  """
  length = arrays[0].shape[0]
  if length <= size:
    return function(*arrays)
  cut = tuple(split(array, size) for array in arrays)
  found = jax.lax.map(lambda block: function(*block), cut)
  return jax.tree.map(lambda parts: join(parts, length), found)


def top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """`lax.top_k`, kept apart from other work so that XLA:CPU is fast at it.

  Fused with what makes its operand or takes its result, it becomes a full sort,
  about 8 times slower.

  Args:
    scores: [..., M].
    k: At most M.

  Returns:
    The k best scores and their places, [..., k]; ties to the lower place.
  """
  scores, places = jax.lax.top_k(jax.lax.optimization_barrier(scores), k)
  # Two barriers, as one for both aborts the compiler where there is a mesh.
  return (
    jax.lax.optimization_barrier(scores),
    jax.lax.optimization_barrier(places),
  )
