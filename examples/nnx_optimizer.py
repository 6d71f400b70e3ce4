"""Flax NNX: `nnx.Optimizer` forwards the scores to `keep_top_slots`.

`wrt=MemoryValue` selects the value table; nothing else has a gradient.

python examples/nnx_optimizer.py
"""

import claim
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from smft_jax import memory
from smft_jax import optim
from smft_jax import ranking

TOKENS, DIM, T = 64, 16, 50
CONFIG = memory.MemoryConfig(
  model_dim=DIM, num_slots=32**2, value_dim=DIM, num_heads=2, k=8, key_dim=DIM
)


class Model(nnx.Module):
  """Predicts the next token from an embedding and the memory."""

  def __init__(self, rngs):
    self.embedding = nnx.Embed(TOKENS, DIM, rngs=rngs)
    self.memory = memory.ProductKeyMemory(CONFIG, rngs=rngs)
    self.head = nnx.Linear(DIM, TOKENS, rngs=rngs)

  def __call__(self, tokens):
    """Logits [B, TOKENS] for tokens [B]."""
    x = self.embedding(tokens)
    return self.head(x + self.memory(x))


def run(model, tokens):
  """Returns logits for tokens [B], and the slots they read."""
  logits, sown = nnx.capture(model, memory.SlotIds)(tokens)
  return logits, sown['memory']['slot_ids'][0]


def main(steps=100):
  """Learns the followers of eight tokens."""
  model = Model(nnx.Rngs(0))
  tokens = jnp.arange(8)  # their followers are new; those of other tokens known
  followers = tokens[::-1] + 20
  _, known = run(model, jnp.arange(8, TOKENS))
  background = ranking.document_frequency(known, CONFIG.num_slots)
  tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(0.3, weight_decay=0.1),
    optim.keep_top_slots(T),
  )
  optimizer = nnx.Optimizer(model, tx, wrt=memory.MemoryValue)

  def loss_fn(model):
    logits, slot_ids = run(model, tokens)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, followers)
    return losses.mean(), slot_ids

  @nnx.jit
  def step(model, optimizer):
    table_only = nnx.DiffState(0, memory.MemoryValue)
    grad_fn = nnx.value_and_grad(loss_fn, argnums=table_only, has_aux=True)
    (loss, slot_ids), gradients = grad_fn(model)
    counts = ranking.count_accesses(slot_ids, CONFIG.num_slots)
    scores = ranking.tf_idf(counts, background, len(known))
    slot_scores = jax.tree.map(lambda _: scores, gradients)
    optimizer.update(model, gradients, slot_scores=slot_scores)
    return loss, scores

  before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))
  losses = []
  for _ in range(steps):
    loss, scores = step(model, optimizer)
    losses.append(float(loss))
  after = nnx.to_pure_dict(nnx.state(model))
  claim.check(before, after, ranking.top_slots(scores, T), losses)


if __name__ == '__main__':
  main()
