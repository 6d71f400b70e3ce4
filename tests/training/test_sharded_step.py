"""Steps on meshes against the same steps on one device."""

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import memory
from smft_jax import selection
from smft_jax.compile import hlo
from smft_jax.compile import traffic
from smft_jax.training import count
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import compilation
from tests.support import decoders
from tests.support import meshes
from tests.support import steps

B, L, T, STEPS = 8, 7, 11, 3


@pytest.fixture(autouse=True)
def quickly(request):
  """But for the test of what the compiler makes."""
  with compilation.quick('sends' not in request.node.name):
    yield


def make_model(layout, num_slots=meshes.MEMORY.num_slots):
  """Two layers that read the table, so that a search is differentiated."""
  return decoders.make_model(
    num_layers=2,
    memory=dataclasses.replace(
      meshes.MEMORY, num_slots=num_slots, layout=layout
    ),
    memory_layers=(0, 1),
  )


def make_state(layout, update, num_slots=meshes.MEMORY.num_slots):
  frequency = np.random.default_rng(5).integers(0, 8, num_slots)
  return steps.init(
    make_model(layout, num_slots),
    steps.make_method(update, t=T, optimizer='momentum'),
    method_lib.Background(
      jnp.asarray(frequency.astype(np.float32)), jnp.float32(7)
    ),
  )


def make_batch(seed):
  return steps.make_batch((B, L), (7, 4, 5, 7, 1, 6, 7, 3), seed)


def shardings(state):
  return jax.tree.map(lambda x: x.sharding, (state.params, state.opt_state))


def run(layout, update='rows'):
  """Losses, rows changed by each step, and the last table."""
  state, losses, changed = make_state(layout, update), [], []
  for step in range(STEPS):
    placed = shardings(state)
    old = np.asarray(jnp.copy(state_lib.value_table(state.params)))
    before = state
    state, metrics = step_lib.train_step(before, make_batch(step))
    assert state_lib.value_table(before.params).is_deleted()
    for was, now, leaf in zip(
      *map(jax.tree.leaves, (placed, shardings(state), state.params)),
      strict=False,
    ):
      assert now.is_equivalent_to(was, leaf.ndim)
    new = np.asarray(jnp.copy(state_lib.value_table(state.params)))
    losses.append(float(metrics['loss']))
    changed.append(np.flatnonzero((old != new).any(axis=1)))
    assert int(metrics['slots_updated']) == T < int(metrics['slots_accessed'])
  return losses, changed, new


@functools.cache
def on_one_device(update):
  return run(None, update)


# The layout, the form of the step, and whether it lists the accessed slots.
# One device, and all along the memory axis, are cases of replicas that are one.
CASES = [
  *(
    pytest.param(name, 'rows', True, marks=pytest.mark.slow)
    if name in ('one device', 'rows')
    else (name, 'rows', True)
    for name in meshes.LAYOUTS
  ),
  ('rows, replicas', 'rows', False),
  ('rows, replicas', 'dense', False),
]


@pytest.mark.parametrize(('name', 'update', 'listed'), CASES)
def test_meshes_take_the_step_of_one_device(name, update, listed, monkeypatch):
  want = on_one_device(update)
  assert len(set(np.concatenate(want[1]))) > T
  if listed:
    monkeypatch.setattr(selection, '_SLOTS_PER_LISTED_ACCESS', 0)
  step_lib.train_step.clear_cache()  # programs do not know of the patch
  layout = meshes.make_layout(name)
  got = run(layout, update)
  np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
  for ours, theirs in zip(got[1], want[1], strict=True):
    np.testing.assert_array_equal(ours, theirs)
  np.testing.assert_allclose(got[2], want[2], rtol=2e-6, atol=2e-6)


def test_states_lie_as_the_layout_says():
  layout = meshes.make_layout('rows, replicas')
  state = make_state(layout, 'rows')
  block = state.params['blocks'][0]
  for array, spec in (
    (state_lib.value_table(state.params), ('memory', None)),
    (jax.tree.leaves(state.opt_state)[0], ('memory', None)),
    (block['memory']['subkeys'][...], ('memory', None, None, None)),
    (block['memory']['query'][...], ('fsdp', None, None)),
    (state.params['final_norm']['scale'][...], ('fsdp',)),
    (state.background.document_frequency, ('memory',)),
    (state.step, ()),
  ):
    expected = layout.sharding(jax.sharding.PartitionSpec(*spec))
    assert array.sharding.is_equivalent_to(expected, array.ndim)
  # 23 tokens, which two devices do not share, of 14 numbers, which they do.
  spec = layout.dense(state.params['embedding'][...].shape)
  assert tuple(spec) == (None, 'fsdp')


@pytest.mark.parametrize('document', ['sequence', 'batch'])
def test_background_counts_the_same(document):
  found = []
  for layout in (None, meshes.make_layout('rows, replicas')):
    graphdef, params = nnx.split(make_model(layout))
    if layout is not None:
      params = jax.device_put(params, memory.shardings_of(params, layout))
    found.append(
      count.background(
        graphdef,
        params,
        map(make_batch, range(2)),
        document=document,
      )
    )
  assert np.any(found[0].document_frequency)
  jax.tree.map(np.testing.assert_array_equal, *found)


# Where no dense weights are split; the two layers share a table.
SENT = {
  'rows': [
    # Searches: the 3 best half scores of all 8 devices, R = 2 x H x B x L.
    *2 * ['all-gather f32[224,24]', 'all-gather s32[224,24]'],
    # Ranking: the best T of all devices, the sums of counts.
    *('all-gather f32[88]', 'all-gather s32[88]'),
    *('all-reduce f32[]', 'all-reduce s32[]'),
    # Reads, [B L, V], and what the upper one tells the lower by its search.
    *2 * ['all-reduce f32[56,24]'],
    *('all-reduce f32[8,7,6]', 'all-reduce f32[56,2,2,3]'),
  ],
  'dims, replicas': [
    *2 * ['all-gather f32[112,12]', 'all-gather s32[112,12]'],
    # Ranking: what the replicas read, [B, L, A] of both layers.
    'all-gather s32[8,7,12]',
    # What was read, after the output projection, and gradients of it.
    *3 * ['all-reduce f32[4,7,14]'],
    *('all-reduce f32[4,7,6]', 'all-reduce f32[28,2,2,3]'),
    # Row gradients of the two layers; loss, loss weights and tokens.
    *2 * ['all-reduce f32[11,6]'],
    *('all-reduce f32[]', 'all-reduce f32[]', 'all-reduce s32[]'),
    # Whether row gradients are finite, of which each device holds some dims.
    'all-reduce pred[]',
  ],
}


@pytest.mark.parametrize(
  'name', [*SENT, pytest.param('rows, replicas', marks=pytest.mark.slow)]
)
def test_step_sends_nothing_that_grows_with_the_table(name):
  layout = meshes.make_layout(name)
  # So many slots that accessed ones are listed, and that a part of the table
  # would show among what is sent and among the temporaries.
  state = make_state(layout, 'rows', (8 * 32) ** 2)
  program = step_lib.train_step.lower(state, make_batch(0)).compile()
  table = state_lib.value_table(state.params)
  shard = table.addressable_shards[0].data.nbytes
  taken = program.memory_analysis()
  assert taken.alias_size_in_bytes >= 2 * shard  # with its momentum
  assert taken.temp_size_in_bytes < shard / 4
  sent = traffic.collectives(hlo.parse(program.as_text()), layout.mesh.size)
  if name in SENT:
    assert sorted(map(str, sent)) == sorted(SENT[name])
  else:  # not a byte of a slot, of which a replica holds 48
    assert max(each.num_bytes for each in sent) < shard / 100
