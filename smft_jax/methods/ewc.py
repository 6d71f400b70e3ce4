r"""Elastic weight consolidation: full finetuning, tied to where it came from.

Parameters that the old texts' likelihood depends on are held near their old
values by springs (Kirkpatrick et al., "Overcoming catastrophic forgetting in
neural networks", arXiv 1612.00796):

.. math:: L(\theta) + \frac{\lambda}{2} \sum_i F_i (\theta_i - \theta^*_i)^2

The model before the stream is :math:`\theta^*`, and stays it for the whole
stream: what is new is not consolidated in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import math
from typing import Any, Literal

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax.training import method as method_lib
from smft_jax.training import step as step_lib

TRAINABLE = nnx.Param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Elastic weight consolidation, by AdamW.

  Attributes:
    name: Tells methods apart in a config.
    learning_rate: As in `full`.
    weight_decay: Of all parameters. 0, as decay would pull them to zero, and
      away from where the penalty holds them.
    strength: lambda. Its scale is that of `fisher_information`, whose losses
      are means over a sequence; with sums the same penalty takes a strength
      lower by the square of its length. Well trained models have little Fisher
      information: in configs/docqa.py 1e4 does next to nothing, and 1e7 lets
      next to nothing be learned.
    num_sequences: Pretraining sequences that the Fisher information is
      estimated from.

  Raises:
    ValueError: For a value out of range.
  """

  name: Literal['ewc'] = 'ewc'
  learning_rate: float = 3e-4
  weight_decay: float = 0.0
  strength: float = 3e5
  num_sequences: int = 256

  def __post_init__(self) -> None:
    method_lib.check_rates(self)
    if not 0 <= self.strength < math.inf:
      raise ValueError(
        f'strength must be at least 0 and finite, not {self.strength}'
      )
    if self.num_sequences < 1:
      raise ValueError(
        f'num_sequences must be at least 1, not {self.num_sequences}'
      )


def make(config: Config) -> method_lib.Method:
  """The method of a config."""
  return dataclasses.replace(
    _method(config.weight_decay, config.num_sequences),
    hyperparameters={
      'learning_rate': config.learning_rate,
      'strength': config.strength,
    },
  )


@functools.cache
def _method(weight_decay: float, num_sequences: int) -> method_lib.Method:
  def begin(
    graphdef: nnx.GraphDef, params: nnx.State, batches: Iterator[Any]
  ) -> method_lib.Extras:
    trainable = nnx.filter_state(params, TRAINABLE)
    return {
      'fisher': fisher_information(graphdef, params, batches, num_sequences),
      # A copy: steps donate the parameters, and the anchor has to stay.
      'anchor': jax.tree.map(jnp.copy, trainable),
    }

  return method_lib.Method(
    name='ewc',
    trainable=TRAINABLE,
    optimizer=method_lib.adamw(weight_decay),
    begin=begin,
    penalty=penalty,
  )


def penalty(trainable: nnx.State, extras: Mapping[str, Any]) -> jax.Array:
  """What is added to the loss: strength / 2 * sum F (theta - theta*)^2.

  Args:
    trainable: theta, a tree of arrays.
    extras: 'strength', float32 []; 'fisher', F, and 'anchor', theta*, trees
      like `trainable`.

  Returns:
    float32 [].

  Example:
    >>> extras = {'strength': jnp.float32(10.0),
    ...           'fisher': {'w': jnp.array([1.0, 0.0])},
    ...           'anchor': {'w': jnp.array([1.0, 1.0])}}
    >>> penalty({'w': jnp.array([3.0, 7.0])}, extras).item()
    20.0
  """

  def stretch(theta: jax.Array, fisher: jax.Array, anchor: jax.Array):
    distance = theta.astype(jnp.float32) - anchor.astype(jnp.float32)
    return jnp.sum(fisher * distance**2)

  stretches = jax.tree.map(
    stretch, trainable, extras['fisher'], extras['anchor']
  )
  return extras['strength'] / 2 * sum(jax.tree.leaves(stretches))


def fisher_information(
  graphdef: nnx.GraphDef,
  params: nnx.State,
  batches: Iterator[Any],
  num_sequences: int,
) -> nnx.State:
  """The diagonal of the empirical Fisher information.

  That is the mean over sequences of the square of the gradient of that
  sequence's own loss, which is what `train_step` would have it be in a batch of
  that sequence alone: the mean over its loss weights. The square of a batch's
  gradient would be another number, too small by about the size of the batch.
  "Empirical", as the tokens are those of the text and not the model's samples.

  Args:
    graphdef: The model.
    params: Its Variables.
    batches: Batches as in `train_step`, of any size; as many are taken as there
      have to be for `num_sequences` rows, of which the first are used.
    num_sequences: How many rows to take the mean over.

  Returns:
    The state of the parameters that train, float32 in the place of each.

  Raises:
    ValueError: If `batches` ends before there are enough rows.
  """
  fisher = jax.tree.map(
    lambda x: jnp.zeros(x.shape, jnp.float32),
    nnx.filter_state(params, TRAINABLE),
  )
  missing = num_sequences
  while missing:
    batch = next(batches, None)
    if batch is None:
      raise ValueError(
        f'num_sequences is {num_sequences}, and there are '
        f'{num_sequences - missing} pretraining sequences'
      )
    rows = min(missing, len(batch.tokens))
    fisher = _add_squares(fisher, graphdef, params, batch, rows, num_sequences)
    missing -= rows
  return fisher


@functools.partial(
  jax.jit, static_argnames='graphdef', donate_argnames='fisher'
)
def _add_squares(fisher, graphdef, params, batch, rows, num_sequences):
  """Adds the squared gradients of the first rows, over `num_sequences`.

  A row at a time: a gradient has the size of the model, value table included.
  """
  trainable, frozen = nnx.split_state(params, TRAINABLE, ...)
  scale = 1 / num_sequences

  def add(row: jax.Array, fisher: nnx.State) -> nnx.State:
    sequence = jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, row, 1), batch
    )

    def loss(trainable: nnx.State) -> jax.Array:
      params = nnx.merge_state(trainable, frozen)
      return step_lib.loss_and_accesses(graphdef, params, sequence)[0]

    gradient = jax.grad(loss)(trainable)
    return jax.tree.map(
      lambda f, g: f + scale * g.astype(jnp.float32) ** 2, fisher, gradient
    )

  # The number of rows is data, so a last batch used in part shares the program.
  return jax.lax.fori_loop(0, rows, add, fisher)
