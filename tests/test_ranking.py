"""Counts, document frequencies and scores against plain numpy in float64."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import ranking

N = 31


def _slot_ids(shape, seed=0):
  # Squared, so that some slots are used much more than others and some never.
  uniform = np.random.default_rng(seed).random(shape)
  return jnp.asarray((uniform**2 * (N - 3)).astype(np.int32))


def _count(slot_ids, mask):
  counter = collections.Counter(np.asarray(slot_ids)[np.asarray(mask)].ravel())
  return np.array([counter[i] for i in range(N)], np.float64)


def _background():
  slot_ids = _slot_ids((11, 5, 7), seed=1)
  frequency = ranking.document_frequency(slot_ids, N)
  counts = ranking.count_accesses(_slot_ids((3, 13, 7)), N)
  return counts, frequency, 11


@pytest.mark.parametrize('mask_dims', [1, 2, 3])
def test_count_accesses_leaves_out_padding(mask_dims):
  slot_ids = _slot_ids((3, 5, 2, 7))
  mask = jax.random.bernoulli(
    jax.random.key(0), 0.5, slot_ids.shape[:mask_dims]
  )
  got = jax.jit(ranking.count_accesses, static_argnums=1)(slot_ids, N, mask)
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, _count(slot_ids, mask))
  assert 0 < got.sum() < slot_ids.size


def test_count_accesses_counts_repeats_exactly():
  # bfloat16 turns 257 into 256; a slot read twice by a token counts twice.
  counts = ranking.count_accesses(jnp.full((257, 2), 4, jnp.int32), N)
  assert counts[4] == counts.sum() == 514


def test_ids_out_of_range_are_not_counted():
  slot_ids, valid = jnp.array([[0, -1, N, N + 5, 2]]), jnp.array([[0, 2]])
  np.testing.assert_array_equal(
    ranking.count_accesses(slot_ids, N), ranking.count_accesses(valid, N)
  )
  assert ranking.count_accesses(valid, N).sum() == 2
  assert ranking.document_frequency(slot_ids, N).sum() == 2


@pytest.mark.parametrize('mask_dims', [0, 1, 2])
def test_document_frequency(mask_dims):
  slot_ids = _slot_ids((5, 7, 3))
  mask = None
  masked = np.ones((5, 7), bool)
  if mask_dims:
    mask = jax.random.bernoulli(
      jax.random.key(1), 0.5, slot_ids.shape[:mask_dims]
    )
    masked = np.broadcast_to(
      np.asarray(mask).reshape(5, *mask.shape[1:] or (1,)), (5, 7)
    )
  got = jax.jit(ranking.document_frequency, static_argnums=1)(slot_ids, N, mask)
  want = sum(
    (_count(ids, m) > 0).astype(np.float64)
    for ids, m in zip(slot_ids, masked, strict=True)
  )
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, want)
  assert got.max() > 1


def test_document_frequencies_of_parts_add_up():
  slot_ids = _slot_ids((5, 7, 3))
  np.testing.assert_array_equal(
    ranking.document_frequency(slot_ids[:2], N)
    + ranking.document_frequency(slot_ids[2:], N),
    ranking.document_frequency(slot_ids, N),
  )


def test_tf_idf_equals_the_formula_in_float64():
  counts, frequency, documents = _background()
  c, df = np.float64(counts), np.float64(frequency)
  idf = np.log((documents + 1) / (df + 1))
  np.testing.assert_allclose(
    ranking.inverse_document_frequency(frequency, documents), idf, rtol=1e-6
  )
  for num_documents in (documents, jnp.int32(documents)):
    got = jax.jit(ranking.tf_idf)(counts, frequency, num_documents)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, c / c.sum() * idf, rtol=1e-6)
  np.testing.assert_allclose(
    ranking.tf_idf_cubed(counts, frequency, documents),
    c / c.sum() * idf**3,
    rtol=3e-6,
  )
  np.testing.assert_allclose(
    ranking.tf(counts, frequency, documents), c / c.sum(), rtol=1e-6
  )
  q, p = (df + 1) / (df + 1).sum(), c / c.sum()
  terms = p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1))
  np.testing.assert_allclose(
    ranking.kl(counts, frequency, documents), terms, rtol=1e-5, atol=1e-7
  )


def test_a_slot_that_all_documents_use_scores_exactly_zero():
  for documents in (1, 7, 999, 1000):
    scores = ranking.tf_idf(
      jnp.array([5.0, 1.0]), jnp.array([float(documents), 0.0]), documents
    )
    assert scores[0] == 0
    assert ranking.top_slots(scores, 2).tolist() == [1, 2]


@pytest.mark.parametrize('name', sorted(ranking.RANKINGS))
def test_rankings_select_only_accessed_slots(name):
  counts, frequency, documents = _background()
  score = ranking.RANKINGS[name]
  scores = jax.jit(score)(counts, frequency, documents)
  assert (scores.shape, scores.dtype) == ((N,), jnp.float32)
  assert np.all(np.isfinite(scores))
  selected = set(ranking.top_slots(scores, N).tolist()) - {N}
  assert selected
  assert selected <= set(np.flatnonzero(counts > 0).tolist())
  nothing = score(jnp.zeros(N), frequency, documents)
  np.testing.assert_array_equal(ranking.top_slots(nothing, 3), [N] * 3)
  np.testing.assert_array_equal(
    score(counts.astype(jnp.int32), frequency.astype(jnp.int32), documents),
    score(counts, frequency, documents),
  )


def test_random_scores():
  counts, _, _ = _background()
  draw = jax.jit(ranking.random_scores)
  scores = draw(jax.random.key(0), counts)
  np.testing.assert_array_equal(scores > 0, counts > 0)
  np.testing.assert_array_equal(scores, draw(jax.random.key(0), counts))
  assert np.any(scores != draw(jax.random.key(1), counts))


def test_top_slots_equals_a_stable_sort():
  scores = jnp.asarray(
    np.random.default_rng(0).integers(0, 5, 97).astype(np.float32)
  )
  want = np.argsort(-np.asarray(scores), kind='stable')
  want = np.where(np.asarray(scores)[want] > 0, want, 97)
  for t in (1, 7, 97):
    got = jax.jit(ranking.top_slots, static_argnums=1)(scores, t)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, want[:t])


def test_top_slots_takes_only_scores_above_zero():
  scores = jnp.array([jnp.nan, 0.0, -0.0, -1.0, 2.0, -jnp.inf, jnp.inf, 2.0])
  assert ranking.top_slots(scores, 5).tolist() == [6, 4, 7, 8, 8]
  assert ranking.top_slots(jnp.full(3, jnp.nan), 2).tolist() == [3, 3]


@pytest.mark.parametrize(
  ('t', 'message'),
  [(8, 't = 8 is more than the 7 slots there are'), (0, 'at least 1')],
)
def test_top_slots_bad_t(t, message):
  with pytest.raises(ValueError, match=message) as error:
    ranking.top_slots(jnp.ones(7), t)
  assert '\n' not in str(error.value)


IDS = np.zeros((2, 3), np.int32)


@pytest.mark.parametrize(
  ('function', 'arguments', 'message'),
  [
    (ranking.count_accesses, (IDS + 0.5, 5), 'integers'),
    (ranking.count_accesses, (IDS, 0), 'num_slots must be at least 1'),
    (ranking.count_accesses, (IDS, 5, np.ones(3, bool)), 'mask'),
    (ranking.count_accesses, (IDS, 5, np.ones((2, 3), bool)), 'mask'),
    (ranking.document_frequency, (IDS[0], 5), r'\[documents, ..., A\]'),
    (ranking.tf_idf, (np.ones(3), np.ones(4), 5), 'num_slots'),
    (ranking.top_slots, (np.ones((3, 1)), 1), r'\[N\]'),
  ],
)
def test_bad_shapes(function, arguments, message):
  with pytest.raises(ValueError, match=message):
    function(*arguments)


def test_counts_may_be_lists():
  found = ranking.tf_idf([3, 1, 0], [7, 0, 0], 7)
  expected = ranking.tf_idf(jnp.array([3, 1, 0]), jnp.array([7, 0, 0]), 7)
  np.testing.assert_array_equal(found, expected)
