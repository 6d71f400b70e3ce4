"""Flax Linen: a memory module of pure functions, in an unmodified TrainState.

`TrainState.apply_gradients` passes only gradients to its optimizer, so a count
carrier next to the table brings it the access counts.

python examples/linen.py
"""

import claim
from flax import linen as nn
from flax.training import train_state
import jax
import jax.numpy as jnp
import optax

from smft_jax import counting
from smft_jax import lookup
from smft_jax import optim
from smft_jax import product_keys
from smft_jax import ranking

TOKENS, DIM, SUBKEYS, HEADS, K, T = 64, 16, 32, 2, 8, 50
SLOTS = SUBKEYS**2


class Memory(nn.Module):
  """A product-key memory, [B, DIM] -> [B, DIM]."""

  @nn.compact
  def __call__(self, x):
    """Reads the table for x [B, DIM]."""
    normal = nn.initializers.normal(DIM**-0.5)
    keys = self.param('subkeys', normal, (HEADS, 2, SUBKEYS, DIM // 2))
    values = self.param('values', normal, (SLOTS, DIM))
    carrier = self.param(
      'access_counts', lambda _: counting.make_carrier(SLOTS)
    )
    queries = nn.DenseGeneral((HEADS, DIM), name='query')(x)
    slot_ids, scores = product_keys.product_key_topk(queries, keys, K)
    slot_ids = slot_ids.reshape(len(x), HEADS * K)
    weights = nn.softmax(scores).reshape(len(x), HEADS * K)
    self.sow('intermediates', 'slot_ids', slot_ids)
    reads = lookup.read_rows(values, slot_ids, weights)
    return counting.count_carrier(carrier, slot_ids, reads)


class Model(nn.Module):
  """Predicts the next token from an embedding and the memory."""

  @nn.compact
  def __call__(self, tokens):
    """Logits [B, TOKENS] for tokens [B]."""
    x = nn.Embed(TOKENS, DIM)(tokens)
    return nn.Dense(TOKENS)(x + Memory(name='memory')(x))


def main(steps=100):
  """Learns the followers of eight tokens."""
  model = Model()
  params = model.init(jax.random.key(0), jnp.arange(2))['params']
  tokens = jnp.arange(8)  # their followers are new; those of other tokens known
  followers = tokens[::-1] + 20

  def slots_read(tokens):
    _, sown = model.apply({'params': params}, tokens, mutable='intermediates')
    return sown['intermediates']['memory']['slot_ids'][0]

  known = slots_read(jnp.arange(8, TOKENS))
  background = ranking.document_frequency(known, SLOTS)
  tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    optim.sparse_memory_finetuning(
      optax.adamw(0.1, weight_decay=0.1),
      T,
      document_frequency=background,
      num_documents=len(known),
    ),
  )
  state = train_state.TrainState.create(
    apply_fn=model.apply, params=params, tx=tx
  )

  @jax.jit
  def step(state):
    def loss_fn(params):
      logits = state.apply_fn({'params': params}, tokens)
      return optax.softmax_cross_entropy_with_integer_labels(
        logits, followers
      ).mean()

    loss, gradients = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=gradients), loss

  losses = []
  for _ in range(steps):
    state, loss = step(state)
    losses.append(float(loss))
  counts = ranking.count_accesses(slots_read(tokens), SLOTS)
  scores = ranking.tf_idf(counts, background, len(known))
  claim.check(params, state.params, ranking.top_slots(scores, T), losses)


if __name__ == '__main__':
  main()
