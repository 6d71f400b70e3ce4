"""Product-key search against brute force over all n * n slots."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import product_keys


def _inputs(lead, heads, key_dim, n, seed=0):
  random = np.random.default_rng(seed)
  queries = random.normal(size=(*lead, heads, key_dim))
  subkeys = random.normal(size=(heads, 2, n, key_dim // 2))
  return jnp.asarray(queries, jnp.float32), jnp.asarray(subkeys, jnp.float32)


def _weights(tokens):
  weights = np.random.default_rng(2).normal(size=(tokens, 2, 3))
  return jnp.asarray(weights, jnp.float32)


# As a trainer calls it: one program, not one for each operation in it.
search = jax.jit(product_keys.product_key_topk, static_argnums=2)


def _all_scores(queries, subkeys):
  """Scores of every slot, [..., H, n * n], in float64."""
  q, c = np.float64(queries), np.float64(subkeys)
  half = c.shape[-1]
  first = np.einsum('...hc,hnc->...hn', q[..., :half], c[:, 0])
  second = np.einsum('...hc,hnc->...hn', q[..., half:], c[:, 1])
  sums = first[..., :, None] + second[..., None, :]
  return sums.reshape(*sums.shape[:-2], -1)


@pytest.mark.parametrize('lead', [(), (3, 5)])
@pytest.mark.parametrize(('n', 'k'), [(13, 1), (13, 5), (13, 13), (1, 1)])
def test_equals_brute_force(lead, n, k):
  queries, subkeys = _inputs(lead, heads=3, key_dim=14, n=n)
  slot_ids, scores = search(queries, subkeys, k)
  want = _all_scores(queries, subkeys)
  want_ids = np.argsort(-want, axis=-1)[..., :k]
  assert slot_ids.shape == scores.shape == (*lead, 3, k)
  assert slot_ids.dtype == jnp.int32
  np.testing.assert_array_equal(slot_ids, want_ids)
  np.testing.assert_allclose(
    scores, np.take_along_axis(want, want_ids, -1), rtol=2e-5, atol=2e-5
  )


def test_every_candidate_can_win():
  # Half scores for which the k best sums are a whole row, a whole column or a
  # staircase of the candidates: the last of them must not have been pruned.
  k = 7
  for rows in range(1, k + 1):
    columns = k // rows
    # The first `rows` and `columns` sub-keys are far above the rest.
    rank = np.arange(k, dtype=np.float32)
    first = np.where(rank < rows, 100, 0) - rank
    second = np.where(rank < columns, 100, 0) - rank
    subkeys = jnp.asarray(np.stack([first, second])[None, :, :, None])
    slot_ids, _ = search(jnp.ones((1, 2)), subkeys.astype(jnp.float32), k)
    block = {
      a * k + b for a, b in itertools.product(range(rows), range(columns))
    }
    assert block <= set(slot_ids[0].tolist())


def test_ties_give_distinct_slots_and_the_same_each_time():
  subkeys = jnp.ones((1, 2, 5, 1))
  slot_ids, scores = search(jnp.ones((3, 1, 2)), subkeys, 5)
  assert all(len(set(row)) == 5 for row in slot_ids[:, 0].tolist())
  np.testing.assert_array_equal(slot_ids[0], slot_ids[2])
  np.testing.assert_array_equal(scores, 2.0)


def test_gradient_reaches_queries_and_subkeys():
  queries, subkeys = _inputs((7,), heads=2, key_dim=6, n=11)
  weights = _weights(7)

  def loss(queries, subkeys):
    return jnp.vdot(
      weights, product_keys.product_key_topk(queries, subkeys, 3)[1]
    )

  def brute_loss(queries, subkeys):
    first = jnp.einsum('thc,hnc->thn', queries[..., :3], subkeys[:, 0])
    second = jnp.einsum('thc,hnc->thn', queries[..., 3:], subkeys[:, 1])
    sums = (first[..., :, None] + second[..., None, :]).reshape(7, 2, -1)
    return jnp.vdot(weights, jax.lax.top_k(sums, 3)[0])

  got = jax.jit(jax.grad(loss, (0, 1)))(queries, subkeys)
  want = jax.jit(jax.grad(brute_loss, (0, 1)))(queries, subkeys)
  for g, w in zip(got, want, strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)
    assert np.any(np.asarray(g) != 0)


@pytest.mark.parametrize('tokens', [1, 8, 15])
def test_search_in_blocks_is_the_search_in_one(tokens, monkeypatch):
  queries, subkeys = _inputs((tokens,), heads=2, key_dim=6, n=11)
  weights = _weights(tokens)

  def run():
    def loss(queries, subkeys):
      found = product_keys.product_key_topk(queries, subkeys, 3)
      return jnp.vdot(weights, found[1]), found

    # Compiled anew, for what is patched.
    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(queries, subkeys)

  want = run()
  # Blocks of 4 tokens, the last one padded.
  monkeypatch.setattr(product_keys, '_CPU_BLOCK', 4 * 2 * 2 * 11)
  got = run()
  np.testing.assert_array_equal(got[1][0], want[1][0])
  for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-6)


def test_memory_does_not_grow_with_the_tokens():
  subkeys = jnp.ones((2, 2, 64, 3))

  def temporaries(tokens):
    queries = jax.ShapeDtypeStruct((tokens, 2, 6), jnp.float32)
    compiled = search.lower(queries, subkeys, 4).compile()
    results = tokens * 2 * 4 * 8
    return compiled.memory_analysis().temp_size_in_bytes - results

  scores = product_keys._CPU_BLOCK * 4
  assert temporaries(2**15) < 4 * scores < 2**15 * 2 * 2 * 64 * 8


@pytest.mark.parametrize(
  ('rows', 'n', 'k'), [(1, 24, 3), (300, 24, 3), (5, 23, 3), (5, 24, 24)]
)
def test_cpu_top_k_is_top_k(rows, n, k):
  # 24 = 3 lanes of 8 rounds; 300 rows are two parts; 23 has no lanes.
  x = jnp.asarray(np.random.default_rng(0).normal(size=(rows, n)), jnp.float32)
  values, places = jax.jit(product_keys._cpu_top_k, static_argnums=1)(x, k)
  want_values, want_places = jax.lax.top_k(x, k)
  np.testing.assert_array_equal(values, want_values)
  np.testing.assert_array_equal(places, want_places)


def test_cpu_top_k_with_ties_and_nan_stays_distinct_or_in_range():
  top_k = jax.jit(product_keys._cpu_top_k, static_argnums=1)
  ties = jnp.asarray(
    np.random.default_rng(0).integers(0, 3, (50, 24)), jnp.float32
  )
  values, places = top_k(ties, 3)
  np.testing.assert_array_equal(values, jax.lax.top_k(ties, 3)[0])
  assert all(len(set(row)) == 3 for row in places.tolist())
  np.testing.assert_array_equal(
    np.take_along_axis(np.asarray(ties), np.asarray(places), axis=1), values
  )
  _, places = top_k(jnp.full((2, 24), jnp.nan), 3)
  assert places.min() >= 0
  assert places.max() < 24


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32])
def test_keeps_dtype(dtype):
  queries, subkeys = _inputs((3,), heads=2, key_dim=4, n=5)
  slot_ids, scores = search(queries.astype(dtype), subkeys.astype(dtype), 2)
  assert scores.dtype == dtype
  assert slot_ids.dtype == jnp.int32


@pytest.mark.parametrize(
  ('queries', 'subkeys', 'k', 'message'),
  [
    ((2, 6), (2, 2, 5, 3), 6, r'k = 6 .* 5 sub-keys'),
    ((2, 6), (2, 2, 5, 3), 0, r'k = 0'),
    ((2, 7), (2, 2, 5, 3), 1, r'queries must have shape \[..., 2, 6\]'),
    ((3, 6), (2, 2, 5, 3), 1, r'queries must have shape \[..., 2, 6\]'),
    ((2, 6), (2, 5, 3), 1, r'subkeys must have shape'),
    ((2, 6), (2, 1, 5, 3), 1, r'subkeys must have shape'),
  ],
)
def test_bad_shapes(queries, subkeys, k, message):
  with pytest.raises(ValueError, match=message) as error:
    product_keys.product_key_topk(jnp.ones(queries), jnp.ones(subkeys), k)
  assert '\n' not in str(error.value)
