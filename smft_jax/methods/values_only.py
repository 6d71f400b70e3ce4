"""Values-only finetuning: every row of the value table that the loss reaches.

Sparse memory finetuning less its choice of slots: where the two differ, ranking
made the difference. With SGD it is sparse memory finetuning with ranking
'all_accessed' and t = N; AdamW moves more than that, see `Config`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import optax

from smft_jax import memory
from smft_jax.training import method as method_lib

# Directions; decay and the rate, which is an argument, come after them.
_DIRECTIONS = {'sgd': optax.identity, 'adamw': optax.scale_by_adam}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Finetuning of the value table alone.

  Attributes:
    name: Tells methods apart in a config.
    learning_rate: Constant; for a loss that is a mean over the loss weights.
      The default is for AdamW; SGD takes rates ten thousand times that.
    optimizer: 'adamw', as the paper's other methods have it, or 'sgd'. By SGD a
      step changes the rows read in its batch and no others. AdamW also moves
      rows that an earlier batch read, for as long as their first moment lasts.
    weight_decay: Of every row, in each step, whether it was read or not: above
      0 the whole table changes, which is why it is 0 here.

  Raises:
    ValueError: For a value out of range.
  """

  name: Literal['values_only'] = 'values_only'
  learning_rate: float = 3e-3
  optimizer: Literal['sgd', 'adamw'] = 'adamw'
  weight_decay: float = 0.0

  def __post_init__(self) -> None:
    method_lib.check_rates(self)
    if self.optimizer not in _DIRECTIONS:
      raise ValueError(
        f'optimizer must be one of {", ".join(_DIRECTIONS)}, not '
        f'{self.optimizer!r}'
      )


def make(config: Config) -> method_lib.Method:
  """The method of a config."""
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
