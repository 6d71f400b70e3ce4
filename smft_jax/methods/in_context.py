"""In-context reading: the document before the question, weights untouched.

No way of learning but the reference that users compare with: nothing can be
forgotten, every question pays for the document's tokens, and somebody must
know which document to put there (here, the right one).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from flax import nnx
import optax

from smft_jax.training import method as method_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """In-context reading; there is nothing to set.

  Attributes:
    name: Tells methods apart in a config.
  """

  name: Literal['in_context'] = 'in_context'


_METHOD = method_lib.Method(
  name='in_context',
  trainable=nnx.Param,
  optimizer=optax.set_to_zero(),
  update='none',
)


def make(config: Config) -> method_lib.Method:
  """The method of a config."""
  del config
  return _METHOD
