"""The method that makes base models: trains all parameters, or memory only."""

from __future__ import annotations

import functools

from flax import nnx
import jax
import optax

from smft_jax import memory
from smft_jax.training import method as method_lib


@functools.cache  # so that equal settings share a compiled program
def make(
  *,
  steps: int,
  warmup_steps: int,
  learning_rate: float,
  value_learning_rate: float,
  weight_decay: float,
  trainable: type[nnx.Variable] = nnx.Param,
) -> method_lib.Method:
  """Builds AdamW with a cosine schedule, and a separate rate for values.

  Few tokens read a slot, so its row gets few gradients. Values therefore have a
  higher rate, are clipped separately and do not decay ("Memory Layers at
  Scale", arXiv:2412.09764).

  Args:
    steps: Length of the schedule.
    warmup_steps: Steps of linear warm-up.
    learning_rate: Peak rate of everything but the values.
    value_learning_rate: Peak rate of the values.
    weight_decay: Weight decay of matrices; norms, biases and values do not
      decay.
    trainable: What trains: `nnx.Param` for a model from scratch,
      `memory.MemoryParam` to heal a trained model that memory was added to.

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
