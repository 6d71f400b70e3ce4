"""Slot ids of any integer dtype mean the same slots everywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import counting
from smft_jax import ids
from smft_jax import lookup
from smft_jax import memory
from smft_jax import optim
from smft_jax import overlay
from smft_jax import product_keys
from smft_jax import ranking
from smft_jax import selection

# Two tokens of two accesses, the second token padding; 200 is below 0 in int8.
_IDS = np.array([[3, 1], [3, 5]])
_MASK = np.array([True, False])
_N = 120

_DTYPES = ('int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64')


def _row_gradient(slot_ids):
  weights = jnp.ones((2, 2))
  gradient = jnp.array([[1.0], [10.0]])
  return lookup.row_gradient(gradient, slot_ids, weights, [3, 5, _N])


def _carried(slot_ids):
  reads = jnp.ones((2, 1))

  def loss(carrier):
    return jnp.sum(counting.count_carrier(carrier, slot_ids, reads, _MASK))

  gradient = jax.grad(loss)(counting.make_carrier(_N))
  return counting.carried_counts(gradient)[:6]


def _overlay_read(slot_ids):
  versions = overlay.make([(np.array([3]), np.ones((1, 1)))], which=[0, 0])
  table = jnp.zeros((_N, 1))
  return overlay.read_rows(table, versions, slot_ids, jnp.ones((2, 2)))


def _select(slot_ids):
  score = functools.partial(ranking.tf_idf, num_documents=9)
  frequency = np.zeros(_N)
  return selection.select_slots(score, slot_ids, frequency, 3, mask=_MASK)[0]


_CASES = {
  'count_accesses': (
    lambda i: ranking.count_accesses(i, _N, _MASK)[:6],
    [0, 1, 0, 1, 0, 0],
  ),
  'document_frequency': (
    lambda i: ranking.document_frequency(i, _N)[:6],
    [0, 1, 0, 2, 0, 1],
  ),
  'accessed_slots': (
    lambda i: selection.accessed_slots(i, _N, _MASK)[0],
    [1, 3, _N, _N],
  ),
  'select_slots': (_select, [1, 3, _N]),
  'read_rows': (
    lambda i: lookup.read_rows(
      np.arange(_N)[:, None] * 1.0, i, np.ones((2, 2))
    ),
    [[4], [8]],
  ),
  'row_gradient': (_row_gradient, [[11], [10], [0]]),
  'count_carrier': (_carried, [0, 1, 0, 1, 0, 0]),
  'overlay.read_rows': (_overlay_read, [[1], [1]]),
}


@pytest.mark.parametrize('name', _CASES)
@pytest.mark.parametrize('dtype', _DTYPES)
def test_narrow_and_wide_ids(name, dtype):
  function, want = _CASES[name]
  np.testing.assert_array_equal(function(_IDS.astype(dtype)), want)
  if dtype != 'int64':  # which JAX has under x64 only
    np.testing.assert_array_equal(function(jnp.asarray(_IDS, dtype)), want)


@pytest.mark.parametrize('name', _CASES)
def test_lists(name):
  function, want = _CASES[name]
  np.testing.assert_array_equal(function(_IDS.tolist()), want)


@pytest.mark.parametrize('name', _CASES)
def test_int64_under_x64(name):
  function, want = _CASES[name]
  with jax.enable_x64(True):
    np.testing.assert_array_equal(function(jnp.asarray(_IDS, 'int64')), want)


def test_ids_that_int32_cannot_hold_count_nowhere():
  wide = np.array([[2**32 + 3, -(2**32) + 1]])
  assert not ranking.count_accesses(wide, _N).any()
  assert not ranking.count_accesses(np.array([[2**32 - 1]], 'uint32'), _N).any()


def test_a_dtype_that_cannot_hold_the_slots_is_refused():
  narrow = np.zeros((2, 2), np.uint8)
  message = 'slot_ids of dtype uint8 cannot hold the ids of 257 slots'
  with pytest.raises(ValueError, match=message):
    ranking.count_accesses(narrow, 257)
  with pytest.raises(ValueError, match=message):
    lookup.read_rows(jnp.zeros((257, 1)), narrow, jnp.zeros((2, 2)))
  assert ids.as_int32(narrow, 256).dtype == jnp.int32


@pytest.mark.parametrize('bad', [[[0.5]], [[True]], np.zeros((1, 1))])
def test_other_numbers_are_refused(bad):
  with pytest.raises(ValueError, match='slot_ids must be integers'):
    ids.as_int32(bad)


@pytest.mark.parametrize('size', [8.0, '8', None, jnp.int32(8)])
def test_sizes_that_are_no_ints(size):
  scores, slot_ids = jnp.arange(9.0), jnp.array([[1, 2]])
  for name, call in (
    ('t', lambda: optim.keep_top_slots(size)),
    ('t', lambda: optim.sparse_memory_finetuning(optax.sgd(0.1), size)),
    ('t', lambda: ranking.top_slots(scores, size)),
    ('num_slots', lambda: ranking.count_accesses(slot_ids, size)),
    (
      'num_slots',
      lambda: memory.MemoryConfig(model_dim=8, num_slots=size, k=1),
    ),
    (
      'k',
      lambda: product_keys.product_key_topk(
        jnp.ones((1, 1, 4)), jnp.ones((1, 2, 9, 2)), size
      ),
    ),
  ):
    with pytest.raises(ValueError, match=f'^{name} must be an int, got '):
      call()


def test_sizes_of_numpy():
  scores = jnp.arange(9.0)
  assert ranking.top_slots(scores, np.int64(2)).tolist() == [8, 7]
