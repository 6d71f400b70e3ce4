"""Products of bfloat16 against products of float32 of the same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax.models import products


@pytest.mark.parametrize('shape', [((14,), (3, 4)), ((3, 4), (14,))])
def test_a_product_in_bfloat16_sums_in_float32_forward_and_backward(shape):
  random = np.random.default_rng(0)
  ins, outs = shape
  x, weight, gradient = (
    jnp.asarray(random.normal(size=size), jnp.float32)
    for size in ((2, 500, *ins), (*ins, *outs), (2, 500, *outs))
  )
  narrow = x.astype(jnp.bfloat16), gradient.astype(jnp.bfloat16)
  rounded = [a.astype(jnp.float32) for a in narrow]
  kept = weight.astype(jnp.bfloat16).astype(jnp.float32)

  def plain(x, weight):
    return jnp.tensordot(x, weight, len(ins), precision='highest')

  def product(x, weight):
    return products.project(x, weight, len(ins))

  want, pull_want = jax.vjp(plain, rounded[0], kept)
  got, pull_got = jax.vjp(product, narrow[0], weight)
  assert got.dtype == jnp.bfloat16
  near = functools.partial(np.testing.assert_allclose, rtol=2**-8, atol=2**-8)
  near(got.astype(jnp.float32), want)
  to_x, to_weight = pull_got(narrow[1])
  want_x, want_weight = pull_want(rounded[1])
  near(to_x.astype(jnp.float32), want_x)
  # In float32, though 1000 products of bfloat16 are summed.
  assert to_weight.dtype == jnp.float32
  np.testing.assert_allclose(to_weight, want_weight, rtol=1e-5, atol=1e-3)
  frozen = jax.make_jaxpr(
    lambda x: jax.vjp(lambda x: product(x, weight), x)[1](narrow[1])
  )(narrow[0])
  assert str(frozen).count('dot_general') == 2
