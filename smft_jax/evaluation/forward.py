"""What `evaluate` computes of a batch, compiled once for each shape.

Shapes: B batch, L length.
"""

from __future__ import annotations

import functools

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import memory
from smft_jax.models import decoding
from smft_jax.sharded import layout as layout_lib


@functools.partial(jax.jit, static_argnums=0)
def read(graphdef, params, tokens, mask):
  """Returns the cache of tokens [1, L]."""
  model = nnx.merge(graphdef, params)
  return model.extend(tokens, mask, model.init_cache(*tokens.shape))[1]


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def decode(
  graphdef, params, tokens, mask, max_new_tokens, end_ids, overlay, lines, past
):
  """Returns the tokens that follow each row, `decoding.greedy_decode`."""
  model = nnx.merge(graphdef, params)
  decoded = decoding.greedy_decode(
    model, tokens, mask, max_new_tokens, end_ids, overlay, lines, past
  )
  return layout_lib.constrain_replicated(memory.layout_of(model), decoded)


@functools.partial(jax.jit, static_argnums=0)
def nll_sums(graphdef, params, batch, past):
  """Returns the weighted sum of negative log-likelihoods, and of weights."""
  model = nnx.merge(graphdef, params)
  if batch.counted is None:
    nats = _weighted_nats(model, batch, past)
  else:
    hidden = _hidden(model, batch, past)
    hidden = hidden.reshape(-1, hidden.shape[-1])
    counted = batch.counted
    hidden = hidden[jnp.maximum(counted - 1, 0)]
    nats = model.nll(hidden, batch.tokens.reshape(-1)[counted])
    nats *= batch.loss_weights.reshape(-1)[counted]
  return jnp.sum(nats), jnp.sum(batch.loss_weights)


@functools.partial(jax.jit, static_argnums=0)
def row_nats(graphdef, params, batch, past):
  """Returns the weighted sum of each row."""
  model = nnx.merge(graphdef, params)
  sums = jnp.sum(_weighted_nats(model, batch, past), axis=1)
  return layout_lib.constrain_replicated(memory.layout_of(model), sums)


@functools.partial(jax.jit, static_argnums=0)
def likeliest(graphdef, params, batch):
  """Returns the likeliest token at each place, given those before it."""
  model = nnx.merge(graphdef, params)
  logits = model.logits(_hidden(model, batch, None)[:, :-1])
  tokens = jnp.pad(jnp.argmax(logits, axis=-1), ((0, 0), (1, 0)))
  return layout_lib.constrain_replicated(memory.layout_of(model), tokens)


def _hidden(model, batch, past):
  """Returns what `model.logits` projects, [B, L, D]."""
  if past is None:
    return model.final_hidden(batch.tokens, batch.mask)
  cache = past.repeated(*batch.tokens.shape)
  return model.extend(batch.tokens, batch.mask, cache)[0]


def _weighted_nats(model, batch, past):
  """Computes weighted negative log-likelihoods, [B, L]."""
  hidden = _hidden(model, batch, past)[:, :-1]
  nll = model.nll(hidden, batch.tokens[:, 1:])
  return jnp.pad(nll, ((0, 0), (1, 0))) * batch.loss_weights
