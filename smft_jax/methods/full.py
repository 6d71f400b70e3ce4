"""Full finetuning: AdamW on every parameter, memory included."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

from flax import nnx

from smft_jax import schema
from smft_jax.training import method as method_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(method_lib.MethodConfig):
  """Full finetuning of the memory model.

  Attributes:
    name: The method's name.
    learning_rate: Constant rate; the loss is a mean over loss weights.
    weight_decay: Weight decay; arXiv:2510.15103 uses 0.1 for its baselines.

  Raises:
    ValueError: If a value is out of range.
  """

  name: Literal['full'] = 'full'
  learning_rate: float = 3e-4
  weight_decay: float = 0.1

  def __post_init__(self) -> None:
    schema.positive(self, 'learning_rate')
    schema.at_least(0, self, 'weight_decay')


def make(config: Config) -> method_lib.Method:
  """Builds the method."""
  return dataclasses.replace(
    _method(config.weight_decay),
    hyperparameters={'learning_rate': config.learning_rate},
  )


@functools.cache
def _method(weight_decay: float) -> method_lib.Method:
  return method_lib.Method(
    name='full', trainable=nnx.Param, optimizer=method_lib.adamw(weight_decay)
  )
