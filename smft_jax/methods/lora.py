"""LoRA: low-rank adapters beside frozen matrices (arXiv:2106.09685).

Each chosen projection of attention and FFN gets two small matrices:

  y = W x + (alpha / r) B A x

W is frozen; B starts at zero, so the model's outputs start unchanged. By
default all projections are adapted, as in the baseline of arXiv:2510.15103.
Memory layers, embeddings and norms never are.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import lookup
from smft_jax import schema
from smft_jax.methods import surgery
from smft_jax.models import layers
from smft_jax.training import method as method_lib

TARGETS = {'all': surgery.EVERY, 'attention': '(^|/)attention/'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(method_lib.MethodConfig):
  """LoRA, trained by AdamW.

  Attributes:
    name: The method's name.
    learning_rate: Constant rate; the loss is a mean over loss weights.
    weight_decay: Weight decay of the adapters; 0.1 as in the paper's baselines.
    rank: r, at least 1.
    alpha: Scale of the adapters' output, which is alpha / r.
    targets: Adapt 'all' projections, or those of 'attention'.
    pattern: Regular expression that replaces `targets` unless empty. Adapts
      projections whose path it matches, such as 'blocks/0/attention/query'.
    replay_fraction: Share of each batch drawn from pretraining text.

  Raises:
    ValueError: If a value is out of range.
  """

  adds_parameters = True
  keeps_weights = True

  name: Literal['lora'] = 'lora'
  learning_rate: float = 1e-3
  weight_decay: float = 0.1
  rank: int = 8
  alpha: float = 16.0
  targets: Literal['all', 'attention'] = 'all'
  pattern: str = ''
  replay_fraction: float = 0.0

  def __post_init__(self) -> None:
    schema.positive(self, 'learning_rate')
    schema.at_least(0, self, 'weight_decay')
    method_lib.check_replay_fraction(self.replay_fraction)
    _check_sizes(self.rank, self.alpha)
    surgery.check_pattern(self.pattern)


def make(config: Config) -> method_lib.Method:
  """Builds the method."""
  pattern = config.pattern or TARGETS[config.targets]
  return dataclasses.replace(
    _method(config.weight_decay, config.rank, config.alpha, pattern),
    hyperparameters={'learning_rate': config.learning_rate},
    replay_fraction=config.replay_fraction,
  )


@functools.cache
def _method(
  weight_decay: float, rank: int, alpha: float, pattern: str
) -> method_lib.Method:
  def add_modules(model: nnx.Module, rngs: nnx.Rngs) -> nnx.Module:
    return add_adapters(
      model, rank=rank, alpha=alpha, rngs=rngs, pattern=pattern
    )

  return method_lib.Method(
    name='lora',
    trainable=nnx.LoRAParam,
    optimizer=method_lib.adamw(weight_decay),
    add_modules=add_modules,
  )


class AdaptedProjection(surgery.Extended):
  """A projection with a low-rank adapter.

  Attributes:
    lora_a: A, [*in_shape, r], normal with standard deviation
      prod(in_shape) ** -0.5.
    lora_b: B, [r, *out_shape], zeros.
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
    super().__init__(projection)
    # bfloat16 weights may stay so, as they are frozen; adapters train.
    dtype = lookup.wide_dtype(self.weight.dtype)
    shape = self.weight.shape
    in_shape, out_shape = shape[: self.num_in], shape[self.num_in :]
    init = nnx.initializers.normal(math.prod(in_shape) ** -0.5)
    self.lora_a = nnx.LoRAParam(init(rngs.params(), (*in_shape, rank), dtype))
    self.lora_b = nnx.LoRAParam(jnp.zeros((rank, *out_shape), dtype))
    self.scale = alpha / rank

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., *in_shape] -> [..., *out_shape]."""
    a, b = self.lora_a[...].astype(x.dtype), self.lora_b[...].astype(x.dtype)
    change = jnp.tensordot(jnp.tensordot(x, a, self.num_in), b, 1)
    return super().__call__(x) + self.scale * change

  def merged(self) -> surgery.Extended:
    """Returns a projection whose weight includes the adapter."""
    plain, weight = surgery.Extended(self), self.weight[...]
    change = jnp.tensordot(
      self.lora_a[...],
      self.lora_b[...],
      1,
      precision=jax.lax.Precision.HIGHEST,
    )
    total = weight.astype(change.dtype) + self.scale * change
    plain.weight = nnx.Param(total.astype(weight.dtype))
    return plain


def add_adapters(
  model: surgery.Model,
  *,
  rank: int,
  alpha: float,
  rngs: nnx.Rngs,
  pattern: str = surgery.EVERY,
) -> surgery.Model:
  """Adds low-rank adapters to projections.

  Args:
    model: As in `surgery.replace_projections`.
    rank: r, at least 1.
    alpha: Scale of the adapters' output, which is alpha / r.
    rngs: Random keys for A.
    pattern: Paths of the projections, as in `surgery.replace_projections`.

  Returns:
    A model with the same outputs.

  Raises:
    ValueError: If rank or alpha is not positive, or the pattern matches no
      projection or one that already has an adapter.

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
  _check_sizes(rank, alpha)
  return surgery.replace_projections(
    model, pattern, lambda p: AdaptedProjection(p, rank, alpha, rngs=rngs)
  )


def merge_adapters(model: surgery.Model) -> surgery.Model:
  """Adds each adapter to its weight, which changes outputs by rounding only.

  Args:
    model: A model, with adapters or without; not changed.

  Returns:
    A model without adapters.

  Example:
    >>> config = layers.TransformerConfig(
    ...     vocab_size=11, num_layers=1, model_dim=8, num_heads=2,
    ...     num_kv_heads=1, head_dim=4, ffn_dim=16)
    >>> ffn = layers.FeedForward(config, rngs=nnx.Rngs(0))
    >>> adapted = add_adapters(ffn, rank=3, alpha=6.0, rngs=nnx.Rngs(1))
    >>> adapted.up.lora_b[...] += 1.0
    >>> merged, x = merge_adapters(adapted), jnp.ones((2, 8))
    >>> bool(jnp.allclose(merged(x), adapted(x), atol=1e-5))
    True
    >>> len(jax.tree.leaves(nnx.state(merged, nnx.LoRAParam)))
    0
  """
  model = nnx.clone(model)
  for _, parent in list(nnx.iter_modules(model)):
    for name, child in vars(parent).items():
      if isinstance(child, AdaptedProjection):
        setattr(parent, name, child.merged())
  return model


def _check_sizes(rank: int, alpha: float) -> None:
  if rank < 1:
    raise ValueError(f'rank must be at least 1, not {rank}')
  if not 0 < alpha < math.inf:
    raise ValueError(f'alpha must be above 0 and finite, not {alpha}')
