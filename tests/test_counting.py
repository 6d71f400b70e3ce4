"""Access counts carried by gradients against counts by `ranking`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import counting
from smft_jax import ranking

pytestmark = pytest.mark.usefixtures('quick_compilation')

N, V, A = 29, 5, 11


def _slot_ids():
  return jnp.asarray(np.random.default_rng(0).integers(0, N, (3, 7, A)))


def _counts_of(loss):
  gradient = jax.jit(jax.grad(loss))(counting.make_carrier(N))
  return counting.carried_counts(gradient)


def test_counts_and_leaves_reads_alone():
  random = np.random.default_rng(4)
  slot_ids, mask = _slot_ids(), jnp.asarray(random.random((3, 7)) < 0.6)
  reads, gradient = jnp.asarray(random.normal(size=(2, 3, 7, V)), jnp.float32)

  def loss(carrier, reads):
    reads = counting.count_carrier(carrier, slot_ids, reads, mask)
    return jnp.vdot(reads, gradient), reads

  (carried, to_reads), same = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(
    counting.make_carrier(N), reads
  )
  np.testing.assert_array_equal(same, reads)
  np.testing.assert_array_equal(to_reads, gradient)
  np.testing.assert_array_equal(
    counting.carried_counts(carried), ranking.count_accesses(slot_ids, N, mask)
  )


def test_without_mask_counts_what_the_loss_depends_on():
  slot_ids = _slot_ids()
  mask = jnp.arange(7)[None, :] < jnp.array([7, 2, 0])[:, None]

  def loss(carrier):
    reads = counting.count_carrier(carrier, slot_ids, jnp.ones((3, 7, V)))
    # A factor of the loss must not change the counts.
    return 1e-3 * jnp.sum(jnp.where(mask[..., None], reads, 0) ** 2)

  np.testing.assert_array_equal(
    _counts_of(loss), ranking.count_accesses(slot_ids, N, mask)
  )


def test_sums_over_layers_and_remat():
  slot_ids = _slot_ids()

  @jax.checkpoint
  def loss(carrier):
    reads = jnp.ones((3, 7, V))
    reads = counting.count_carrier(carrier, slot_ids, reads)
    return jnp.sum(counting.count_carrier(carrier, slot_ids, reads))

  np.testing.assert_array_equal(
    _counts_of(loss), 2 * ranking.count_accesses(slot_ids, N)
  )


def test_is_exact_through_bfloat16():
  counts = [257, 0, 65_537, 70_003, 1]
  slot_ids = jnp.asarray(np.repeat(np.arange(5), counts)[:, None])

  def loss(carrier):
    reads = jnp.ones((len(slot_ids), 1))
    return jnp.sum(counting.count_carrier(carrier, slot_ids, reads))

  carrier = counting.make_carrier(5)
  for gradient in (
    jax.grad(loss)(carrier).astype(jnp.bfloat16),
    jax.grad(loss)(carrier.astype(jnp.bfloat16)),
  ):
    assert gradient.dtype == jnp.bfloat16
    assert counting.carried_counts(gradient).tolist() == counts


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'carrier': jnp.zeros((3, 5), jnp.float16)}, 'out of the cast'),
    ({'carrier': jnp.zeros(5)}, r'carrier must have shape \(3, N\)'),
    ({'reads': jnp.ones((3, 2))}, 'all but their last dim'),
    ({'mask': jnp.ones(3, bool)}, r'mask must have shape \(2,\)'),
  ],
)
def test_bad_input(change, message):
  arguments = {
    'carrier': counting.make_carrier(5),
    'slot_ids': jnp.zeros((2, 3), jnp.int32),
    'reads': jnp.ones((2, 7)),
  }
  with pytest.raises(ValueError, match=message):
    counting.count_carrier(**arguments | change)
