"""LoRA: low-rank adapters beside frozen matrices (arXiv 2106.09685).

Each projection of attention and FFN gets two small matrices of its own:

  y = W x + (alpha / r) B A x

W stays as it is; B starts at zero, so the model does too. All projections of
the decoder are adapted, as in the baseline of arXiv 2510.15103; the memory
layers, embeddings and norms are not.
"""

from __future__ import annotations

import math
from typing import TypeVar

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from smft_jax import layers
from smft_jax import train_step

Model = TypeVar('Model', bound=nnx.Module)


class AdaptedProjection(layers.Projection):
  """A projection with an adapter; `weight` keeps its path in the model.

  Attributes:
    lora_a: A, [*in_shape, r]; normal, with standard deviation
      prod(in_shape) ** -0.5.
    lora_b: B, [r, *out_shape]; zeros.
    scale: alpha / r.
  """

  def __init__(
    self,
    projection: layers.Projection,
    rank: int,
    alpha: float,
    *,
    rngs: nnx.Rngs,
  ):
    self.weight = projection.weight
    self.num_in = projection.num_in
    shape, dtype = self.weight.shape, self.weight.dtype
    in_shape, out_shape = shape[: self.num_in], shape[self.num_in :]
    init = nnx.initializers.normal(math.prod(in_shape) ** -0.5)
    self.lora_a = nnx.LoRAParam(init(rngs.params(), (*in_shape, rank), dtype))
    self.lora_b = nnx.LoRAParam(jnp.zeros((rank, *out_shape), dtype))
    self.scale = alpha / rank

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., *in_shape] -> [..., *out_shape]."""
    low = jnp.tensordot(x, self.lora_a[...], self.num_in)  # [..., r]
    change = jnp.tensordot(low, self.lora_b[...], 1)
    return super().__call__(x) + self.scale * change


def add_adapters(
  model: Model, *, rank: int, alpha: float, rngs: nnx.Rngs
) -> Model:
  """The model with an adapter beside every projection.

  Args:
    model: Has `layers.Projection`s; it stays as it is. Its parameters are
      shared with the result, where they have the same paths.
    rank: r, at least 1.
    alpha: Scales the adapters' output, by alpha / r.
    rngs: Source of the initial A.

  Returns:
    A model of the same outputs.

  Raises:
    ValueError: If rank or alpha is not positive, there is no projection to
      adapt, or there are adapters already.

  Example:
    >>> config = layers.TransformerConfig(
    ...     vocab_size=11, num_layers=1, model_dim=8, num_heads=2,
    ...     num_kv_heads=1, head_dim=4, ffn_dim=16)
    >>> ffn = layers.FeedForward(config, rngs=nnx.Rngs(0))
    >>> adapted = add_adapters(ffn, rank=3, alpha=6.0, rngs=nnx.Rngs(1))
    >>> adapted.down.lora_a.shape, adapted.down.lora_b.shape
    ((16, 3), (3, 8))
    >>> x = jnp.ones((2, 8))
    >>> bool(jnp.all(ffn(x) == adapted(x)))
    True
  """
  if rank < 1:
    raise ValueError(f'rank must be at least 1, got {rank}.')
  if not alpha > 0:
    raise ValueError(f'alpha must be positive, got {alpha}.')
  model = nnx.merge(*nnx.split(model))
  found = [
    (parent, name, child)
    for _, parent in list(nnx.iter_modules(model))
    for name, child in vars(parent).items()
    if isinstance(child, layers.Projection)
  ]
  if not found:
    raise ValueError(
      f'{type(model).__name__} has no layers.Projection to adapt.'
    )
  for parent, name, child in found:
    if isinstance(child, AdaptedProjection):
      raise ValueError(f'{type(model).__name__} has LoRA adapters already.')
    setattr(parent, name, AdaptedProjection(child, rank, alpha, rngs=rngs))
  return model


def make(
  *, learning_rate: float, weight_decay: float = 0.1
) -> train_step.Method:
  """AdamW on the adapters and nothing else; the model must have them.

  Args:
    learning_rate: Constant; for a loss that is a mean over the loss weights.
    weight_decay: Of the adapters; 0.1 is that of the paper's baselines.

  Returns:
    The method.
  """
  return train_step.Method(
    name='lora',
    trainable=nnx.LoRAParam,
    optimizer=optax.adamw(learning_rate, weight_decay=weight_decay),
  )
