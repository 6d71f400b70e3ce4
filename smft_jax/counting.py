"""Access counts that travel as the gradient of a parameter.

For trainers that hand their optimizer gradients and nothing else: see
`optim.sparse_memory_finetuning`.

Shape letters: N slots, V value dim, A accesses of a token.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

# What one access adds to the gradient of a count carrier. A power of two, so
# that counts pass through exactly, and so small that a trainer's global-norm
# clipping does not notice the carrier.
COUNT_SCALE = 2.0**-60


def count_carrier(
  carrier: jax.Array,
  slot_ids: jax.Array,
  reads: jax.Array,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Returns `reads`, and makes the gradient of `carrier` the access counts.

  Trainers that pass nothing but gradients to their optimizer cannot tell it
  which slots were accessed. A trainable `carrier` next to the value table can:
  its value never matters, and its gradient is the number of accesses of every
  slot times `COUNT_SCALE`, whatever the loss. Gradients being summed, so are
  counts: over layers that share a table, micro-batches and replicas.
  `optim.sparse_memory_finetuning` reads them.

  Args:
    carrier: float32 [N], beside the value table in the parameter tree.
    slot_ids: Integers [..., A] in [0, N).
    reads: What `read_rows` gave for `slot_ids`, floats [..., V].
    mask: Booleans [...]; False = padding, not counted. None counts the tokens
      on which the loss depends, that is those whose gradient is not all zero:
      this leaves out padding at the end of a causal sequence.

  Returns:
    `reads`, unchanged.

  Raises:
    ValueError: If the carrier is not float32 [N] or the shapes do not fit
      together.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from smft_jax import counting
    >>> def loss(carrier, reads):
    ...   slot_ids = jnp.array([[0, 2], [2, 3]])
    ...   return jnp.sum(counting.count_carrier(carrier, slot_ids, reads) ** 2)
    >>> gradient = jax.grad(loss)(jnp.zeros(5), jnp.ones([2, 3]))
    >>> (gradient / counting.COUNT_SCALE).tolist()
    [1.0, 0.0, 2.0, 1.0, 0.0]
  """
  if carrier.ndim != 1 or carrier.dtype != jnp.float32:
    # bfloat16 would turn a count of 257 into 256.
    raise ValueError(
      f'carrier must be float32 [N], got {carrier.dtype} {carrier.shape}.'
    )
  if reads.shape[:-1] != slot_ids.shape[:-1]:
    raise ValueError(
      f'reads {reads.shape} and slot_ids {slot_ids.shape} must agree in all '
      'but their last dim.'
    )
  if mask is not None and mask.shape != slot_ids.shape[:-1]:
    raise ValueError(
      f'mask must have shape {slot_ids.shape[:-1]}, got {mask.shape}.'
    )
  return _carry(carrier.shape[0], carrier, slot_ids, reads, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _carry(num_slots, carrier_N, slot_ids, reads, mask):
  del num_slots, carrier_N, slot_ids, mask
  return reads


def _carry_forward(num_slots, carrier_N, slot_ids, reads, mask):
  del num_slots, carrier_N
  return reads, (slot_ids, mask)


def _carry_backward(num_slots, residuals, gradient):
  slot_ids, mask = residuals
  if mask is None:
    mask = jnp.any(gradient != 0, axis=-1)
  counted = jnp.where(mask.astype(bool)[..., None], slot_ids, num_slots)
  counts_N = jnp.zeros((num_slots,), jnp.int32)
  counts_N = counts_N.at[counted.reshape(-1)].add(1, mode='drop')
  return counts_N.astype(jnp.float32) * COUNT_SCALE, None, gradient, None


_carry.defvjp(_carry_forward, _carry_backward)
