"""In-context reading: the document goes into the prompt; no weight changes.

A reference rather than a way of learning: nothing is forgotten, every question
pays for the document's tokens, and the right document must be known (here it
is).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from flax import nnx
import optax

from smft_jax.training import method as method_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(method_lib.MethodConfig):
  """In-context reading; there is nothing to set.

  Attributes:
    name: The method's name.
  """

  keeps_weights = True

  name: Literal['in_context'] = 'in_context'


_METHOD = method_lib.Method(
  name='in_context',
  trainable=nnx.Param,
  optimizer=optax.set_to_zero(),
  update='none',
)


def make(config: Config) -> method_lib.Method:
  """Builds the method."""
  del config
  return _METHOD
