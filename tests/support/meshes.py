"""Meshes of the eight devices that tests have."""

from smft_jax import memory
from smft_jax.sharded import layout as layout_lib

# Sizes that 8 and 4 divide, and a prime.
MEMORY = memory.MemoryConfig(
  model_dim=14, num_slots=24**2, value_dim=8 * 3, num_heads=2, k=3, key_dim=6
)


LAYOUTS = {
  'one device': (1, 1, 1, 'rows', 'subkeys'),
  'two devices': (1, 1, 2, 'dims', 'heads'),
  'rows': (1, 1, 8, 'rows', 'subkeys'),
  'rows, replicas': (2, 2, 2, 'rows', 'heads'),
  'dims, replicas': (2, 1, 4, 'dims', 'subkeys'),
}


def make_layout(name):
  *sizes, split, subkeys = LAYOUTS[name]
  return layout_lib.make_layout(layout_lib.make_mesh(*sizes), split, subkeys)
