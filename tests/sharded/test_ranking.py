"""Sharded counts and selections: equal to whole ones, and what they send."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import ranking
from smft_jax import selection
from smft_jax.sharded import ranking as sharded_ranking
from tests.support import shards

A, B, L, N, t = shards.A, shards.B, shards.L, shards.N, shards.t


def test_equals_the_unsharded_counts(layout):
  _, slot_ids, _, _ = shards.reads()
  slot_ids = slot_ids.at[0, 0].set(-3).at[1, 1].set(N)
  mask = jax.random.bernoulli(jax.random.key(3), 0.6, (B, L))

  def counts(library, *layout):
    return (
      library.count_accesses(*layout, slot_ids, N, mask),
      library.count_accesses(*layout, slot_ids, N),
      library.document_frequency(*layout, slot_ids, N, mask),
    )

  spec = layout.sharding(layout.slots_N)
  for got, want in zip(
    jax.jit(lambda: counts(sharded_ranking, layout))(),
    counts(ranking),
    strict=True,
  ):
    np.testing.assert_array_equal(got, want)
    assert got.dtype == want.dtype
    assert got.sharding.is_equivalent_to(spec, 1)


def test_a_batch_that_replicas_cannot_share_counts_once():
  layout = shards.make_layout('rows, keys')
  slot_ids = shards.reads()[1][:3]
  got = jax.jit(
    functools.partial(sharded_ranking.count_accesses, layout), static_argnums=1
  )(slot_ids, N)
  np.testing.assert_array_equal(got, ranking.count_accesses(slot_ids, N))


@pytest.mark.parametrize('size', [t, N])
def test_equals_the_unsharded_top_slots(layout, size):
  top = jax.jit(
    functools.partial(sharded_ranking.top_slots, layout), static_argnums=1
  )
  # Few levels, so that slots of different devices tie; NaN and negative ones.
  many = np.random.default_rng(3).integers(-2, 4, N).astype(np.float32)
  many[7::13] = np.nan
  few = np.where(np.arange(N) % 97 == 5, many, 0)
  for scores, all_used in ((many, size == t), (few, False)):
    want = ranking.top_slots(jnp.asarray(scores), size)
    assert (np.asarray(want) < N).all() == all_used
    got = top(shards.put(layout, layout.slots_N, scores), size)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == jnp.int32


RANKINGS = ranking.RANKINGS | {
  'random': lambda counts, *_: ranking.random_scores(jax.random.key(5), counts)
}


# Ranking, layout, t, and whether to list accessed slots as in a large table.
SELECTIONS = [
  *(('tf_idf', name, t, True) for name in shards.LAYOUTS),
  *((name, 'rows, keys', t, True) for name in ('kl', 'random', 'all_accessed')),
  # Nearly all accessed slots, and more than a device has.
  *(('tf_idf', 'rows, keys', 400, listed) for listed in (True, False)),
  *(('all_accessed', name, t, False) for name in ('rows, keys', 'dims, keys')),
]


@pytest.mark.parametrize(('name', 'layout_name', 'size', 'listed'), SELECTIONS)
def test_selection_has_the_same_bits(
  name, layout_name, size, listed, monkeypatch
):
  layout = shards.make_layout(layout_name)
  rng = np.random.default_rng(4)
  slot_ids = jnp.asarray(rng.integers(0, 22, (B, L, A)) ** 2, jnp.int32)
  mask = jnp.asarray(rng.random((B, L)) < 0.8)
  frequency = jnp.asarray(rng.integers(0, 3, N), jnp.float32)

  def score(documents, counts, frequency):
    return RANKINGS[name](counts, frequency, documents)

  want = selection.select_slots(
    functools.partial(score, 7), slot_ids, frequency, size, mask=mask
  )
  few = 0 if listed else N
  monkeypatch.setattr(selection, '_SLOTS_PER_LISTED_ACCESS', few)

  @jax.jit
  def select(slot_ids, frequency, mask, documents):
    return sharded_ranking.select_slots(
      layout,
      functools.partial(score, documents),
      slot_ids,
      frequency,
      size,
      mask=mask,
      pointwise=name in ranking.POINTWISE,
    )

  got = select(slot_ids, frequency, mask, jnp.float32(7))
  np.testing.assert_array_equal(got[0], want[0])
  assert got[1] == want[1]


def programs(layout, num_slots):
  """Each function and the shapes it takes, for a table of `num_slots`."""
  slot_ids = shards.shape(
    layout, layout.batch((B, L)), B, L, A, dtype=jnp.int32
  )
  scores = shards.shape(layout, layout.slots_N, num_slots)
  score = functools.partial(ranking.tf_idf, num_documents=7)
  select = functools.partial(
    sharded_ranking.select_slots, layout, score, t=t, pointwise=True
  )
  return {
    'counts': (
      lambda ids: sharded_ranking.count_accesses(layout, ids, num_slots),
      slot_ids,
    ),
    'top': (lambda s: sharded_ranking.top_slots(layout, s, t), scores),
    'select': (select, slot_ids, scores),
  }


# For 2 replicas and 4 shards of 88 ** 2 slots.
SENT = {
  'rows, keys': {
    'counts': ['all-reduce f32[1936]'],  # N / 4
    'top': ['all-gather f32[44]', 'all-gather s32[44]'],  # 4 t
    'select': [
      *('all-gather f32[44]', 'all-gather s32[12,7,8]', 'all-gather s32[44]'),
      *('all-reduce f32[]', 'all-reduce s32[]'),  # accesses, accessed slots
    ],
  },
  'dims, keys': {'top': [], 'select': ['all-gather s32[12,7,8]']},
}


# With few slots per device all are scored, with many only the accessed ones.
@pytest.mark.parametrize(
  ('name', 'n'),
  [*(('rows, keys', n) for n in (56, 88, 112)), ('dims, keys', 88)],
)
def test_sends_what_is_expected_and_no_table(name, n):
  expected = SENT[name]
  if n != 88:
    expected = {what: expected[what] for what in ('top', 'select')}
  found = programs(shards.make_layout(name), n**2)
  assert shards.sent({what: found[what] for what in expected}) == expected
