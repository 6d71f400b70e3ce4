"""Full finetuning: AdamW on every parameter, the memory's included."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

from flax import nnx

from smft_jax.training import method as method_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Full finetuning of the memory model.

  Attributes:
    name: Tells methods apart in a config.
    learning_rate: Constant; for a loss that is a mean over the loss weights.
    weight_decay: 0.1 is that of the baselines of arXiv 2510.15103.

  Raises:
    ValueError: For a value out of range.
  """

  name: Literal['full'] = 'full'
  learning_rate: float = 3e-4
  weight_decay: float = 0.1

  def __post_init__(self) -> None:
    method_lib.check_rates(self)


def make(config: Config) -> method_lib.Method:
  """The method of a config."""
  return dataclasses.replace(
    _method(config.weight_decay),
    hyperparameters={'learning_rate': config.learning_rate},
  )


@functools.cache
def _method(weight_decay: float) -> method_lib.Method:
  return method_lib.Method(
    name='full', trainable=nnx.Param, optimizer=method_lib.adamw(weight_decay)
  )
