r"""Elastic weight consolidation: full finetuning with a quadratic penalty.

The penalty keeps parameters that matter for old texts near their old values
(Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks",
arXiv:1612.00796):

.. math:: L(\theta) + \frac{\lambda}{2} \sum_i F_i (\theta_i - \theta^*_i)^2

:math:`\theta^*` is the model before the stream, for the whole stream: new
documents are not consolidated in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import functools
from typing import Any, Literal

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import schema
from smft_jax.training import forward
from smft_jax.training import method as method_lib

TRAINABLE = nnx.Param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(method_lib.MethodConfig):
  """Elastic weight consolidation, trained by AdamW.

  Attributes:
    name: The method's name.
    learning_rate: Constant rate; the loss is a mean over loss weights.
    weight_decay: Weight decay of all parameters; 0, as decay works against the
      penalty.
    strength: lambda, for a Fisher information of losses that are means over a
      sequence; for sums, divide by the square of its length. In
      configs/docqa.py, 1e4 has almost no effect and 1e7 prevents learning.
    num_sequences: Pretraining sequences to estimate the Fisher information
      from.

  Raises:
    ValueError: If a value is out of range.
  """

  name: Literal['ewc'] = 'ewc'
  learning_rate: float = 3e-4
  weight_decay: float = 0.0
  strength: float = 3e5
  num_sequences: int = 256

  def __post_init__(self) -> None:
    schema.positive(self, 'learning_rate')
    schema.at_least(0, self, 'weight_decay')
    schema.at_least(0, self, 'strength')
    schema.at_least(1, self, 'num_sequences')


def make(config: Config) -> method_lib.Method:
  """Builds the method."""
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
      # A copy, because steps donate the parameters.
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
  """Computes the penalty strength / 2 * sum F (theta - theta*)^2.

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
  """Estimates the diagonal of the empirical Fisher information.

  The mean over sequences of the squared gradient of one sequence's loss, which
  is a mean over its loss weights. (The squared gradient of a batch is too small
  by about the batch size.) "Empirical" because tokens come from the text, not
  from the model.

  Args:
    graphdef: The model.
    params: Its Variables.
    batches: Batches as in `train_step`, of any size; consumed until they hold
      `num_sequences` rows.
    num_sequences: Number of rows to average over.

  Returns:
    A float32 array for each trainable parameter.

  Raises:
    ValueError: If `batches` has too few rows.
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
        f'num_sequences is {num_sequences}, but there are only '
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
  """Adds the squared gradients of the first rows, divided by `num_sequences`.

  One row at a time, because a gradient is as large as the model.
  """
  trainable, frozen = nnx.split_state(params, TRAINABLE, ...)
  scale = 1 / num_sequences

  def add(row: jax.Array, fisher: nnx.State) -> nnx.State:
    sequence = jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, row, 1), batch
    )

    def loss(trainable: nnx.State) -> jax.Array:
      params = nnx.merge_state(trainable, frozen)
      return forward.loss_and_accesses(graphdef, params, sequence)[0]

    gradient = jax.grad(loss)(trainable)
    return jax.tree.map(
      lambda f, g: f + scale * g.astype(jnp.float32) ** 2, fisher, gradient
    )

  # `rows` is traced, so that a partly used last batch needs no new program.
  return jax.lax.fori_loop(0, rows, add, fisher)
