"""The loss over pieces of a vocabulary, against that of all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax.models import vocabulary

D, T = 8, 23


def draw(dtype=jnp.float32, scale=1.0):
  random = np.random.default_rng(4)
  hidden = jnp.asarray(random.normal(0, scale, (3, 4, D)), dtype)
  table = jnp.asarray(random.normal(0, 1, (T, D)), jnp.float32)
  targets = random.integers(0, T, (3, 4)).astype(np.int32)
  targets[0, :2] = 0, T - 1
  return hidden, table, jnp.asarray(targets)


def all_at_once(hidden, table, targets):
  return optax.softmax_cross_entropy_with_integer_labels(
    vocabulary.logits(hidden, table), targets
  )


def total(function, *sizes):
  # Not linear, so that each token's gradient counts.
  return jax.jit(
    jax.value_and_grad(
      lambda *a: jnp.sum(jnp.sin(function(*a, *sizes))), argnums=(0, 1)
    )
  )


@pytest.mark.parametrize('size', [1, 5, 22, 23])
def test_pieces_give_the_loss_and_gradients_of_all_logits(size):
  drawn = draw()
  want, want_gradients = total(all_at_once)(*drawn)
  found, gradients = total(vocabulary.nll_in_pieces, size)(*drawn)
  np.testing.assert_allclose(found, want, rtol=1e-6)
  for a, b in zip(gradients, want_gradients, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_logits_of_a_thousand_do_not_overflow():
  drawn = draw(scale=1000.0)
  found = vocabulary.nll_in_pieces(*drawn, 4)
  # A float32 of a thousand is off by 6e-5, and a sum of products by a few times
  # that, however small the likelihood that is left of it.
  np.testing.assert_allclose(found, all_at_once(*drawn), rtol=1e-6, atol=1e-3)
  _, gradients = total(vocabulary.nll_in_pieces, 4)(*drawn)
  assert all(np.isfinite(g).all() for g in gradients)


def test_in_bfloat16_sums_are_of_float32():
  hidden, table, targets = draw(jnp.bfloat16)
  exact = all_at_once(hidden.astype(jnp.float32), table, targets)
  found = vocabulary.nll_in_pieces(hidden, table, targets, 5)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, exact, rtol=0.02, atol=0.02)
  _, gradients = total(vocabulary.nll_in_pieces, 5)(hidden, table, targets)
  assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32]
  _, want = total(all_at_once)(hidden.astype(jnp.float32), table, targets)
  for a, b in zip(gradients, want, strict=True):
    np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.03)


def test_large_logits_are_never_made(monkeypatch):
  hidden, table, targets = draw()
  monkeypatch.setattr(vocabulary, '_MOST_LOGITS', 60)
  monkeypatch.setattr(vocabulary, '_LEAST_PIECE', 2)
  text = jax.jit(jax.grad(lambda h: vocabulary.nll(h, table, targets).sum()))
  text = text.lower(hidden).as_text()
  assert 'tensor<3x4x23x' not in text
  assert 'tensor<3x4x5x' in text
  # Frozen, so no gradient of it is summed up in a loop.
  assert 'tensor<23x8xf32>, tensor<23x8xf32>' not in text


def test_small_logits_are_made_at_once():
  hidden, table, targets = draw()
  text = jax.jit(vocabulary.nll).lower(hidden, table, targets).as_text()
  assert 'tensor<3x4x23x' in text
  assert 'while' not in text
