"""Bottleneck adapters after frozen sublayers (arXiv:1902.00751).

The output of attention and of each FFN passes through a small residual network
before it joins the residual stream:

  y <- y + W_up silu(W_down y)

W_up starts at zero, so the model's outputs start unchanged. There are no
biases. A block whose FFN is replaced by memory gets an adapter after attention
only.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import lookup
from smft_jax import schema
from smft_jax.methods import surgery
from smft_jax.models import layers
from smft_jax.training import method as method_lib

SUBLAYER_OUTPUTS = r'(^|/)(attention/out|mlp/down)$'


class AdapterParam(nnx.Param):
  """A parameter of an adapter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(method_lib.MethodConfig):
  """Bottleneck adapters, trained by AdamW.

  Attributes:
    name: The method's name.
    learning_rate: Constant rate; the loss is a mean over loss weights.
    weight_decay: Weight decay of the adapters.
    width: R, inner size of an adapter.

  Raises:
    ValueError: If a value is out of range.
  """

  adds_parameters = True
  keeps_weights = True

  name: Literal['adapter'] = 'adapter'
  learning_rate: float = 1e-3
  weight_decay: float = 0.1
  width: int = 32

  def __post_init__(self) -> None:
    schema.positive(self, 'learning_rate')
    schema.at_least(0, self, 'weight_decay')
    schema.at_least(1, self, 'width')


def make(config: Config) -> method_lib.Method:
  """Builds the method."""
  return dataclasses.replace(
    _method(config.weight_decay, config.width),
    hyperparameters={'learning_rate': config.learning_rate},
  )


@functools.cache
def _method(weight_decay: float, width: int) -> method_lib.Method:
  def add_modules(model: nnx.Module, rngs: nnx.Rngs) -> nnx.Module:
    return add_adapters(model, width=width, rngs=rngs)

  return method_lib.Method(
    name='adapter',
    trainable=AdapterParam,
    optimizer=method_lib.adamw(weight_decay),
    add_modules=add_modules,
  )


class AdaptedProjection(surgery.Extended):
  """A projection to the model dimension D, followed by an adapter.

  Attributes:
    adapter_down: [D, R], normal with standard deviation D ** -0.5.
    adapter_up: [R, D], zeros.
  """

  def __init__(
    self, projection: layers.Projection, width: int, *, rngs: nnx.Rngs
  ):
    super().__init__(projection)
    dim = self.weight.shape[-1]
    # bfloat16 weights may stay so, as they are frozen; adapters train.
    dtype = lookup.wide_dtype(self.weight.dtype)
    init = nnx.initializers.normal(dim**-0.5)
    self.adapter_down = AdapterParam(init(rngs.params(), (dim, width), dtype))
    self.adapter_up = AdapterParam(jnp.zeros((width, dim), dtype))

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., *in_shape] -> [..., D]."""
    y = super().__call__(x)
    down, up = (
      weight[...].astype(y.dtype)
      for weight in (self.adapter_down, self.adapter_up)
    )
    return y + jax.nn.silu(y @ down) @ up


def add_adapters(
  model: surgery.Model, *, width: int, rngs: nnx.Rngs
) -> surgery.Model:
  """Adds an adapter after every attention and FFN.

  Args:
    model: As in `surgery.replace_projections`.
    width: R, at least 1.
    rngs: Random keys for W_down.

  Returns:
    A model with the same outputs.

  Raises:
    ValueError: If the width is below 1, or the model has no such sublayer or
      already has adapters.

  Example:
    >>> from smft_jax.models import transformer
    >>> config = layers.TransformerConfig(
    ...     vocab_size=11, num_layers=1, model_dim=8, num_heads=2,
    ...     num_kv_heads=1, head_dim=4, ffn_dim=16)
    >>> model = transformer.Transformer(config, rngs=nnx.Rngs(0))
    >>> adapted = add_adapters(model, width=3, rngs=nnx.Rngs(1))
    >>> adapted.blocks[0].mlp.down.adapter_up.shape
    (3, 8)
  """
  if width < 1:
    raise ValueError(f'width must be at least 1, not {width}')
  return surgery.replace_projections(
    model, SUBLAYER_OUTPUTS, lambda p: AdaptedProjection(p, width, rngs=rngs)
  )
