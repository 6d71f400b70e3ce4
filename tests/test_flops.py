import jax
import jax.numpy as jnp

from smft_jax import flops

A, B = jnp.ones((2, 3)), jnp.ones((3, 5))
ONE = 2 * 2 * 3 * 5


def product(a, b):
  return jnp.sum(a @ b)


def test_products_count_wherever_they_stand():
  assert flops.matmul_flops(product, A, B) == ONE
  assert flops.matmul_flops(jax.jit(product), A, B) == ONE
  assert flops.matmul_flops(jax.checkpoint(product), A, B) == ONE
  batched = jax.vmap(product, (0, None))
  assert flops.matmul_flops(batched, jnp.ones((7, 2, 3)), B) == 7 * ONE


def test_a_backward_pass_adds_a_product_for_each_gradient():
  assert flops.matmul_flops(jax.grad(product), A, B) == 2 * ONE
  both = jax.grad(product, argnums=(0, 1))
  assert flops.matmul_flops(both, A, B) == 3 * ONE


def test_loops_count_every_turn():
  def scanned(x, square):
    return jax.lax.scan(lambda x, _: (x @ square, None), x, None, length=7)[0]

  square = jnp.ones((3, 3))
  assert flops.matmul_flops(scanned, A, square) == 7 * 2 * 2 * 3 * 3

  def until(x, square):
    return jax.lax.while_loop(
      lambda x: jnp.sum(x) < 1e9, lambda x: x @ square, x
    )

  assert flops.matmul_flops(until, A, square) == 2 * 2 * 3 * 3


def test_of_a_choice_the_costliest_branch_counts():
  def choice(take, a, b):
    return jax.lax.cond(take, lambda: a @ b, lambda: jnp.zeros((2, 5)))

  assert flops.matmul_flops(choice, False, A, B) == ONE
