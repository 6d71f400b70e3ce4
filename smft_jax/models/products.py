"""Matrix products of bfloat16 that sum in float32, forward and backward."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(x: jax.Array, weight: jax.Array, num_in: int) -> jax.Array:
  """Multiplies a bfloat16 array by a matrix, summing in float32.

  The gradients' products, too, have factors of bfloat16 and sums of float32,
  for which CPUs and accelerators have fast instructions; those that JAX derives
  for such a product have a factor of float32.

  Args:
    x: [..., *in_shape].
    weight: [*in_shape, *out_shape], of any dtype; its gradient is not rounded.
    num_in: Number of input axes of `weight`.

  Returns:
    [..., *out_shape] of x's dtype.
  """
  narrow = weight.astype(x.dtype)
  return _sum_in_float32(x, narrow, num_in).astype(x.dtype)


def _sum_in_float32(a, b, axes):
  return jnp.tensordot(a, b, axes, preferred_element_type=jnp.float32)


def _project_forward(x, weight, num_in):
  # No gradient of a weight that is frozen.
  kept = x.value if weight.perturbed else None
  return project(x.value, weight.value, num_in), (kept, weight.value)


def _project_backward(num_in, residuals, gradient):
  if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
    return None, None
  x, weight = residuals
  outs, weight_outs = (
    tuple(range(array.ndim - (weight.ndim - num_in), array.ndim))
    for array in (gradient, weight)
  )
  narrow = weight.astype(gradient.dtype)
  to_x = _sum_in_float32(gradient, narrow, (outs, weight_outs))
  to_weight = None
  if x is not None:
    lead = tuple(range(x.ndim - num_in))
    to_weight = _sum_in_float32(x, gradient, (lead, lead)).astype(weight.dtype)
  return to_x.astype(gradient.dtype), to_weight


project.defvjp(_project_forward, _project_backward, symbolic_zeros=True)
