"""Selecting slots by the accessed ones against selecting among all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import ranking
from smft_jax import selection

pytestmark = pytest.mark.usefixtures('quick_compilation')

accessed_slots = jax.jit(selection.accessed_slots, static_argnums=1)


@pytest.mark.parametrize('mask_dims', [None, 1, 2])
def test_accessed_slots_are_the_counts_that_are_not_zero(mask_dims):
  rng = np.random.default_rng(3)
  slot_ids = jnp.asarray(rng.integers(-2, 25, (5, 7, 3)), jnp.int32)
  mask = None
  if mask_dims:
    mask = jnp.asarray(rng.random(slot_ids.shape[:mask_dims]) < 0.5)
  counts = np.asarray(ranking.count_accesses(slot_ids, 23, mask))
  slots, listed = accessed_slots(slot_ids, 23, mask)
  assert slots.shape == listed.shape == (slot_ids.size,)
  assert (slots.dtype, listed.dtype) == (jnp.int32, jnp.float32)
  found = np.flatnonzero(counts)
  assert 0 < len(found) < 23
  used = np.asarray(slots) < 23
  np.testing.assert_array_equal(slots[used], found)
  np.testing.assert_array_equal(listed[used], counts[found])
  assert set(slots[~used].tolist()) == {23}
  assert not np.any(listed[~used])


def test_no_accessed_slot_where_all_is_padding():
  slots, counts = accessed_slots(
    jnp.zeros((2, 3), jnp.int32), 7, jnp.zeros(2, bool)
  )
  assert slots.tolist() == [7] * 6
  assert not np.any(counts)


@pytest.mark.parametrize('name', sorted(ranking.RANKINGS))
def test_large_tables_rank_like_small_ones(name, monkeypatch):
  rng = np.random.default_rng(4)
  slot_ids = jnp.asarray(rng.integers(0, 90, (40, 5)) ** 2, jnp.int32)
  mask = jnp.asarray(rng.random(40) < 0.8)
  # Few levels, so that many slots tie.
  frequency = jnp.asarray(rng.integers(0, 3, 8100), jnp.float32)
  select = functools.partial(
    selection.select_slots,
    functools.partial(ranking.RANKINGS[name], num_documents=7),
    pointwise=name in ranking.POINTWISE,
  )
  found = []
  for slots_per_access in (8100, 0):
    monkeypatch.setattr(selection, '_SLOTS_PER_LISTED_ACCESS', slots_per_access)
    # A function of its own, which JAX cannot have traced with another setting.
    each = jax.jit(
      lambda *args: [select(*args, t=t, mask=mask) for t in (1, 64, 200)]
    )
    found.append(each(slot_ids, frequency))
  accessed = len(set(slot_ids[mask].ravel().tolist()))
  for (small, small_count), (large, large_count) in zip(*found, strict=True):
    np.testing.assert_array_equal(small, large)
    assert small_count == large_count == accessed


@pytest.mark.parametrize('name', sorted(ranking.RANKINGS))
def test_pointwise_rankings_need_the_accessed_slots_only(name):
  rng = np.random.default_rng(4)
  slot_ids = jnp.asarray(rng.integers(0, 90, (40, 5)), jnp.int32)
  frequency = jnp.asarray(rng.integers(0, 8, 90), jnp.float32)
  score = jax.jit(ranking.RANKINGS[name])
  all_scores = score(ranking.count_accesses(slot_ids, 90), frequency, 7)
  slots, counts = accessed_slots(slot_ids, 90)
  scores = score(counts, frequency.at[slots].get(mode='fill', fill_value=0), 7)
  accessed = slots < 90
  same = np.array_equal(all_scores[slots[accessed]], scores[accessed])
  assert same == (name in ranking.POINTWISE)
