"""Values-only finetuning: trains the whole value table.

Sparse memory finetuning without its selection of slots, so a comparison of the
two shows what the ranking contributes. With SGD it equals sparse memory
finetuning with ranking 'all_accessed' and t = N; AdamW changes more rows, see
`Config`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import optax

from smft_jax import memory
from smft_jax import schema
from smft_jax.training import method as method_lib

# Directions; decay and the rate, which is an argument, come after them.
_DIRECTIONS = {'sgd': optax.identity, 'adamw': optax.scale_by_adam}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(method_lib.MethodConfig):
  """Values-only finetuning.

  Attributes:
    name: The method's name.
    learning_rate: Constant rate; the loss is a mean over loss weights.
      The default is for AdamW; SGD needs rates about 10,000 times as large.
    optimizer: 'adamw' or 'sgd'. SGD changes only rows that the batch reads.
      AdamW also moves rows that earlier batches read, until their first moment
      decays.
    weight_decay: Weight decay of every row, read or not. Above 0, each step
      changes the whole table.

  Raises:
    ValueError: If a value is out of range.
  """

  only_values = True
  keeps_weights = True

  name: Literal['values_only'] = 'values_only'
  learning_rate: float = 3e-3
  optimizer: Literal['sgd', 'adamw'] = 'adamw'
  weight_decay: float = 0.0

  def __post_init__(self) -> None:
    schema.positive(self, 'learning_rate')
    schema.at_least(0, self, 'weight_decay')
    if self.optimizer not in _DIRECTIONS:
      raise ValueError(
        f'optimizer must be one of {", ".join(_DIRECTIONS)}, not '
        f'{self.optimizer!r}'
      )


def make(config: Config) -> method_lib.Method:
  """Builds the method."""
  return dataclasses.replace(
    _method(config.optimizer, config.weight_decay),
    hyperparameters={'learning_rate': config.learning_rate},
  )


@functools.cache
def _method(optimizer: str, weight_decay: float) -> method_lib.Method:
  return method_lib.Method(
    name='values_only',
    trainable=memory.MemoryValue,
    optimizer=optax.chain(
      _DIRECTIONS[optimizer](),
      optax.add_decayed_weights(weight_decay),
      method_lib.scale_by_given_rate(),
    ),
  )
