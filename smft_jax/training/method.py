"""Describes a way of finetuning: what trains, its optimizer, a few hooks.

`training.step.train_step` takes the step of any method. Methods that differ
only in `hyperparameters` are equal, so `jax.jit` compiles one program for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any, ClassVar, NamedTuple

from flax import nnx
import jax
import optax

from smft_jax import schema

Extras = dict[str, Any]


class Background(NamedTuple):
  """Access statistics of the background corpus.

  Attributes:
    document_frequency: float32 [N], background documents that read each slot.
    num_documents: float32 [], |B|.
    accesses: float32 [N], reads of each slot. No ranking uses it; the memory's
      health does. None if it was not counted.
  """

  document_frequency: jax.Array
  num_documents: jax.Array
  accesses: jax.Array | None = None


class MethodConfig:
  """Base class of the methods' `Config`s; declares what a method is.

  Attributes:
    only_values: Whether the value table is all that a run changes.
    adds_parameters: Whether it adds modules to the model.
    ranks_slots: Whether it selects the top-t slots; its Config then has a `t`.
    keeps_weights: Whether all weights but the value table stay what they are.
  """

  name: str
  only_values: ClassVar[bool] = False
  adds_parameters: ClassVar[bool] = False
  ranks_slots: ClassVar[bool] = False
  keeps_weights: ClassVar[bool] = False

  @property
  def needs_background(self) -> bool:
    """Whether it reads document frequencies."""
    return False

  @property
  def marks_lessons(self) -> bool:
    """Whether it marks the slots that it teaches, which a quorum needs."""
    return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """One way of finetuning.

  Functions are compared by identity: build each structure once
  (`functools.cache`) and set rates with `dataclasses.replace`.

  Attributes:
    name: The method's name in a config.
    trainable: Type of the Variables that train; all others keep every bit.
    optimizer: Optimizer of the trainable parameters; for update 'rows', of the
      selected rows, elementwise. Its `update` gets `TrainState.extras` as extra
      arguments, `learning_rate` among them.
    update: 'full', 'dense' or 'rows', see `training.step`; or 'none': no steps,
      and questions are asked with the document in the prompt.
    top_t: Slots to update per step, for 'dense' and 'rows'.
    per_document: Whether 'rows' selects slots once per document, by all of its
      rows, instead of at every step; see `training.rows`.
    grows_background: Whether a document is background for later ones, if slots
      are selected `per_document`.
    score: (key, counts [N], background) -> scores [N], the ranking of slots.
    pointwise: Whether an accessed slot's score is the same when slots without
      accesses are left out.
    add_modules: (model, rngs) -> model with trainable modules added. Parameters
      of the model keep their paths.
    begin: (graphdef, params, batches) -> extras, computed once before the
      stream; `batches` is an endless iterator of pretraining batches.
    begin_document: (index, number of documents) -> extras that change with each
      document.
    penalty: (trainable, extras) -> scalar, added to the loss.
    hyperparameters: Numbers to put into `TrainState.extras`.
    replay_fraction: Share of each batch's rows drawn from pretraining text.
    decays: Whether `learning_rate` falls to zero over the last quarter of the
      steps on a document.
  """

  name: str
  trainable: type[nnx.Variable]
  optimizer: optax.GradientTransformation
  update: str = 'full'
  top_t: int = 0
  per_document: bool = False
  grows_background: bool = False
  score: Callable[[jax.Array, jax.Array, Any], jax.Array] | None = None
  pointwise: bool = False
  add_modules: Callable[[nnx.Module, nnx.Rngs], nnx.Module] | None = None
  begin: Callable[[nnx.GraphDef, nnx.State, Iterator[Any]], Extras] | None = (
    None
  )
  begin_document: Callable[[int, int], Extras] | None = None
  penalty: Callable[[nnx.State, Mapping[str, Any]], jax.Array] | None = None
  hyperparameters: Mapping[str, float] = dataclasses.field(
    default_factory=dict, compare=False
  )
  replay_fraction: float = dataclasses.field(default=0.0, compare=False)
  decays: bool = dataclasses.field(default=False, compare=False)


def scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
  """Scales updates by -learning_rate, an extra argument of `update`.

  Like `optax.scale_by_learning_rate`, but another rate needs no compilation.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = scale_by_given_rate()
    >>> updates, _ = tx.update(
    ...     jnp.ones(2), tx.init(jnp.ones(2)), learning_rate=jnp.float32(0.5))
    >>> updates.tolist()
    [-0.5, -0.5]
  """

  def init(params: optax.Params) -> optax.EmptyState:
    del params
    return optax.EmptyState()

  def update(updates, state, params=None, *, learning_rate, **unused):
    del params, unused
    scaled = jax.tree.map(
      lambda u: (-learning_rate * u).astype(u.dtype), updates
    )
    return scaled, state

  return optax.GradientTransformationExtraArgs(init, update)


def adamw(weight_decay: float) -> optax.GradientTransformationExtraArgs:
  """Returns AdamW that takes `learning_rate` as an extra argument."""
  return optax.with_extra_args_support(
    optax.chain(
      optax.scale_by_adam(),
      optax.add_decayed_weights(weight_decay),
      scale_by_given_rate(),
    )
  )


def check_replay_fraction(fraction: float) -> None:
  """Raises a UserError unless the fraction is in [0, 1)."""
  if not 0 <= fraction < 1:
    raise schema.UserError(
      f'replay_fraction must be at least 0 and below 1, not {fraction}'
    )
