"""Sparse memory finetuning (arXiv 2510.15103): only the top-t value rows."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import optax

from smft_jax import memory
from smft_jax import optim
from smft_jax import ranking
from smft_jax import selection
from smft_jax.training import method as method_lib

# Directions; the rate, which they are scaled by in the end, is an argument.
OPTIMIZERS = {
  'sgd': optax.identity,
  'momentum': functools.partial(optax.trace, decay=0.9),
  'adam': optax.scale_by_adam,
  'adamw': lambda: optax.chain(
    optax.scale_by_adam(), optax.add_decayed_weights(0.1)
  ),
}

# Rankings that read document frequencies, and so need a background corpus.
WITH_BACKGROUND = ('tf_idf', 'tf_idf_cubed', 'kl')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The paper's method, or one of its rivals by another ranking.

  Attributes:
    name: Tells methods apart in a config.
    update: 'rows' (cost independent of the number of slots) or 'dense' (the
      whole gradient, masked last); the same change under SGD.
    ranking: A key of `ranking.RANKINGS`, or 'random'.
    t: Slots to update per step, at most.
    optimizer: A key of `OPTIMIZERS`; the paper takes 'sgd'.
    learning_rate: For a loss that is a mean over the loss weights.
    replay_fraction: Share of each batch that is pretraining text. Its accesses
      do not rank slots; its loss counts.

  Raises:
    ValueError: For a value out of range.
  """

  name: Literal['sparse_memory'] = 'sparse_memory'
  update: Literal['rows', 'dense'] = 'rows'
  ranking: Literal[
    'tf_idf', 'tf', 'all_accessed', 'tf_idf_cubed', 'kl', 'random'
  ] = 'tf_idf'
  t: int = 300
  optimizer: Literal['sgd', 'momentum', 'adam', 'adamw'] = 'sgd'
  learning_rate: float = 30.0
  replay_fraction: float = 0.0

  def __post_init__(self) -> None:
    if self.t < 1:
      raise ValueError(f't must be at least 1, not {self.t}')
    method_lib.check_rates(self)

  @property
  def needs_background(self) -> bool:
    """Whether the ranking reads document frequencies."""
    return self.ranking in WITH_BACKGROUND


def make(config: Config) -> method_lib.Method:
  """The method of a config."""
  return dataclasses.replace(
    _method(config.update, config.ranking, config.t, config.optimizer),
    hyperparameters={'learning_rate': config.learning_rate},
    replay_fraction=config.replay_fraction,
  )


@functools.cache
def _method(
  update: str, ranking_name: str, t: int, optimizer: str
) -> method_lib.Method:
  inner = optax.chain(OPTIMIZERS[optimizer](), method_lib.scale_by_given_rate())
  if update == 'dense':
    inner = optax.chain(inner, optim.keep_top_slots(t))
  return method_lib.Method(
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
  background: method_lib.Background,
) -> jax.Array:
  if name == 'random':
    return ranking.random_scores(key, counts)
  return ranking.RANKINGS[name](
    counts, background.document_frequency, background.num_documents
  )
