"""Replay: full finetuning on batches that mix in pretraining text.

The oldest remedy against forgetting, and a strong one where the pretraining
data is available (Robins, 1995, "Catastrophic forgetting, rehearsal and
pseudorehearsal"). Sparse memory finetuning has its own `replay_fraction`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from smft_jax import schema
from smft_jax.methods import full
from smft_jax.training import method as method_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(method_lib.MethodConfig):
  """Full finetuning with replay.

  Attributes:
    name: The method's name.
    learning_rate: Constant rate; the loss is a mean over loss weights.
    weight_decay: Weight decay of all parameters.
    replay_fraction: Share of each batch's rows drawn from pretraining text,
      above 0.

  Raises:
    ValueError: If a value is out of range.
  """

  name: Literal['replay'] = 'replay'
  learning_rate: float = 3e-4
  weight_decay: float = 0.1
  replay_fraction: float = 0.5

  def __post_init__(self) -> None:
    schema.positive(self, 'learning_rate')
    schema.at_least(0, self, 'weight_decay')
    method_lib.check_replay_fraction(self.replay_fraction)
    if not self.replay_fraction:
      raise ValueError(
        "replay_fraction must be above 0; without replay it is method 'full'"
      )


def make(config: Config) -> method_lib.Method:
  """Builds the method."""
  inner = full.make(
    full.Config(
      learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
  )
  return dataclasses.replace(
    inner, name='replay', replay_fraction=config.replay_fraction
  )
