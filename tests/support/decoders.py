"""Small decoders, with and without memory."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import memory
from smft_jax.models import decoding
from smft_jax.models import layers
from smft_jax.models import transformer

MEMORY = memory.MemoryConfig(
  model_dim=14, num_slots=49, value_dim=5, num_heads=3, k=2, key_dim=6
)


SIZES = {
  'vocab_size': 23,
  'num_layers': 2,
  'model_dim': 14,
  'num_heads': 6,
  'num_kv_heads': 2,
  'head_dim': 4,
  'ffn_dim': 19,
}


WITH_MEMORY = {'memory': MEMORY, 'memory_layers': (1,)}


def make_model(seed=0, **changes):
  """A model of random numbers: fresh scales are ones and biases are zeros."""
  config = layers.TransformerConfig(**(SIZES | changes))
  graphdef, shapes = nnx.split(
    nnx.eval_shape(lambda: transformer.Transformer(config, rngs=nnx.Rngs(0)))
  )
  random = np.random.default_rng(seed)

  def fill(shape):
    numbers = random.uniform(0.1, 0.6, shape.shape)
    signs = random.choice([-1.0, 1.0], shape.shape)
    return jnp.asarray(numbers * signs, shape.dtype)

  return nnx.merge(graphdef, jax.tree.map(fill, shapes))


@functools.partial(jax.jit, static_argnums=0)
def _logits(graphdef, params, tokens, mask):
  return nnx.merge(graphdef, params)(tokens, mask)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _decode(graphdef, params, tokens, mask, count, end_ids):
  model = nnx.merge(graphdef, params)
  return decoding.greedy_decode(model, tokens, mask, count, end_ids)


def logits_of(model, tokens, mask=None):
  return _logits(*nnx.split(model), tokens, mask)


def decode(model, tokens, mask, count, *end_ids):
  ends = jnp.array(end_ids, jnp.int32)
  return _decode(*nnx.split(model), tokens, mask, count, ends)


def tokens_of(*shape, seed=1):
  random = np.random.default_rng(seed)
  return jnp.asarray(random.integers(0, SIZES['vocab_size'], shape), jnp.int32)


def reference(model, tokens):
  """Logits [L, T] of one unpadded row, in float64, head by head."""
  config = model.config
  p = jax.tree.map(
    lambda leaf: np.asarray(leaf, np.float64),
    nnx.to_pure_dict(nnx.state(model, nnx.Param)),
  )

  def norm(x, scale):
    rms = np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + 1e-6)
    return x / rms * scale

  def silu(x):
    return x / (1 + np.exp(-x))

  def turn(x):  # [L, K]; pairs of coordinates as complex numbers
    half = config.head_dim // 2
    rate = config.rope_theta ** (-2 * np.arange(half) / config.head_dim)
    angle = np.arange(len(x))[:, None] * rate
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], axis=-1)

  def project(layer, name, x, head):
    out = x @ layer[name]['weight'][:, head]
    if config.qkv_bias:
      out = out + layer[f'{name}_bias'][head]
    return out

  length = len(tokens)
  x = p['embedding'][np.asarray(tokens)]
  for i in range(config.num_layers):
    block = p['blocks'][i]
    attention = block['attention']
    normed = norm(x, block['attention_norm']['scale'])
    mixed = 0.0
    for head in range(config.num_heads):
      group = head // (config.num_heads // config.num_kv_heads)
      query = project(attention, 'query', normed, head)
      key = project(attention, 'key', normed, group)
      value = project(attention, 'value', normed, group)
      if config.qk_norm:
        query = norm(query, attention['query_norm']['scale'])
        key = norm(key, attention['key_norm']['scale'])
      scores = turn(query) @ turn(key).T / np.sqrt(config.head_dim)
      scores[np.triu_indices(length, 1)] = -np.inf
      scores = np.exp(scores - scores.max(-1, keepdims=True))
      scores /= scores.sum(-1, keepdims=True)
      mixed = mixed + scores @ value @ attention['out']['weight'][head]
    x = x + mixed
    mlp = {name: block['mlp'][name]['weight'] for name in block['mlp']}
    normed = norm(x, block['mlp_norm']['scale'])
    x = x + (silu(normed @ mlp['gate']) * (normed @ mlp['up'])) @ mlp['down']
  table = p['embedding'] if config.tie_embeddings else p['unembedding']
  return norm(x, p['final_norm']['scale']) @ table.T
