"""Training of all parameters, or of the memory alone: how bases are made."""

from __future__ import annotations

import functools

from flax import nnx
import jax
import optax

from smft_jax import memory
from smft_jax.training import method as method_lib


@functools.cache  # equal settings, equal methods: they share a program
def make(
  *,
  steps: int,
  warmup_steps: int,
  learning_rate: float,
  value_learning_rate: float,
  weight_decay: float,
  trainable: type[nnx.Variable] = nnx.Param,
) -> method_lib.Method:
  """AdamW with a cosine schedule; values have their own rate and no decay.

  A slot is read by few tokens, so its row sees few gradients: the values take
  a rate of their own, several times the base one, are clipped apart from the
  rest and do not decay ("Memory Layers at Scale", arXiv 2412.09764).

  Args:
    steps: Length of the schedule.
    warmup_steps: Steps of linear warm-up at its start.
    learning_rate: Peak rate of everything but the values.
    value_learning_rate: Peak rate of the values.
    weight_decay: Of matrices; norms, biases and values do not decay.
    trainable: What trains: all parameters of a model from scratch;
      `memory.MemoryParam` where a memory layer was put into a trained model,
      which is called healing.

  Returns:
    The method.
  """

  def schedule(peak):
    return optax.warmup_cosine_decay_schedule(
      0.0, peak, warmup_steps, max(steps, warmup_steps + 1), peak / 20
    )

  dense = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(
      schedule(learning_rate),
      b2=0.98,
      weight_decay=weight_decay,
      mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    ),
  )
  values = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adam(schedule(value_learning_rate), b2=0.98),
  )
  optimizer = optax.partition({'dense': dense, 'values': values}, _labels)
  return method_lib.Method(
    name='pretraining', trainable=trainable, optimizer=optimizer
  )


def _labels(params: nnx.State) -> nnx.State:
  return nnx.map_state(
    lambda _, variable: (
      'values' if isinstance(variable, memory.MemoryValue) else 'dense'
    ),
    params,
  )
