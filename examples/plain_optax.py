"""A plain optax loop: `keep_top_slots` last in the chain.

The loop knows the slots read, so it passes the optimizer a score for each slot.

python examples/plain_optax.py
"""

import claim
import jax
import jax.numpy as jnp
import optax

from smft_jax import lookup
from smft_jax import optim
from smft_jax import product_keys
from smft_jax import ranking

TOKENS, DIM, SUBKEYS, HEADS, K, T = 64, 16, 32, 2, 8, 50
SLOTS = SUBKEYS**2


def make_params(key):
  """Makes one memory layer: token -> slots -> values -> next token."""
  shapes = {
    'embedding': (TOKENS, DIM),
    'subkeys': (HEADS, 2, SUBKEYS, DIM // 2),
    'query': (DIM, HEADS, DIM),
    'values': (SLOTS, DIM),
    'head': (DIM, TOKENS),
  }
  keys = jax.random.split(key, len(shapes))
  return {
    name: jax.random.normal(key, shape) * DIM**-0.5
    for key, (name, shape) in zip(keys, shapes.items(), strict=True)
  }


def search(params, tokens):
  """Returns the slots read for tokens [B] and weights, each [B, HEADS * K]."""
  hidden = params['embedding'][tokens]
  queries = jnp.einsum('bd,dhk->bhk', hidden, params['query'])
  slot_ids, scores = product_keys.product_key_topk(
    queries, params['subkeys'], K
  )
  flat = len(tokens), HEADS * K
  return slot_ids.reshape(flat), jax.nn.softmax(scores).reshape(flat)


def main(steps=100):
  """Learns the followers of eight tokens."""
  params = make_params(jax.random.key(0))
  tokens = jnp.arange(8)  # their followers are new; those of other tokens known
  followers = tokens[::-1] + 20
  known, _ = search(params, jnp.arange(8, TOKENS))
  background = ranking.document_frequency(known, SLOTS)
  tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(0.1, weight_decay=0.1),
    optim.keep_top_slots(T),
  )

  def loss_fn(values):
    slot_ids, weights = search(params, tokens)
    logits = lookup.read_rows(values, slot_ids, weights) @ params['head']
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, followers)
    return losses.mean(), slot_ids

  @jax.jit
  def step(values, state):
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, slot_ids), gradient = grad_fn(values)
    counts = ranking.count_accesses(slot_ids, SLOTS)
    scores = ranking.tf_idf(counts, background, len(known))
    updates, state = tx.update(gradient, state, values, slot_scores=scores)
    return optax.apply_updates(values, updates), state, loss, scores

  values, state = params['values'], tx.init(params['values'])
  losses = []
  for _ in range(steps):
    values, state, loss, scores = step(values, state)
    losses.append(float(loss))
  slots = ranking.top_slots(scores, T)
  claim.check(params, params | {'values': values}, slots, losses)


if __name__ == '__main__':
  main()
