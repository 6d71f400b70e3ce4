"""Reads of value rows and their gradients against einsum and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import lookup

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


GOOD = {
  'values': np.ones((5, 2)),
  'read_gradient': np.ones((2, 5)),
  'slot_ids': np.zeros((2, 3), np.int32),
  'weights': np.ones((2, 3)),
  'slots': np.zeros(2, np.int32),
}


@pytest.mark.parametrize(
  ('function', 'name', 'bad', 'message'),
  [
    ('read_rows', 'values', np.ones(3), r'values must have shape \[N, V\]'),
    ('read_rows', 'weights', np.ones((2, 4)), 'same shape'),
    ('read_rows', 'slot_ids', np.ones((2, 3)), 'must be integers'),
    ('row_gradient', 'read_gradient', np.ones((3, 5)), 'all but their last'),
    ('row_gradient', 'weights', np.ones((2, 4)), 'same shape'),
    (
      'row_gradient',
      'slots',
      np.zeros((2, 2), np.int32),
      r'must have shape \[t\]',
    ),
    ('row_gradient', 'slots', np.zeros(2), r'slots must be integers'),
  ],
)
def test_bad_arguments(function, name, bad, message):
  names = ('slot_ids', 'weights') + (
    ('values',) if function == 'read_rows' else ('read_gradient', 'slots')
  )
  arguments = {name: GOOD[name] for name in names} | {name: bad}
  with pytest.raises(ValueError, match=message):
    getattr(lookup, function)(**arguments)
