"""Carries access counts to an optimizer in the gradient of a parameter.

For trainers that pass their optimizer nothing but gradients: see
`optim.sparse_memory_finetuning`.

A count is three digits of base 256. Every digit fits a bfloat16, which has
eight bits, so counts pass exactly through a trainer that casts parameters or
gradients to it; a count of 257 would become 256. Counts are linear in the
digits, so sums and means of gradients are sums and means of counts.

Shape letters: N slots, V value dim, A accesses of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from smft_jax import ids

# What one access adds to the gradient of a count carrier: a power of two, to
# keep counts exact, and small enough to leave a trainer's global norm alone.
COUNT_SCALE = 2.0**-60

DIGITS = 3

Path = tuple[Any, ...]
"""A key path from `jax.tree.leaves_with_path`."""

Matcher = Callable[[Path], bool]


def make_carrier(num_slots: int) -> jax.Array:
  """Makes a count carrier for a table of `num_slots` rows.

  Args:
    num_slots: N.

  Returns:
    Zeros, float32 [3, N]; training never changes them.

  Example:
    >>> make_carrier(5).shape
    (3, 5)
  """
  return jnp.zeros((DIGITS, num_slots), jnp.float32)


def carried_counts(gradient: jax.Array) -> jax.Array:
  """Extracts access counts from the gradient of a carrier.

  Exact up to 2**24 accesses of a slot, in bfloat16 too. Each time a trainer
  adds or scales gradients in bfloat16, they round by at most 1 part in 256.

  Args:
    gradient: Floats [..., 3, N], float32 or bfloat16.

  Returns:
    float32 [..., N]: the counts, times what the trainer scaled gradients by.

  Raises:
    ValueError: If the shape or dtype is not that of a carrier's gradient.

  Example:
    >>> gradient = make_carrier(4).at[:2, 3].set(COUNT_SCALE)
    >>> carried_counts(gradient.astype(jnp.bfloat16)).tolist()
    [0.0, 0.0, 0.0, 257.0]
  """
  _check('the gradient of a carrier', gradient)
  digits = gradient.astype(jnp.float32) / COUNT_SCALE
  ones, middle, high = (digits[..., i, :] for i in range(DIGITS))
  return ones + 2.0**8 * middle + 2.0**16 * high


def _check(name: str, array: jax.Array) -> None:
  """Raises a ValueError for an array that cannot carry counts."""
  if array.ndim < 2 or array.shape[-2] != DIGITS:
    raise ValueError(
      f'{name} must have shape ({DIGITS}, N), as counting.make_carrier makes '
      f'it, got {array.shape}.'
    )
  # In float16 COUNT_SCALE is 0.
  if array.dtype not in (jnp.float32, jnp.bfloat16):
    raise ValueError(
      f'{name} must be float32 or bfloat16, got {array.dtype}: leave count '
      'carriers out of the cast.'
    )


def count_carrier(
  carrier: jax.Array,
  slot_ids: jax.Array,
  reads: jax.Array,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Returns `reads`, and makes the gradient of `carrier` the access counts.

  A trainer that passes its optimizer nothing but gradients cannot tell it which
  slots were accessed. A trainable `carrier` next to the value table can: its
  value never matters, and its gradient is the number of accesses of every slot
  times `COUNT_SCALE`, whatever the loss. Counts are summed as gradients are:
  over layers that share a table, micro-batches and replicas.
  `optim.sparse_memory_finetuning` reads them.

  Args:
    carrier: From `make_carrier`, [3, N], next to the value table in the
      parameter tree.
    slot_ids: Integers [..., A] in [0, N).
    reads: What `read_rows` returned for `slot_ids`, floats [..., V].
    mask: Booleans [...]; False = padding, not counted. None counts the tokens
      that the loss depends on, those whose gradient is not all zero: this
      leaves out padding at the end of a causal sequence.

  Returns:
    `reads`, unchanged.

  Raises:
    ValueError: If the carrier is not [3, N] of float32 or bfloat16, or shapes
      do not match.

  Example:
    >>> from smft_jax import counting
    >>> def loss(carrier, reads):
    ...   slot_ids = jnp.array([[0, 2], [2, 3]])
    ...   return jnp.sum(counting.count_carrier(carrier, slot_ids, reads) ** 2)
    >>> carrier = counting.make_carrier(5)
    >>> gradient = jax.grad(loss)(carrier, jnp.ones([2, 3]))
    >>> counting.carried_counts(gradient).tolist()
    [1.0, 0.0, 2.0, 1.0, 0.0]
  """
  _check('carrier', carrier)
  if carrier.ndim != 2:
    raise ValueError(
      f'a carrier of stacked tables {carrier.shape} counts one layer at a time.'
    )
  slot_ids = ids.as_int32(slot_ids, carrier.shape[1])
  if reads.shape[:-1] != slot_ids.shape[:-1]:
    raise ValueError(
      f'reads {reads.shape} and slot_ids {slot_ids.shape} must agree in all '
      'but their last dim.'
    )
  if mask is not None and mask.shape != slot_ids.shape[:-1]:
    raise ValueError(
      f'mask must have shape {slot_ids.shape[:-1]}, got {mask.shape}.'
    )
  return _carry(carrier, slot_ids, reads, mask)


@jax.custom_vjp
def _carry(carrier, slot_ids, reads, mask):
  del carrier, slot_ids, mask
  return reads


def _carry_forward(carrier, slot_ids, reads, mask):
  return reads, (carrier, slot_ids, mask)


def _carry_backward(residuals, gradient):
  carrier, slot_ids, mask = residuals
  num_slots = carrier.shape[1]
  if mask is None:
    mask = jnp.any(gradient != 0, axis=-1)
  counted = jnp.where(mask.astype(bool)[..., None], slot_ids, num_slots)
  counts_N = jnp.zeros((num_slots,), jnp.int32)
  counts_N = counts_N.at[counted.reshape(-1)].add(1, mode='drop')
  digits = jnp.stack([counts_N % 256, (counts_N >> 8) % 256, counts_N >> 16])
  return digits.astype(carrier.dtype) * COUNT_SCALE, None, gradient, None


_carry.defvjp(_carry_forward, _carry_backward)


def named(name: str) -> Matcher:
  """Matches paths whose last key is `name`, looking through NNX variables.

  Example:
    >>> named('pool')((jax.tree_util.GetAttrKey('pool'),))
    True
  """

  def is_named(path: Path) -> bool:
    names = [jax.tree_util.keystr((key,), simple=True) for key in path]
    if names[-1:] in (['value'], ['raw_value']) and names[-2:-1] == [name]:
      names.pop()
    return names[-1:] == [name]

  return is_named


is_values = named('values')
is_carrier = named('access_counts')


def pair_carriers(
  leaves: Mapping[Path, Any],
  is_values: Matcher = is_values,
  is_carrier: Matcher = is_carrier,
) -> dict[Path, Path]:
  """Maps the path of each value table to that of its carrier, in tree order.

  Raises:
    ValueError: If there is no table, there are not as many carriers, or a
      carrier's shape does not match its table.
  """
  tables = [path for path in leaves if is_values(path)]
  carriers = [path for path in leaves if is_carrier(path)]
  if not tables or len(tables) != len(carriers):
    raise ValueError(
      f'found {len(tables)} value tables and {len(carriers)} count carriers, '
      'need one carrier for each table: see is_values and is_carrier.'
    )
  pairs = dict(zip(tables, carriers, strict=True))
  for table, carrier in pairs.items():
    shape = jnp.shape(leaves[table])
    expected = (*shape[:-2], DIGITS, *shape[-2:-1])
    if jnp.shape(leaves[carrier]) != expected:
      raise ValueError(
        f'{jax.tree_util.keystr(carrier)} must have shape {expected} to count '
        f'the accesses of {jax.tree_util.keystr(table)}, got '
        f'{jnp.shape(leaves[carrier])}: see make_carrier.'
      )
  return pairs
