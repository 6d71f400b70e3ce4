"""LoRA: low-rank adapters beside frozen matrices (arXiv 2106.09685).

Each chosen projection of attention and FFN gets two small matrices of its own:

  y = W x + (alpha / r) B A x

W stays as it is; B starts at zero, so the model does too. By default all
projections of the decoder are adapted, as in the baseline of arXiv 2510.15103;
the memory layers, embeddings and norms never are.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax.methods import surgery
from smft_jax.models import layers
from smft_jax.training import method as method_lib

TARGETS = {'all': surgery.EVERY, 'attention': '(^|/)attention/'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """LoRA by AdamW.

  Attributes:
    name: Tells methods apart in a config.
    learning_rate: Constant; for a loss that is a mean over the loss weights.
    weight_decay: Of the adapters; 0.1 is that of the paper's baselines.
    rank: r, at least 1.
    alpha: Scales the adapters' output, by alpha / r.
    targets: Adapt 'all' projections, or those of 'attention'.
    pattern: If not empty, a regular expression in place of `targets`; adapts
      the projections it is found in the paths of, such as
      'blocks/0/attention/query'.
    replay_fraction: Share of each batch that is pretraining text.

  Raises:
    ValueError: For a value out of range.
  """

  name: Literal['lora'] = 'lora'
  learning_rate: float = 1e-3
  weight_decay: float = 0.1
  rank: int = 8
  alpha: float = 16.0
  targets: Literal['all', 'attention'] = 'all'
  pattern: str = ''
  replay_fraction: float = 0.0

  def __post_init__(self) -> None:
    method_lib.check_rates(self)
    _check_sizes(self.rank, self.alpha)
    surgery.check_pattern(self.pattern)


def make(config: Config) -> method_lib.Method:
  """The method of a config."""
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
    super().__init__(projection)
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
  model: surgery.Model,
  *,
  rank: int,
  alpha: float,
  rngs: nnx.Rngs,
  pattern: str = surgery.EVERY,
) -> surgery.Model:
  """The model with adapters beside its projections.

  Args:
    model: As in `surgery.replace_projections`.
    rank: r, at least 1.
    alpha: Scales the adapters' output, by alpha / r.
    rngs: Source of the initial A.
    pattern: Which projections, by path, as in `surgery.replace_projections`.

  Returns:
    A model of the same outputs.

  Raises:
    ValueError: If rank or alpha is not positive, or the pattern matches no
      projection or one that has an adapter already.

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


def _check_sizes(rank: int, alpha: float) -> None:
  if rank < 1:
    raise ValueError(f'rank must be at least 1, not {rank}')
  if not 0 < alpha < math.inf:
    raise ValueError(f'alpha must be above 0 and finite, not {alpha}')
