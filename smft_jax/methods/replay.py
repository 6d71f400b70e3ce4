"""Replay: full finetuning on batches of which a part is pretraining text.

The oldest remedy against forgetting, and a strong one, for those who still
have the data (Robins, 1995, "Catastrophic forgetting, rehearsal and
pseudorehearsal"). Sparse memory finetuning has a `replay_fraction` of its own.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from smft_jax.methods import full
from smft_jax.training import method as method_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Full finetuning with replay.

  Attributes:
    name: Tells methods apart in a config.
    learning_rate: As in `full`.
    weight_decay: As in `full`.
    replay_fraction: Share of each batch's rows that are pretraining's.

  Raises:
    ValueError: For a value out of range; for no replay at all, too.
  """

  name: Literal['replay'] = 'replay'
  learning_rate: float = 3e-4
  weight_decay: float = 0.1
  replay_fraction: float = 0.5

  def __post_init__(self) -> None:
    method_lib.check_rates(self)
    if not self.replay_fraction:
      raise ValueError(
        "replay_fraction must be above 0; without replay it is method 'full'"
      )


def make(config: Config) -> method_lib.Method:
  """The method of a config."""
  inner = full.make(
    full.Config(
      learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
  )
  return dataclasses.replace(
    inner, name='replay', replay_fraction=config.replay_fraction
  )
