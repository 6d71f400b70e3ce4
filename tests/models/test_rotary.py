"""Rotary positions against their definition."""

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax.models import rotary


def test_rotated_products_depend_on_the_distance_only():
  random = np.random.default_rng(0)
  query, key = (
    jnp.asarray(x, jnp.float32) for x in random.normal(size=(2, 1, 1, 1, 6))
  )

  @jax.jit
  def product(i, j):
    rotated = (
      rotary.rotate(x, jnp.full((1, 1), position, jnp.int32), 10_000.0)
      for x, position in ((query, i), (key, j))
    )
    return jnp.vdot(*rotated)

  near = product(3, 1)
  np.testing.assert_allclose(product(103, 101), near, rtol=1e-3)
  assert abs(product(3, 2) - near) > 1e-2
  np.testing.assert_allclose(product(0, 0), np.vdot(query, key), rtol=1e-5)


def test_scaled_frequencies_follow_their_definition():
  scaling = rotary.RopeScaling(
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=97,
  )
  plain = 500.0 ** (-np.arange(7) / 7)
  kinds, expected = [], []
  for rate in plain:
    turns = 97 * rate / (2 * np.pi)
    kinds.append('slow' if turns < 1 else 'fast' if turns > 4 else 'between')
    share = (turns - 1) / (4 - 1)
    expected.append(
      {
        'slow': rate / 8,
        'fast': rate,
        'between': (1 - share) * rate / 8 + share * rate,
      }[kinds[-1]]
    )
  assert set(kinds) == {'slow', 'fast', 'between'}
  frequencies = jax.jit(rotary.frequencies, static_argnums=(0, 1, 2))
  found = frequencies(7, 500.0, scaling)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  found = frequencies(7, 500.0, None)
  np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_angles_are_no_matrix_product_which_accelerators_round():
  x = jnp.ones((1, 3, 2, 4))
  positions = jnp.array([[256, 257, 258]])
  program = jax.jit(rotary.rotate, static_argnums=2).lower(x, positions, 1e4)
  assert 'dot_general' not in program.as_text()
