"""Meshes, and how a layout splits a batch."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import optax
import pytest

from smft_jax import memory
from smft_jax.sharded import layout as layout_lib
from tests.support import meshes
from tests.support import shards


def test_impossible_meshes_are_refused():
  with pytest.raises(ValueError, match='memory must be at least 1'):
    layout_lib.make_mesh(memory=0)
  with pytest.raises(ValueError, match='takes 3 devices, which does not divi'):
    layout_lib.make_mesh(data=3)
  assert layout_lib.make_mesh(data=2).devices.shape == (2, 1, 1)


def test_a_batch_that_replicas_cannot_share_is_whole():
  layout = shards.make_layout('rows, keys')
  assert layout.batch_axes((3, 7)) == ()
  assert layout.batch_axes((4, 3)) == ('data',)


def test_a_mesh_of_other_axes_is_refused():
  mesh = jax.make_mesh((2, 4), ('data', 'model'))
  with pytest.raises(ValueError, match='axes data, model, not fsdp and memory'):
    layout_lib.make_layout(mesh)


def test_a_layer_without_a_layout_says_what_an_explicit_mesh_needs():
  layer = memory.ProductKeyMemory(meshes.MEMORY, rngs=nnx.Rngs(0))
  mesh = jax.make_mesh((8,), ('x',))  # Explicit, its default
  with jax.set_mesh(mesh):
    x = jnp.ones((8, meshes.MEMORY.model_dim))
    whole = layer(x)
    split = jax.device_put(x, jax.NamedSharding(mesh, jax.P('x')))
    with pytest.raises(ValueError, match=r'layout: give MemoryConfig\(layout='):
      layer(split)
  assert whole.shape == x.shape


@pytest.mark.parametrize('name', ['rows', 'dims, replicas'])
def test_trainers_find_the_specs_of_a_memory_and_of_its_moments(name):
  layout = meshes.make_layout(name)
  config = dataclasses.replace(meshes.MEMORY, layout=layout, count_carrier=True)
  layer = memory.ProductKeyMemory(config, rngs=nnx.Rngs(0))
  table, subkeys = layout.values_NxV, layout.subkeys_Hx2xnxC
  specs = nnx.get_partition_spec(nnx.state(layer))
  assert specs['values'].get_value() == table
  assert specs['subkeys'].get_value() == subkeys
  assert specs['access_counts'].get_value() == jax.P(None, *layout.slots_N)
  assert specs['query'].get_value() == jax.P()
  optimizer = nnx.Optimizer(layer, optax.adam(0.1), wrt=memory.MemoryValue)
  moments = nnx.get_partition_spec(nnx.state(optimizer))['opt_state'][0]['mu']
  assert moments['values'].get_value() == table
  # As a trainer with a mesh of these axes places them.
  shardings = nnx.get_named_sharding(nnx.state(layer), layout.mesh)
  placed = jax.device_put(nnx.state(layer), shardings)
  assert placed['values'][...].sharding.spec == table


def test_without_a_layout_a_memory_has_no_spec():
  layer = memory.ProductKeyMemory(meshes.MEMORY, rngs=nnx.Rngs(0))
  assert (
    nnx.get_partition_spec(nnx.state(layer))['values'].get_value() == jax.P()
  )
