"""Sparse memory finetuning (arXiv:2510.15103): updates the top-t value rows."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import optax

from smft_jax import memory
from smft_jax import optim
from smft_jax import ranking
from smft_jax import schema
from smft_jax.training import method as method_lib

# Scores slots at random, which takes a key and no background.
_RANDOM = 'random'

# Update directions; `scale_by_given_rate` follows them.
OPTIMIZERS = {
  'sgd': optax.identity,
  'momentum': functools.partial(optax.trace, decay=0.9),
  'adam': optax.scale_by_adam,
  'adamw': lambda: optax.chain(
    optax.scale_by_adam(), optax.add_decayed_weights(0.1)
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(method_lib.MethodConfig):
  """Sparse memory finetuning, with the paper's ranking or another.

  Attributes:
    name: The method's name.
    update: 'rows' (cost independent of the number of slots) or 'dense' (a
      whole-table gradient, masked last). Both make the same change under SGD.
    ranking: 'tf_idf' (the paper's), 'tf_idf_squared', 'tf_idf_cubed', 'tf',
      'all_accessed' or 'kl' (see `ranking.RANKINGS`), or 'random'.
    t: Most slots to update per step, or per document.
    select: When slots are selected: at every 'step', by its batch (the
      paper's), or once per 'document', by all of its texts; each document then
      starts with a new optimizer state. For update 'rows'.
    grows_background: Whether the texts of a document are background for later
      ones, which then leave the slots alone that a quorum's lesson has taught.
      For select 'document'.
    optimizer: 'sgd' (the paper's), 'momentum', 'adam' or 'adamw'.
    learning_rate: Rate, or the first one; the loss is a mean over loss weights.
    schedule: 'constant', or 'wsd' (warmup, stable, decay; without warmup) for a
      rate that falls to zero over the last quarter of the steps on a document.
    replay_fraction: Share of each batch drawn from pretraining text. It adds to
      the loss; its accesses do not rank slots.

  Raises:
    ValueError: If a value is out of range.
  """

  only_values = True
  keeps_weights = True
  ranks_slots = True

  name: Literal['sparse_memory'] = 'sparse_memory'
  update: Literal['rows', 'dense'] = 'rows'
  ranking: str = 'tf_idf'
  t: int = 300
  select: Literal['step', 'document'] = 'step'
  grows_background: bool = False
  optimizer: Literal['sgd', 'momentum', 'adam', 'adamw'] = 'sgd'
  learning_rate: float = 30.0
  schedule: Literal['constant', 'wsd'] = 'constant'
  replay_fraction: float = 0.0

  def __post_init__(self) -> None:
    known = (*ranking.RANKINGS, _RANDOM)
    schema.one_of('ranking', self.ranking, known)
    schema.at_least(1, self, 't')
    schema.positive(self, 'learning_rate')
    if self.select == 'document' and self.update != 'rows':
      raise schema.UserError(
        f"select = 'document' needs update = 'rows', not {self.update!r}"
      )
    if self.grows_background and self.select != 'document':
      raise schema.UserError(
        "grows_background needs select = 'document', not 'step'"
      )
    method_lib.check_replay_fraction(self.replay_fraction)

  @property
  def needs_background(self) -> bool:
    """Whether the ranking reads document frequencies."""
    return self.ranking not in {*ranking.WITHOUT_BACKGROUND, _RANDOM}

  @property
  def marks_lessons(self) -> bool:
    """Whether it marks the slots that it teaches."""
    return self.select == 'document'


def make(config: Config) -> method_lib.Method:
  """Builds the method."""
  return dataclasses.replace(
    _method(
      config.update,
      config.ranking,
      config.t,
      config.optimizer,
      config.select == 'document',
      config.grows_background,
    ),
    hyperparameters={'learning_rate': config.learning_rate},
    replay_fraction=config.replay_fraction,
    decays=config.schedule == 'wsd',
  )


@functools.cache
def _method(
  update: str,
  ranking_name: str,
  t: int,
  optimizer: str,
  per_document: bool,
  grows_background: bool,
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
    per_document=per_document,
    grows_background=grows_background,
    score=functools.partial(_score, ranking_name),
    pointwise=ranking_name in ranking.POINTWISE,
  )


def _score(
  name: str,
  key: jax.Array,
  counts: jax.Array,
  background: method_lib.Background,
) -> jax.Array:
  if name == _RANDOM:
    return ranking.random_scores(key, counts)
  return ranking.RANKINGS[name](
    counts, background.document_frequency, background.num_documents
  )
