"""Checksums of arrays, computed on their devices.

A checksum is a sum over all elements. It does not depend on how an array is
sharded, and every device sums its own part. It detects damage, not tampering.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json

from flax import nnx
import jax
import jax.numpy as jnp

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def bits(array: jax.Array) -> jax.Array:
  """Returns the bits of an array as unsigned integers.

  Args:
    array: Numbers or booleans, of any shape.

  Returns:
    uint32 of the same shape; numbers of 8 bytes get a last dim of 2.

  Example:
    >>> import jax.numpy as jnp
    >>> [hex(b) for b in bits(jnp.array([0.0, -0.0])).tolist()]
    ['0x0', '0x80000000']
  """
  if array.dtype == jnp.bool_:
    return array.astype(jnp.uint32)
  unsigned = _UNSIGNED[array.dtype.itemsize]
  return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)


def checksums(arrays: Mapping[str, jax.Array]) -> dict[str, str]:
  """Computes a checksum of each array; it always detects one changed element.

  The bits of each element are mixed with its position by the finaliser of
  MurmurHash3, a bijection, and the results are added modulo 2**32.

  Args:
    arrays: Arrays by name.

  Returns:
    Eight hexadecimal digits by name.

  Example:
    >>> import jax.numpy as jnp
    >>> found = checksums({'a': jnp.array([1, 2]), 'b': jnp.array([2, 1])})
    >>> found['a'] == found['b']
    False
  """
  sums = jax.device_get({name: _sum(array) for name, array in arrays.items()})
  return {name: f'{int(value):08x}' for name, value in sums.items()}


@jax.jit
def differing_rows(old: jax.Array, new: jax.Array) -> jax.Array:
  """Finds the rows of two tables that differ in any bit.

  Args:
    old: [N, ...].
    new: Of the same shape and dtype.

  Returns:
    bool [N].

  Example:
    >>> import jax.numpy as jnp
    >>> old, new = jnp.array([[0.0], [1.0]]), jnp.array([[-0.0], [1.0]])
    >>> differing_rows(old, new).tolist()
    [True, False]
  """
  differing = bits(old) != bits(new)
  return jnp.any(differing.reshape(len(differing), -1), axis=1)


@jax.jit
def _sum(array: jax.Array) -> jax.Array:
  x = bits(array)
  stride = 1
  for axis in reversed(range(x.ndim)):
    position = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    x += position * jnp.uint32(stride * 0x9E3779B9 % 2**32)
    stride *= x.shape[axis]
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    x = (x ^ (x >> jnp.uint32(shift))) * jnp.uint32(factor)
  return jnp.sum(x ^ (x >> jnp.uint32(16)), dtype=jnp.uint32)


def fingerprint(params: nnx.State | Mapping[str, jax.Array]) -> str:
  """Hashes names, shapes, dtypes and checksums of all parameters.

  The hash does not depend on how they are sharded.
  """
  arrays = {
    f'{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}': leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  sums = checksums(arrays)
  return hashlib.sha256(json.dumps(sums).encode()).hexdigest()
