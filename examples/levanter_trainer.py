"""Levanter: a memory of haliax arrays in an unmodified `Trainer`.

The trainer accumulates gradients, splits the table over devices and passes no
scores to its optimizer, so a count carrier brings it the access counts.

In an environment of its own, as Levanter holds back optax, safetensors and more
that only our own trainer needs newer:

pip install "marin-levanter>=0.2.20.dev0" gitpython
pip install --no-deps -e . && python examples/levanter_trainer.py
"""

import claim
import jax
import numpy as np
import optax

from smft_jax import counting
from smft_jax import lookup
from smft_jax import optim
from smft_jax import product_keys
from smft_jax import ranking

try:
  import equinox as eqx
  import haliax as hax
  from levanter import tracker
  from levanter import trainer
  from levanter.utils import mesh
except ModuleNotFoundError as error:
  raise SystemExit(f'{error}: pip install marin-levanter gitpython') from None

LESSONS, K, T = 16, 8, 50
Vocab, Embed, Value = hax.make_axes(vocab=64, embed=16, value=16)
Heads, Key = hax.make_axes(heads=2, key=16)
Half, Subkeys, HalfKey = hax.make_axes(half=2, subkeys=32, half_key=8)
Digits, Slots = hax.make_axes(digits=counting.DIGITS, slots=Subkeys.size**2)


class Model(eqx.Module):
  """Predicts the next token from an embedding and a product-key memory."""

  # All named: the trainer takes other arrays for parts of a batch.
  embedding: hax.nn.Embedding
  query: hax.nn.Linear
  subkeys: hax.NamedArray
  values: hax.NamedArray
  access_counts: hax.NamedArray
  head: hax.nn.Linear

  def __init__(self, key):
    keys = jax.random.split(key, 5)
    self.embedding = hax.nn.Embedding.init(Vocab, Embed, key=keys[0])
    self.query = hax.nn.Linear.init(Embed, (Heads, Key), key=keys[1])
    self.subkeys = hax.random.normal(keys[2], (Heads, Half, Subkeys, HalfKey))
    self.values = hax.random.normal(keys[3], (Slots, Value))
    carrier = counting.make_carrier(Slots.size)
    self.access_counts = hax.named(carrier, (Digits, Slots))
    self.head = hax.nn.Linear.init(Value, Vocab, key=keys[4])

  def search(self, tokens):
    """Finds the slots that tokens read: ids and weights, [B, heads * K]."""
    queries = self.query(self.embedding(tokens)).rearrange((..., Heads, Key))
    slot_ids, scores = product_keys.product_key_topk(
      queries.array, self.subkeys.array, K
    )
    flat = (len(slot_ids), Heads.size * K)
    return slot_ids.reshape(flat), jax.nn.softmax(scores).reshape(flat)

  def __call__(self, tokens):
    """Logits {batch, vocab} for tokens {batch}."""
    slot_ids, weights = self.search(tokens)
    reads = lookup.read_rows(self.values.array, slot_ids, weights)
    reads = counting.count_carrier(self.access_counts.array, slot_ids, reads)
    x = self.embedding(tokens).rename({'embed': 'value'})
    return self.head(x + hax.named(reads, (*tokens.axes, Value)))


def loss_fn(model, pairs, **_):
  """Computes the cross-entropy of the second token of each pair."""
  logits = model(pairs['position', 0])
  targets = hax.nn.one_hot(pairs['position', 1], Vocab)
  return hax.nn.cross_entropy_loss(logits, Vocab, targets).scalar()


def named(name):
  """Matches the array of a named array, a leaf below its name."""
  return lambda path: counting.named(name)(path[:-1])


def arrays(model):
  """Copies the arrays of a model, without the names of their axes."""
  return hax.tree_util.tree_map(lambda x: np.array(x.array), model)


def main(steps=100, accumulated=2):
  """Learns the followers of sixteen tokens."""
  model = Model(jax.random.key(0))
  slot_ids, _ = model.search(hax.arange(Vocab))
  # The followers of the first tokens are new; others are known.
  background = ranking.document_frequency(slot_ids[LESSONS:], Slots.size)
  counts = ranking.count_accesses(slot_ids[:LESSONS], Slots.size)
  scores = ranking.tf_idf(counts, background, Vocab.size - LESSONS)
  tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    optim.sparse_memory_finetuning(
      optax.adamw(0.3, weight_decay=0.1),
      T,
      document_frequency=background,
      num_documents=Vocab.size - LESSONS,
      is_values=named('values'),
      is_carrier=named('access_counts'),
    ),
  )
  config = trainer.TrainerConfig(
    id='memory',
    tracker=tracker.NoopConfig(),
    mesh=mesh.MeshConfig(param_mapping={'slots': 'data'}),
    train_batch_size=LESSONS,
    per_device_parallelism=LESSONS // accumulated // jax.device_count(),
    num_train_steps=steps,
    load_checkpoint=False,
    log_jaxprs=False,
    log_xla_hlo=False,
  )
  pairs = np.stack([np.arange(LESSONS), np.arange(LESSONS) + 20], axis=1)
  pairs = hax.named(pairs, ('batch', 'position'))
  before, losses = arrays(model), [loss_fn(model, pairs)]
  # The default hooks would save checkpoints and draw a progress bar.
  with trainer.Trainer(config, tx, loss_fn, add_default_hooks=False) as run:
    # Its checkpoints hold raw keys only, not those of `jax.random.key`.
    state = run.initial_state(jax.random.PRNGKey(1), model=model)
    model = run.train(state, [pairs] * steps).state.model
  losses.append(loss_fn(model, pairs))
  claim.check(before, arrays(model), ranking.top_slots(scores, T), losses)


if __name__ == '__main__':
  main()
