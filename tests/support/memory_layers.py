"""Small memory layers, and the float64 definition that they should equal."""

import functools
import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import memory

# N = 49 slots of 7 sub-keys per half. All sizes differ, so that no axis can be
# mistaken for another.
SIZES = {
  'model_dim': 11,
  'num_slots': 49,
  'value_dim': 5,
  'num_heads': 3,
  'k': 2,
  'key_dim': 6,
}


def make_layer(seed=0, own_values=True, **changes):
  """Makes a layer of random numbers; initial scales of 1 would hide bugs."""
  config = memory.MemoryConfig(**(SIZES | changes))
  graphdef, shapes = nnx.split(
    nnx.eval_shape(
      lambda: memory.ProductKeyMemory(
        config, rngs=nnx.Rngs(0), own_values=own_values
      )
    )
  )
  random = np.random.default_rng(seed)

  def fill(shape):
    numbers = random.uniform(0.3, 1.2, shape.shape)
    signs = random.choice([-1.0, 1.0], shape.shape)
    return jnp.asarray(numbers * signs, shape.dtype)

  return nnx.merge(graphdef, jax.tree.map(fill, shapes))


def inputs(*shape, seed=1, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def parameters(layer):
  """The layer's arrays in float64, by name."""
  state = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
  return {name: np.asarray(value, np.float64) for name, value in state.items()}


def unit(x):
  return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + 1e-6)


def reference(p, x, k):
  """PAPER section 2 for one token x [D], scoring all N slots.

  Returns the output [D], slot ids [H, k] and weights [H, k], best first.
  """
  heads, _, _, half = p['subkeys'].shape
  read = np.zeros(p['values'].shape[1])
  all_ids, all_weights = [], []
  for head in range(heads):
    query = (p['query'][:, head].T @ x).reshape(2, half)
    subkeys = p['subkeys'][head]
    if 'query_scale' in p:
      query = unit(query) * p['query_scale'][head]
      subkeys = unit(subkeys) / math.sqrt(half)
    first, second = subkeys[0] @ query[0], subkeys[1] @ query[1]
    scores = np.add.outer(first, second).ravel()
    ids = np.argsort(-scores)[:k]
    weights = np.exp(scores[ids]) / np.sum(np.exp(scores[ids]))
    read += weights @ p['values'][ids]
    all_ids.append(ids)
    all_weights.append(weights)
  gate = x @ p['gate']
  out = (read * gate / (1 + np.exp(-gate))) @ p['out']
  return out, np.array(all_ids), np.array(all_weights)


def capture_all(layer, *args):
  """Output, slot ids and weights of one call."""
  y, ids, weights = nnx.capture(layer, memory.SlotIds, memory.SlotWeights)(
    *args
  )
  return y, ids['slot_ids'][0], weights['slot_weights'][0]


@functools.partial(jax.jit, static_argnums=0)
def forward(graphdef, params, *args):
  return capture_all(nnx.merge(graphdef, params, copy=True), *args)


def jitted(layer, *args):
  return forward(*nnx.split(layer), *args)
