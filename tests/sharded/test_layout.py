"""Every sharded function: equal to the whole one, and what it sends.

Shape letters: B batch, L length, A accesses of a token, N slots, V value dim, H
heads, k slots a head keeps, t selected slots. Sizes are the least that all
layouts divide, times a prime.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import lookup
from smft_jax import optim
from smft_jax import product_keys
from smft_jax import ranking
from smft_jax import selection
from smft_jax.compile import hlo
from smft_jax.compile import traffic
from smft_jax.sharded import layout as layout_lib
from smft_jax.sharded import lookup as sharded_lookup
from smft_jax.sharded import ranking as sharded_ranking
from smft_jax.sharded import search as sharded_search
from tests.support import compilation

B, L, V, H, C, k, t = 4 * 3, 7, 8 * 3, 4, 5, 2, 11
A = H * k
n = 8 * 3
N = n * n

AUTO, EXPLICIT = jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit
LAYOUTS = {
  'rows, keys': ((2, 1, 4), AUTO, 'rows', 'subkeys'),
  'rows, heads': ((2, 2, 2), EXPLICIT, 'rows', 'heads'),
  'dims, keys': ((2, 1, 4), EXPLICIT, 'dims', 'subkeys'),
  'dims, heads': ((2, 2, 2), AUTO, 'dims', 'heads'),
}


@pytest.fixture(autouse=True)
def quickly(request):
  """But for tests of what the compiler makes."""
  with compilation.quick('sends' not in request.node.name):
    yield


@pytest.fixture(params=LAYOUTS)
def layout(request):
  return make_layout(request.param)


def make_layout(name):
  sizes, axis_type, split, subkeys = LAYOUTS[name]
  mesh = layout_lib.make_mesh(*sizes, axis_type=axis_type)
  return layout_lib.make_layout(mesh, split, subkeys)


def put(layout, spec, array):
  return jax.device_put(array, layout.sharding(spec))


def reads(seed=0, num_slots=N, dtype=jnp.float32):
  """Values, slot ids, weights, gradient of what is read."""
  keys = jax.random.split(jax.random.key(seed), 4)
  return (
    jax.random.normal(keys[0], (num_slots, V), dtype),
    jax.random.randint(keys[1], (B, L, A), 0, num_slots),
    jax.random.uniform(keys[2], (B, L, A)),
    jax.random.normal(keys[3], (B, L, V), dtype),
  )


def placed_reads(layout, **changes):
  values, slot_ids, weights, gradient = reads(**changes)
  batch = layout.batch(slot_ids.shape)
  read = layout.batch(slot_ids.shape[:-1], layout.dim_axes)
  return (
    put(layout, layout.values_NxV, values),
    put(layout, batch, slot_ids),
    put(layout, batch, weights),
    put(layout, read, gradient),
  )


def close(got, want):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=2e-6),
    got,
    want,
  )


def found(search, *arrays):
  """Slot ids, scores, and gradients of queries and sub-keys."""

  @jax.jit
  def both(queries, subkeys, gradient):
    scores, pull_back, slot_ids = jax.vjp(
      lambda q, s: search(q, s, k)[::-1], queries, subkeys, has_aux=True
    )
    return slot_ids, scores, *pull_back(gradient)

  return both(*arrays)


@functools.cache
def searched():
  """Queries, sub-keys, gradient of scores, and what is found."""
  keys = jax.random.split(jax.random.key(1), 3)
  arrays = (
    jax.random.normal(keys[0], (B, L, H, 2 * C)),
    jax.random.normal(keys[1], (H, 2, n, C)),
    jax.random.normal(keys[2], (B, L, H, k)),
  )
  return arrays, found(product_keys.product_key_topk, *arrays)


def test_search(layout):
  (queries, subkeys, gradient), want = searched()
  got = found(
    functools.partial(sharded_search.product_key_topk, layout),
    put(layout, layout.batch(queries.shape), queries),
    put(layout, layout.subkeys_Hx2xnxC, subkeys),
    put(layout, layout.batch(gradient.shape), gradient),
  )
  np.testing.assert_array_equal(got[0], want[0])
  close(got[1:], want[1:])
  spec = layout.sharding(layout.subkeys_Hx2xnxC)
  assert got[3].sharding.is_equivalent_to(spec, 4)


def read(read_rows, *arrays):
  """What is read, and gradients of values and weights."""

  @jax.jit
  def both(values, slot_ids, weights, gradient):
    read_BxLxV, pull_back = jax.vjp(
      lambda v, w: read_rows(v, slot_ids, w), values, weights
    )
    return read_BxLxV, *pull_back(gradient)

  return both(*arrays)


@functools.cache
def whole_read():
  return read(lookup.read_rows, *reads())


def test_read_and_gradients(layout):
  got = read(
    functools.partial(sharded_lookup.read_rows, layout), *placed_reads(layout)
  )
  close(got, whole_read())
  spec = layout.sharding(layout.values_NxV)
  assert got[1].sharding.is_equivalent_to(spec, 2)


def test_bfloat16_rows_are_added_up_in_float32():
  layout = make_layout('rows, keys')
  # Three of four devices read 257 ones each. As a bfloat16 that is 256, and the
  # sum would be 768; the one nearest to the true sum is 772.
  slot_ids = jnp.tile(jnp.array([0, 2, 4]), (1, 257))
  got = jax.jit(functools.partial(sharded_lookup.read_rows, layout))(
    jnp.ones((8, V), jnp.bfloat16), slot_ids, jnp.ones((1, 771))
  )
  assert got.dtype == jnp.bfloat16
  np.testing.assert_array_equal(got.astype(jnp.float32), np.full((1, V), 772))


def test_row_gradient(layout):
  _, slot_ids, weights, gradient = reads()
  slots = jnp.array([5, N, int(slot_ids[0, 0, 0]), int(slot_ids[3, 2, 1]), N])
  want = lookup.row_gradient(gradient, slot_ids, weights, slots)
  assert np.any(want)
  got = jax.jit(functools.partial(sharded_lookup.row_gradient, layout))(
    placed_reads(layout)[3], *placed_reads(layout)[1:3], slots
  )
  close(got, want)


def test_counts(layout):
  _, slot_ids, _, _ = reads()
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
  layout = make_layout('rows, keys')
  slot_ids = reads()[1][:3]
  got = jax.jit(
    functools.partial(sharded_ranking.count_accesses, layout),
    static_argnums=1,
  )(slot_ids, N)
  np.testing.assert_array_equal(got, ranking.count_accesses(slot_ids, N))
  assert layout.batch_axes(slot_ids.shape) == ()
  assert layout.batch_axes((4, 3)) == ('data',)


def test_meshes_that_cannot_be():
  with pytest.raises(ValueError, match='memory must be at least 1'):
    layout_lib.make_mesh(memory=0)
  with pytest.raises(ValueError, match='takes 3 devices, which does not divi'):
    layout_lib.make_mesh(data=3)
  assert layout_lib.make_mesh(data=2).devices.shape == (2, 1, 1)


@pytest.mark.parametrize('size', [t, N])
def test_top_slots(layout, size):
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
    got = top(put(layout, layout.slots_N, scores), size)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == jnp.int32


RANKINGS = ranking.RANKINGS | {
  'random': lambda counts, *_: ranking.random_scores(jax.random.key(5), counts)
}


# The ranking, the layout, t, and whether only accessed slots are listed, as in
# a large table, if the ranking allows.
SELECTIONS = [
  *(('tf_idf', name, t, True) for name in LAYOUTS),
  *((name, 'rows, keys', t, True) for name in ('kl', 'random', 'all_accessed')),
  # Most slots that are accessed, and no other; more than a device has.
  *(('tf_idf', 'rows, keys', 400, listed) for listed in (True, False)),
  *(('all_accessed', name, t, False) for name in ('rows, keys', 'dims, keys')),
]


@pytest.mark.parametrize(('name', 'layout_name', 'size', 'listed'), SELECTIONS)
def test_selection_has_the_same_bits(
  name, layout_name, size, listed, monkeypatch
):
  layout = make_layout(layout_name)
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
      pointwise=name in selection.POINTWISE,
    )

  got = select(slot_ids, frequency, mask, jnp.float32(7))
  np.testing.assert_array_equal(got[0], want[0])
  assert got[1] == want[1]


@pytest.mark.parametrize(
  ('layout_name', 'size'),
  [*((name, t) for name in LAYOUTS), ('rows, keys', 300)],
)
def test_update_is_in_place_and_changes_selected_rows_only(layout_name, size):
  layout = make_layout(layout_name)
  table = jax.random.normal(jax.random.key(0), (N, V))
  slots = jax.random.permutation(jax.random.key(1), N)[:size]
  slots = slots.at[2].set(N)
  gradients = jax.random.normal(jax.random.key(2), (size, V))
  adam = optax.scale_by_adam()
  update = functools.partial(optim.update_rows, adam)
  with jax.numpy_dtype_promotion('standard'):
    want = jax.jit(update)(adam.init(table), table, slots, gradients)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(table, opt_state, slots, gradients):
      return sharded_lookup.update_rows(
        layout, update, opt_state, table, slots, gradients, {}
      )

    placed = put(layout, layout.values_NxV, table)
    state = adam.init(placed)
    old = np.array(table)
    before = jax.tree.map(lambda x: x.sharding, (placed, state))
    program = step.lower(placed, state, slots, gradients).compile()
    got = step(placed, state, slots, gradients)
  close(got, want)
  still = np.setdiff1d(np.arange(N), slots)
  np.testing.assert_array_equal(np.asarray(got[0])[still], old[still])
  after = jax.tree.map(lambda x: x.sharding, got)
  assert placed.is_deleted()
  for was, now, leaf in zip(
    *map(jax.tree.leaves, (before, after, got)), strict=True
  ):
    if leaf.ndim:
      assert now.is_equivalent_to(was, leaf.ndim)
  assert traffic.collectives(hlo.parse(program.as_text()), 8) == []


def programs(layout, n):
  """Each function and the shapes it takes, with n sub-keys in a half."""

  def shape(spec, *dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype, sharding=layout.sharding(spec))

  lead = layout.batch((B, L))
  queries = shape(lead, B, L, H, 2 * C)
  subkeys = shape(layout.subkeys_Hx2xnxC, H, 2, n, C)
  values = shape(layout.values_NxV, n * n, V)
  slot_ids = shape(lead, B, L, A, dtype=jnp.int32)
  weights = shape(lead, B, L, A)
  gradient = shape(layout.batch((B, L), layout.dim_axes), B, L, V)
  scores = shape(layout.slots_N, n * n)
  slots = jax.ShapeDtypeStruct((t,), jnp.int32)

  def search(queries, subkeys):
    return sharded_search.product_key_topk(layout, queries, subkeys, k)

  def search_gradients(queries, subkeys):
    _, pull_back = jax.vjp(lambda *x: search(*x)[1], queries, subkeys)
    return pull_back(jnp.ones((B, L, H, k)))

  def weights_gradient(values, slot_ids, weights, gradient):
    return jax.vjp(
      lambda w: sharded_lookup.read_rows(layout, values, slot_ids, w), weights
    )[1](gradient)

  def select(slot_ids, frequency):
    score = functools.partial(ranking.tf_idf, num_documents=7)
    return sharded_ranking.select_slots(
      layout, score, slot_ids, frequency, t, pointwise=True
    )

  return {
    'search': (search, queries, subkeys),
    'search, gradients': (search_gradients, queries, subkeys),
    'read': (
      functools.partial(sharded_lookup.read_rows, layout),
      *(values, slot_ids, weights),
    ),
    'read, gradient': (weights_gradient, values, slot_ids, weights, gradient),
    'row gradient': (
      functools.partial(sharded_lookup.row_gradient, layout),
      *(gradient, slot_ids, weights, slots),
    ),
    'counts': (
      lambda ids: sharded_ranking.count_accesses(layout, ids, n * n),
      slot_ids,
    ),
    'top': (lambda s: sharded_ranking.top_slots(layout, s, t), scores),
    'select': (select, slot_ids, scores),
  }


# For 2 replicas, and what is found in 4 shards; R = 2 halves x H x B/2 x L.
KEYS = ['all-gather f32[336,8]', 'all-gather s32[336,8]']
SENT = {
  'rows, keys': {
    'search': KEYS,
    'search, gradients': [
      *KEYS,
      'all-reduce f32[4,2,22,5]',  # of sub-keys, where those train
      'all-reduce f32[42,4,2,5]',
    ],
    'read': ['all-reduce f32[42,24]'],  # tokens x V
    'read, gradient': ['all-reduce f32[6,7,8]'],  # tokens x A
    'row gradient': ['all-reduce f32[11,24]'],  # t x V
    'counts': ['all-reduce f32[1936]'],  # N / 4
    'top': ['all-gather f32[44]', 'all-gather s32[44]'],  # 4 t
    'select': [
      *('all-gather f32[44]', 'all-gather s32[12,7,8]', 'all-gather s32[44]'),
      *('all-reduce f32[]', 'all-reduce s32[]'),  # accesses, accessed slots
    ],
  },
  'dims, keys': {
    'search': KEYS,
    'read': [],
    'read, gradient': ['all-reduce f32[6,7,8]'],
    'row gradient': ['all-reduce f32[11,6]'],
    'top': [],
    'select': ['all-gather s32[12,7,8]'],
  },
  'rows, heads': {
    'search': ['all-gather f32[21,4,2]', 'all-gather s32[21,4,2]'],
    'search, gradients': [
      *('all-gather f32[21,4,2,5]', 'all-gather s32[21,4,2]'),
      'all-reduce f32[2,2,88,5]',
    ],
  },
}
# What does not grow with the table.
FIXED = ('search', 'read', 'read, gradient', 'row gradient', 'top', 'select')


def arrays_sent(function, *shapes):
  text = jax.jit(function).lower(*shapes).compile().as_text()
  return sorted(map(str, traffic.collectives(hlo.parse(text), 8)))


@pytest.mark.parametrize('name', SENT)
def test_sends_what_is_expected_and_no_table(name):
  layout = make_layout(name)
  found = {
    n: {
      what: arrays_sent(function, *shapes)
      for what, (function, *shapes) in programs(layout, n).items()
      if what in SENT[name] and (n == 88 or what in FIXED)
    }
    # So few slots of a device that all are scored, and so many that only those
    # accessed are.
    for n in ((56, 88, 112) if name == 'rows, keys' else (88,))
  }
  assert found[88] == SENT[name]
  for what in FIXED:
    for sent in found.values():
      assert sent.get(what) == SENT[name].get(what)
