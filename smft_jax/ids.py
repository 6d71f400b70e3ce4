"""Slot ids as this package computes with them: int32, whatever they came as.

A narrow dtype cannot hold N, the mark of an unused place, and an id that JAX
wraps around would count, read or train another slot without a word.

Shape letters: N slots, A accesses of a token.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

_LARGEST = np.iinfo(np.int32).max


def as_int32(
  ids: jax.typing.ArrayLike,
  num_slots: int | None = None,
  name: str = 'slot_ids',
) -> jax.Array:
  """Converts slot ids of any integer dtype to int32.

  Args:
    ids: Integers of any shape: a JAX or NumPy array, or nested lists. Ids that
      int32 cannot hold become -1 or 2**31 - 1, which no table has.
    num_slots: N, if it is known.
    name: What errors call the ids.

  Returns:
    int32 of the same shape.

  Raises:
    ValueError: If the ids are not integers, or their dtype cannot hold all of
      [0, N).

  Example:
    >>> from smft_jax import ids
    >>> ids.as_int32(np.array([3, 255], np.uint8)).tolist()
    [3, 255]
    >>> ids.as_int32(np.array([3], np.uint8), num_slots=1000)
    Traceback (most recent call last):
    ...
    ValueError: slot_ids of dtype uint8 cannot hold the ids of 1000 slots: ...
  """
  if not isinstance(ids, jax.Array):
    given, ids = ids, np.asarray(ids)
    if not ids.size and not isinstance(given, np.ndarray):
      ids = ids.astype(np.int32)  # NumPy calls an empty list floats.
  dtype = ids.dtype
  if not jnp.issubdtype(dtype, jnp.integer):
    raise ValueError(f'{name} must be integers, got {dtype}.')
  largest = jnp.iinfo(dtype).max
  if num_slots is not None and num_slots - 1 > largest:
    raise ValueError(
      f'{name} of dtype {dtype} cannot hold the ids of {num_slots} slots: take '
      'int32.'
    )
  if largest > _LARGEST:
    if jnp.issubdtype(dtype, jnp.signedinteger):
      ids = ids.clip(-1)
    ids = ids.clip(max=_LARGEST)
  return jnp.asarray(ids.astype(np.int32))


def check_int(name: str, value: int) -> None:
  """Raises a ValueError unless a size is an int.

  JAX would fail much later, with a message about shapes.

  Args:
    name: What the error calls the size.
    value: A Python or NumPy integer.
  """
  if not isinstance(value, (int, np.integer)):
    raise ValueError(
      f'{name} must be an int, got {value!r} of type {type(value).__name__}.'
    )


def counted(
  ids: jax.typing.ArrayLike, num_slots: int, mask: jax.Array | None = None
) -> jax.Array:
  """Replaces the ids of padding, and negative ids, by N.

  Args:
    ids: Integers [..., A].
    num_slots: N.
    mask: Booleans with the shape of leading dims of the ids; False = padding.

  Returns:
    int32 [..., A].

  Raises:
    ValueError: If N is not an int of 1 or more, the ids are not integers that
      can be slots of N, or the mask does not match them.
  """
  check_int('num_slots', num_slots)
  if num_slots < 1:
    raise ValueError(f'num_slots must be at least 1, got {num_slots}.')
  ids = as_int32(ids, num_slots)
  # JAX would index from the end of the table with a negative id.
  is_counted = ids >= 0
  if mask is not None:
    mask = jnp.asarray(mask, bool)
    if mask.shape != ids.shape[: mask.ndim] or mask.ndim >= ids.ndim:
      raise ValueError(
        f'mask {mask.shape} must match the leading dims of slot_ids '
        f'{ids.shape}.'
      )
    is_counted &= mask.reshape(*mask.shape, *(1,) * (ids.ndim - mask.ndim))
  return jnp.where(is_counted, ids, num_slots)
