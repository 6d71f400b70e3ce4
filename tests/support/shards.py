"""Layouts, sizes and arrays for the tests of sharded functions.

Shape letters: B batch, L length, A accesses of a token, N slots, V value dim, H
heads, k slots a head keeps, t selected slots. Sizes are the least that all
layouts divide, times a prime.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax.compile import hlo
from smft_jax.compile import traffic
from smft_jax.sharded import layout as layout_lib

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


def make_layout(name):
  sizes, axis_type, split, subkeys = LAYOUTS[name]
  mesh = layout_lib.make_mesh(*sizes, axis_type=axis_type)
  return layout_lib.make_layout(mesh, split, subkeys)


def put(layout, spec, array):
  return jax.device_put(array, layout.sharding(spec))


def shape(layout, spec, *dims, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(dims, dtype, sharding=layout.sharding(spec))


@functools.cache
def reads():
  """Values, slot ids, weights, gradient of what is read."""
  keys = jax.random.split(jax.random.key(0), 4)
  return (
    jax.random.normal(keys[0], (N, V)),
    jax.random.randint(keys[1], (B, L, A), 0, N),
    jax.random.uniform(keys[2], (B, L, A)),
    jax.random.normal(keys[3], (B, L, V)),
  )


def assert_close(got, want):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=2e-6),
    got,
    want,
  )


def collectives(compiled):
  """What a compiled program sends, such as 'all-reduce f32[3,5]', sorted."""
  text = compiled.as_text()
  return sorted(map(str, traffic.collectives(hlo.parse(text), 8)))


def sent(programs):
  """What each (function, *shapes) sends, by the names of the programs."""
  return {
    name: collectives(jax.jit(function).lower(*shapes).compile())
    for name, (function, *shapes) in programs.items()
  }
