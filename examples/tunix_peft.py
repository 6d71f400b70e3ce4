"""Tunix: a memory layer and its optimizer in an unmodified `PeftTrainer`.

The trainer accumulates gradients and passes nothing else to its optimizer, so a
count carrier next to the table brings it the access counts.

pip install -e ".[tunix]" && python examples/tunix_peft.py
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

try:
  from tunix.sft import peft_trainer
except ModuleNotFoundError as error:
  raise SystemExit(f'{error}: pip install -e ".[tunix]"') from None

TOKENS, DIM, T = 64, 16, 50
CONFIG = memory.MemoryConfig(
  model_dim=DIM,
  num_slots=32**2,
  value_dim=DIM,
  num_heads=2,
  k=8,
  key_dim=DIM,
  count_carrier=True,
)


class Model(nnx.Module):
  """Predicts the next token from an embedding and the memory."""

  def __init__(self, rngs):
    self.embedding = nnx.Embed(TOKENS, DIM, rngs=rngs)
    self.memory = memory.ProductKeyMemory(CONFIG, rngs=rngs)
    self.head = nnx.Linear(DIM, TOKENS, rngs=rngs)

  def __call__(self, tokens):
    """Logits [B, L, TOKENS] for tokens [B, L]."""
    x = self.embedding(tokens)
    return self.head(x + self.memory(x))


def loss_fn(model, input_tokens, input_mask):
  """Computes the cross-entropy of next tokens where the mask is True."""
  losses = optax.softmax_cross_entropy_with_integer_labels(
    model(input_tokens[:, :-1]), input_tokens[:, 1:]
  )
  return jnp.mean(losses, where=input_mask[:, 1:])


def main(steps=100, accumulated=2):
  """Learns the followers of eight tokens."""
  model = Model(nnx.Rngs(0))
  slot_ids, _ = model.memory.search(model.embedding(jnp.arange(TOKENS)))
  # The followers of the first eight tokens are new; others are known.
  background = ranking.document_frequency(slot_ids[8:], CONFIG.num_slots)
  tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    optim.sparse_memory_finetuning(
      optax.adamw(0.3, weight_decay=0.1),
      T,
      document_frequency=background,
      num_documents=TOKENS - 8,
    ),
  )
  config = peft_trainer.TrainingConfig(
    eval_every_n_steps=steps,
    max_steps=steps,
    gradient_accumulation_steps=accumulated,
  )
  trainer = peft_trainer.PeftTrainer(model, tx, config)
  trainer = trainer.with_loss_fn(loss_fn).with_gen_model_input_fn(
    lambda x: {'input_tokens': x.input_tokens, 'input_mask': x.input_mask}
  )
  pairs = np.stack([np.arange(8), np.arange(27, 19, -1)], axis=1)
  mask = np.ones(pairs.shape, bool)
  lessons = peft_trainer.TrainingInput(input_tokens=pairs, input_mask=mask)
  parts = accumulated or 1
  micro_batches = [
    jax.tree.map(lambda x, i=i: x[i::parts], lessons) for i in range(parts)
  ]
  before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))
  losses = [loss_fn(model, pairs, mask)]
  trainer.train(micro_batches * steps)
  losses.append(loss_fn(model, pairs, mask))
  after = nnx.to_pure_dict(nnx.state(model))
  counts = ranking.count_accesses(slot_ids[:8], CONFIG.num_slots)
  scores = ranking.tf_idf(counts, background, TOKENS - 8)
  claim.check(before, after, ranking.top_slots(scores, T), losses)


if __name__ == '__main__':
  main()
