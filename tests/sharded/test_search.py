"""The sharded search: equal to the whole one, and what it sends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import product_keys
from smft_jax.sharded import search as sharded_search
from tests.support import compilation
from tests.support import shards

B, C, H, L, k, n = shards.B, shards.C, shards.H, shards.L, shards.k, shards.n


def search_and_gradients(search, *arrays):
  """Slot ids, scores, and gradients of queries and sub-keys."""

  @jax.jit
  def both(queries, subkeys, gradient):
    scores, pull_back, slot_ids = jax.vjp(
      lambda q, s: search(q, s, k)[::-1], queries, subkeys, has_aux=True
    )
    return slot_ids, scores, *pull_back(gradient)

  return both(*arrays)


@pytest.fixture(scope='module')
def unsharded():
  """Queries, sub-keys, gradient of scores, and what is found."""
  keys = jax.random.split(jax.random.key(1), 3)
  arrays = (
    jax.random.normal(keys[0], (B, L, H, 2 * C)),
    jax.random.normal(keys[1], (H, 2, n, C)),
    jax.random.normal(keys[2], (B, L, H, k)),
  )
  with compilation.quick():
    found = search_and_gradients(product_keys.product_key_topk, *arrays)
  return arrays, found


def test_equals_the_unsharded_search(layout, unsharded):
  (queries, subkeys, gradient), want = unsharded
  got = search_and_gradients(
    functools.partial(sharded_search.product_key_topk, layout),
    shards.put(layout, layout.batch(queries.shape), queries),
    shards.put(layout, layout.subkeys_Hx2xnxC, subkeys),
    shards.put(layout, layout.batch(gradient.shape), gradient),
  )
  np.testing.assert_array_equal(got[0], want[0])
  shards.assert_close(got[1:], want[1:])
  spec = layout.sharding(layout.subkeys_Hx2xnxC)
  assert got[3].sharding.is_equivalent_to(spec, 4)


def programs(layout, n):
  """The search and its gradients, with n sub-keys in a half."""
  queries = shards.shape(layout, layout.batch((B, L)), B, L, H, 2 * C)
  subkeys = shards.shape(layout, layout.subkeys_Hx2xnxC, H, 2, n, C)

  def search(queries, subkeys):
    return sharded_search.product_key_topk(layout, queries, subkeys, k)

  def gradients(queries, subkeys):
    _, pull_back = jax.vjp(lambda *x: search(*x)[1], queries, subkeys)
    return pull_back(jnp.ones((B, L, H, k)))

  return {
    'search': (search, queries, subkeys),
    'gradients': (gradients, queries, subkeys),
  }


# For 2 replicas, and what is found in 4 shards; R = 2 halves x H x B/2 x L.
KEYS = ['all-gather f32[336,8]', 'all-gather s32[336,8]']
SENT = {
  'rows, keys': {
    'search': KEYS,
    'gradients': [
      *KEYS,
      'all-reduce f32[4,2,22,5]',  # of sub-keys, where those train
      'all-reduce f32[42,4,2,5]',
    ],
  },
  'rows, heads': {
    'search': ['all-gather f32[21,4,2]', 'all-gather s32[21,4,2]'],
    'gradients': [
      *('all-gather f32[21,4,2,5]', 'all-gather s32[21,4,2]'),
      'all-reduce f32[2,2,88,5]',
    ],
  },
}


@pytest.mark.parametrize('name', SENT)
def test_sends_what_is_expected(name):
  assert shards.sent(programs(shards.make_layout(name), 88)) == SENT[name]


def test_sends_the_same_for_more_subkeys():
  found = programs(shards.make_layout('rows, keys'), 112)
  assert shards.sent({'search': found['search']}) == {'search': KEYS}
