"""Sparse memory finetuning (arXiv 2510.15103): only the top-t value rows."""

from __future__ import annotations

import functools

import jax
import optax

from smft_jax import memory
from smft_jax import optim
from smft_jax import ranking
from smft_jax import selection
from smft_jax import train_step

OPTIMIZERS = {
  'sgd': optax.sgd,
  'momentum': functools.partial(optax.sgd, momentum=0.9),
  'adam': optax.adam,
  'adamw': functools.partial(optax.adamw, weight_decay=0.1),
}


def make(
  *,
  update: str,
  ranking_name: str,
  t: int,
  optimizer: str,
  learning_rate: float,
) -> train_step.Method:
  """The paper's method, or one of its rivals by another ranking.

  Args:
    update: 'rows' (cost independent of the number of slots) or 'dense' (the
      whole gradient, masked last); the same change under SGD.
    ranking_name: A key of `ranking.RANKINGS`, or 'random'.
    t: Slots to update per step, at most.
    optimizer: A key of `OPTIMIZERS`; the paper takes 'sgd'.
    learning_rate: For a loss that is a mean over the loss weights.

  Returns:
    The method.
  """
  inner = OPTIMIZERS[optimizer](learning_rate)
  if update == 'dense':
    inner = optax.chain(inner, optim.keep_top_slots(t))
  return train_step.Method(
    name='sparse_memory',
    trainable=memory.MemoryValue,
    optimizer=inner,
    update=update,
    top_t=t,
    score=functools.partial(_score, ranking_name),
    pointwise=ranking_name in selection.POINTWISE,
  )


def _score(
  name: str,
  key: jax.Array,
  counts: jax.Array,
  background: train_step.Background,
) -> jax.Array:
  if name == 'random':
    return ranking.random_scores(key, counts)
  return ranking.RANKINGS[name](
    counts, background.document_frequency, background.num_documents
  )
