"""A new expert for each group of documents; earlier experts are frozen.

E small gated networks add to the output of each frozen FFN:

  y <- y + sum_e sigmoid(G_e . y + c_e) U_e silu(D_e y)

U starts at zero, so the model's outputs start unchanged. Document i of n trains
expert i * E // n of every block and nothing else. Each expert has its own
optimizer state.

Gates are sigmoids, not a softmax over experts, so that training one expert does
not change what another adds. Experts follow FFNs, where facts seem to be stored
(arXiv:2012.14913). A block whose FFN is replaced by memory has none.

Shapes: E experts, D model dim, R width.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from smft_jax import lookup
from smft_jax import schema
from smft_jax.methods import surgery
from smft_jax.models import layers
from smft_jax.training import method as method_lib

FFN_OUTPUTS = r'(^|/)mlp/down$'


class ExpertParam(nnx.Param):
  """A parameter of all experts of a block, stacked along its first axis."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(method_lib.MethodConfig):
  """Experts, trained by AdamW.

  Attributes:
    name: The method's name.
    learning_rate: Constant rate; the loss is a mean over loss weights.
    weight_decay: Weight decay of the expert that trains.
    width: R, inner size of an expert.
    num_experts: E, which is also the number of groups of documents.

  Raises:
    ValueError: If a value is out of range.
  """

  adds_parameters = True
  keeps_weights = True

  name: Literal['experts'] = 'experts'
  learning_rate: float = 1e-3
  weight_decay: float = 0.1
  width: int = 32
  num_experts: int = 4

  def __post_init__(self) -> None:
    schema.positive(self, 'learning_rate')
    schema.at_least(0, self, 'weight_decay')
    schema.at_least(1, self, 'width', 'num_experts')


def make(config: Config) -> method_lib.Method:
  """Builds the method."""
  return dataclasses.replace(
    _method(config.weight_decay, config.width, config.num_experts),
    hyperparameters={'learning_rate': config.learning_rate},
  )


@functools.cache
def _method(
  weight_decay: float, width: int, num_experts: int
) -> method_lib.Method:
  def add_modules(model: nnx.Module, rngs: nnx.Rngs) -> nnx.Module:
    return add_experts(model, width=width, num_experts=num_experts, rngs=rngs)

  def begin_document(index: int, num_documents: int) -> method_lib.Extras:
    return {'expert': jnp.int32(index * num_experts // num_documents)}

  return method_lib.Method(
    name='experts',
    trainable=ExpertParam,
    optimizer=one_expert_at_a_time(method_lib.adamw(weight_decay)),
    add_modules=add_modules,
    begin_document=begin_document,
  )


class MixedProjection(surgery.Extended):
  """A projection to the model dimension, followed by experts.

  Attributes:
    expert_down: [E, D, R], normal with standard deviation D ** -0.5.
    expert_up: [E, R, D], zeros.
    expert_gate: [E, D], zeros, so that all gates start at one half.
    expert_bias: [E], zeros.
  """

  def __init__(
    self,
    projection: layers.Projection,
    width: int,
    num_experts: int,
    *,
    rngs: nnx.Rngs,
  ):
    super().__init__(projection)
    dim = self.weight.shape[-1]
    # bfloat16 weights may stay so, as they are frozen; experts train.
    dtype = lookup.wide_dtype(self.weight.dtype)
    init = nnx.initializers.normal(dim**-0.5)
    self.expert_down = ExpertParam(
      init(rngs.params(), (num_experts, dim, width), dtype)
    )
    self.expert_up = ExpertParam(jnp.zeros((num_experts, width, dim), dtype))
    self.expert_gate = ExpertParam(jnp.zeros((num_experts, dim), dtype))
    self.expert_bias = ExpertParam(jnp.zeros((num_experts,), dtype))

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., *in_shape] -> [..., D]."""
    y = super().__call__(x)
    down, up, to_gate, bias = (
      weight[...].astype(y.dtype)
      for weight in (
        self.expert_down,
        self.expert_up,
        self.expert_gate,
        self.expert_bias,
      )
    )
    bias = bias.reshape((1,) * (y.ndim - 1) + (-1,))
    gate = jax.nn.sigmoid(y @ to_gate.T + bias)  # [..., E]
    inner = jax.nn.silu(jnp.einsum('...d,edr->...er', y, down))
    return y + jnp.einsum('...er,erd->...d', gate[..., None] * inner, up)


def add_experts(
  model: surgery.Model, *, width: int, num_experts: int, rngs: nnx.Rngs
) -> surgery.Model:
  """Adds experts after every FFN.

  Args:
    model: As in `surgery.replace_projections`.
    width: R, at least 1.
    num_experts: E, at least 1.
    rngs: Random keys for D_e.

  Returns:
    A model with the same outputs.

  Raises:
    ValueError: If a size is below 1, or the model has no FFN or already has
      experts.

  Example:
    >>> from smft_jax.models import transformer
    >>> config = layers.TransformerConfig(
    ...     vocab_size=11, num_layers=1, model_dim=8, num_heads=2,
    ...     num_kv_heads=1, head_dim=4, ffn_dim=16)
    >>> model = transformer.Transformer(config, rngs=nnx.Rngs(0))
    >>> mixed = add_experts(model, width=3, num_experts=2, rngs=nnx.Rngs(1))
    >>> mixed.blocks[0].mlp.down.expert_up.shape
    (2, 3, 8)
  """
  for name, size in (('width', width), ('num_experts', num_experts)):
    if size < 1:
      raise ValueError(f'{name} must be at least 1, not {size}')
  return surgery.replace_projections(
    model,
    FFN_OUTPUTS,
    lambda p: MixedProjection(p, width, num_experts, rngs=rngs),
  )


def one_expert_at_a_time(
  inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """Gives each expert its own optimizer, and lets one expert take a step.

  Expert e gets the update that `inner` would give had it seen only e's
  gradients. The other experts' updates are zero and their optimizer states
  unchanged. (Masking one common Adam would freeze them too, but its bias
  correction would make a later expert's first steps several times too long.)

  Must be the outermost transformation.

  Args:
    inner: The optimizer of one expert.

  Returns:
    A transformation whose `update` takes `expert`, int32 [], and passes other
    extra arguments on. The first axis of every array indexes experts.

  Example:
    >>> tx = one_expert_at_a_time(optax.trace(0.5))
    >>> params = jnp.zeros((3, 2))
    >>> updates, _ = tx.update(
    ...     jnp.ones((3, 2)), tx.init(params), params, expert=jnp.int32(1))
    >>> updates.tolist()
    [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
  """
  inner = optax.with_extra_args_support(inner)

  def init(params):
    return jax.vmap(inner.init)(params)

  def update(updates, state, params=None, *, expert, **extras):
    def own(tree):
      return jax.tree.map(lambda x: x[expert], tree)

    ours, our_state = inner.update(
      own(updates), own(state), own(params), **extras
    )
    updates = jax.tree.map(
      lambda u, ours: jnp.zeros_like(u).at[expert].set(ours), updates, ours
    )
    state = jax.tree.map(lambda s, new: s.at[expert].set(new), state, our_state)
    return updates, state

  return optax.GradientTransformationExtraArgs(init, update)
