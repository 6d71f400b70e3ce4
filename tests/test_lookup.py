"""Reads of value rows and their gradients against einsum and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import counting
from smft_jax import lookup
from smft_jax import ranking

N, V, A = 29, 5, 11


def _inputs(lead=(3, 7), dtype=jnp.float32, num_slots=N):
  random = np.random.default_rng(0)
  values = jnp.asarray(random.normal(size=(num_slots, V)), dtype)
  # With A = 11 of 29 slots, many tokens read a slot more than once.
  slot_ids = jnp.asarray(random.integers(0, num_slots, (*lead, A)), jnp.int32)
  weights = jnp.asarray(random.uniform(size=(*lead, A)), dtype)
  gradient = jnp.asarray(random.normal(size=(*lead, V)), dtype)
  return values, slot_ids, weights, gradient


def _einsum_read(values, slot_ids, weights):
  return jnp.einsum('...av,...a->...v', values[slot_ids], weights)


def _dense_gradient(slot_ids, weights, gradient):
  """Of the whole table, in plain float64."""
  dense = np.zeros((N, V))
  added = np.float64(weights)[..., None] * np.float64(gradient)[..., None, :]
  np.add.at(dense, np.asarray(slot_ids), added)
  return dense


def _jit(function):
  """Compiles anew, whatever constants of a module were patched before."""
  return jax.jit(lambda *arrays: function(*arrays))


@pytest.mark.parametrize('lead', [(), (1,), (7,), (2, 3, 5)])
def test_read_equals_einsum(lead):
  values, slot_ids, weights, _ = _inputs(lead)
  got = jax.jit(lookup.read_rows)(values, slot_ids, weights)
  assert got.shape == (*lead, V)
  rows = np.asarray(values)[np.asarray(slot_ids)]
  want = np.einsum('...av,...a->...v', rows, weights)
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_gradients_equal_autodiff_in_float64():
  with jax.enable_x64(True):
    values, slot_ids, weights, gradient = _inputs(dtype=jnp.float64)

    def loss(read):
      return lambda v, w: jnp.vdot(jnp.sin(read(v, slot_ids, w)), gradient)

    got, want = (
      jax.jit(jax.grad(loss(read), (0, 1)))(values, weights)
      for read in (lookup.read_rows, _einsum_read)
    )
    for g, w in zip(got, want, strict=True):
      assert g.dtype == jnp.float64
      np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('lead', [(), (3, 7)])
@pytest.mark.parametrize('slots_per_access', [0, 8])
def test_row_gradient_is_the_selected_part_of_the_dense_gradient(
  lead, slots_per_access, monkeypatch
):
  # 8 takes the matrix product, 0 the scatter.
  monkeypatch.setattr(lookup, '_MATRIX_SLOTS_PER_ACCESS', slots_per_access)
  with jax.enable_x64(True):
    _, slot_ids, weights, gradient = _inputs(lead, dtype=jnp.float64)
    dense = _dense_gradient(slot_ids, weights, gradient)
    # Places without a slot hold N; the others are in no order.
    read_slots = list(dict.fromkeys(slot_ids.ravel().tolist()))
    unread = min(set(range(N)) - set(read_slots), default=N)
    slots = jnp.array([*read_slots[:4][::-1], N, unread, read_slots[4], N])
    got = _jit(lookup.row_gradient)(gradient, slot_ids, weights, slots)
    want = np.append(dense, np.zeros((1, V)), axis=0)[slots]
    assert np.any(want)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_row_gradient_by_scatter_and_by_product_agree(monkeypatch):
  values, slot_ids, weights, gradient = _inputs()
  dense = jax.jit(
    jax.grad(
      lambda v: jnp.vdot(lookup.read_rows(v, slot_ids, weights), gradient)
    )
  )(values)
  slots = jnp.arange(N)[::-1]
  assert len(slots) <= lookup._MATRIX_SLOTS_PER_ACCESS * A
  product = _jit(lookup.row_gradient)(gradient, slot_ids, weights, slots)
  np.testing.assert_allclose(product, dense[slots], rtol=2e-6, atol=2e-6)
  # The scatter adds in the order of the dense gradient: the same bits.
  monkeypatch.setattr(lookup, '_MATRIX_SLOTS_PER_ACCESS', 0)
  scatter = _jit(lookup.row_gradient)(gradient, slot_ids, weights, slots)
  np.testing.assert_array_equal(scatter, dense[slots])


def test_row_gradient_with_no_slot_read():
  _, slot_ids, weights, gradient = _inputs()
  slots = jnp.full(3, N, jnp.int32)
  rows = jax.jit(lookup.row_gradient)(gradient, slot_ids, weights, slots)
  np.testing.assert_array_equal(rows, np.zeros((3, V)))


def test_no_tokens_read_nothing():
  values, slot_ids, weights, gradient = _inputs((0,))
  assert lookup.read_rows(values, slot_ids, weights).shape == (0, V)
  for t in (3, 1000):  # by product and by scatter
    slots = jnp.arange(t)
    rows = jax.jit(lookup.row_gradient)(gradient, slot_ids, weights, slots)
    np.testing.assert_array_equal(rows, np.zeros((t, V)))


def test_bfloat16_table_accumulates_in_float32():
  # 300 ones in bfloat16 stop at 256.
  values = jnp.ones((2, 1), jnp.bfloat16)
  slot_ids = jnp.zeros((1, 300), jnp.int32)
  weights = jnp.ones((1, 300), jnp.float32)

  @jax.jit
  def read_and_gradients(values, weights):
    read, pull_back = jax.vjp(
      lambda v, w: lookup.read_rows(v, slot_ids, w), values, weights
    )
    ones = jnp.ones_like(read)
    rows = lookup.row_gradient(ones, slot_ids, weights, jnp.array([0]))
    return read, *pull_back(ones), rows

  read, values_gradient, weights_gradient, rows = read_and_gradients(
    values, weights
  )
  assert read.dtype == jnp.bfloat16
  assert read.item() == 300
  assert values_gradient.dtype == jnp.bfloat16
  assert weights_gradient.dtype == jnp.float32
  assert values_gradient[:, 0].tolist() == [300, 0]
  assert rows.dtype == jnp.float32
  assert rows.item() == 300


def test_no_array_of_all_gathered_rows_and_none_of_the_tables_size():
  num_slots, tokens = 1009, 13
  values, slot_ids, weights, _ = _inputs((tokens,), num_slots=num_slots)
  slots = jnp.arange(17)

  def loss_and_rows(values, weights):
    read, pull_back = jax.vjp(
      lambda w: lookup.read_rows(values, slot_ids, w), weights
    )
    return (
      pull_back(read),
      lookup.row_gradient(read, slot_ids, weights, slots),
    )

  text = jax.jit(loss_and_rows).lower(values, weights).compile().as_text()
  assert f'[{num_slots},{V}]' in text  # the argument
  computed = [
    line
    for line in text.splitlines()
    if f'= f32[{num_slots},{V}]' in line
    and 'parameter(' not in line
    and 'get-tuple-element(' not in line
    and 'copy(' not in line
  ]
  assert computed == []
  for shape in ((tokens, A, V), (A, tokens, V), (tokens * A, V)):
    assert f'f32[{",".join(map(str, shape))}]' not in text


def test_count_carrier_gives_counts_and_leaves_reads_alone():
  values, slot_ids, weights, gradient = _inputs()
  mask = jnp.asarray(np.random.default_rng(4).random((3, 7)) < 0.6)

  def loss(carrier, values, mask):
    reads = lookup.read_rows(values, slot_ids, weights)
    reads = counting.count_carrier(carrier, slot_ids, reads, mask)
    return jnp.vdot(reads, gradient)

  want_loss, want_gradient = jax.jit(
    jax.value_and_grad(
      lambda v: jnp.vdot(lookup.read_rows(v, slot_ids, weights), gradient)
    )
  )(values)
  got_loss, (carried, got_gradient) = jax.jit(jax.value_and_grad(loss, (0, 1)))(
    counting.make_carrier(N), values, mask
  )
  np.testing.assert_allclose(got_loss, want_loss, rtol=1e-6)
  np.testing.assert_allclose(got_gradient, want_gradient, rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(
    counting.carried_counts(carried), ranking.count_accesses(slot_ids, N, mask)
  )


def test_count_carrier_without_mask_counts_what_the_loss_depends_on():
  _, slot_ids, _, _ = _inputs((3, 7))
  mask = jnp.arange(7)[None, :] < jnp.array([7, 2, 0])[:, None]

  def loss(carrier):
    reads = counting.count_carrier(carrier, slot_ids, jnp.ones((3, 7, V)))
    # A factor of the loss must not change the counts.
    return 1e-3 * jnp.sum(jnp.where(mask[..., None], reads, 0) ** 2)

  np.testing.assert_array_equal(
    counting.carried_counts(jax.jit(jax.grad(loss))(counting.make_carrier(N))),
    ranking.count_accesses(slot_ids, N, mask),
  )


def test_count_carrier_sums_over_layers_and_remat():
  _, slot_ids, _, _ = _inputs()

  @jax.checkpoint
  def loss(carrier):
    reads = jnp.ones((3, 7, V))
    reads = counting.count_carrier(carrier, slot_ids, reads)
    return jnp.sum(counting.count_carrier(carrier, slot_ids, reads))

  np.testing.assert_array_equal(
    counting.carried_counts(jax.jit(jax.grad(loss))(counting.make_carrier(N))),
    2 * ranking.count_accesses(slot_ids, N),
  )


def test_count_carrier_is_exact_through_bfloat16():
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
    ({'values': jnp.ones(3)}, r'values must have shape \[N, V\]'),
    ({'weights': jnp.ones((2, 4))}, 'same shape'),
    ({'slot_ids': jnp.ones((2, 3))}, 'must be integers'),
  ],
)
def test_read_rows_bad_input(change, message):
  arguments = {
    'values': jnp.ones((5, 2)),
    'slot_ids': jnp.zeros((2, 3), jnp.int32),
    'weights': jnp.ones((2, 3)),
  }
  with pytest.raises(ValueError, match=message):
    lookup.read_rows(**arguments | change)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'read_gradient': jnp.ones((3, 5))}, 'all but their last dim'),
    ({'weights': jnp.ones((2, 4))}, 'same shape'),
    ({'slots': jnp.zeros((2, 2), jnp.int32)}, r'slots must be .* \[t\]'),
    ({'slots': jnp.zeros(2)}, r'slots must be integers'),
  ],
)
def test_row_gradient_bad_input(change, message):
  arguments = {
    'read_gradient': jnp.ones((2, 5)),
    'slot_ids': jnp.zeros((2, 3), jnp.int32),
    'weights': jnp.ones((2, 3)),
    'slots': jnp.zeros(2, jnp.int32),
  }
  with pytest.raises(ValueError, match=message):
    lookup.row_gradient(**arguments | change)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'carrier': jnp.zeros((3, 5), jnp.float16)}, 'out of the cast'),
    ({'carrier': jnp.zeros(5)}, r'carrier must have shape \(3, N\)'),
    ({'reads': jnp.ones((3, 2))}, 'all but their last dim'),
    ({'mask': jnp.ones(3, bool)}, r'mask must have shape \(2,\)'),
  ],
)
def test_count_carrier_bad_input(change, message):
  arguments = {
    'carrier': counting.make_carrier(5),
    'slot_ids': jnp.zeros((2, 3), jnp.int32),
    'reads': jnp.ones((2, 7)),
  }
  with pytest.raises(ValueError, match=message):
    counting.count_carrier(**arguments | change)
