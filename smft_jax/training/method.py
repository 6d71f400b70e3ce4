"""What a way of finetuning is: a filter, an optimizer, and at most a few hooks.

Every method (`smft_jax.methods`) is a `Method`, and `train_step` takes the step
of any of them. Two methods that differ only in their `hyperparameters` are
equal, so that jit gives them one program: rates are data, structure is code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import math
from typing import Any, NamedTuple

from flax import nnx
import jax
import optax

Extras = dict[str, Any]


class Background(NamedTuple):
  """What the ranking knows of the background corpus.

  Attributes:
    document_frequency: float32 [N], background documents that read each slot.
    num_documents: float32 [], |B|.
    accesses: float32 [N], how often each slot was read: no ranking looks at
      it, `health` does. None where nobody counted.
  """

  document_frequency: jax.Array
  num_documents: jax.Array
  accesses: jax.Array | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """One way of finetuning: what trains, and how.

  Its functions are compared by identity: build a method of the same structure
  once (`functools.cache`), and give it rates by `dataclasses.replace`.

  Attributes:
    name: As in the config.
    trainable: Type of the Variables that train; all others stay bit for bit.
    optimizer: Applied to the trainable parameters; for update 'rows' to the
      chosen rows, elementwise. It may take what `TrainState.extras` holds as
      extra arguments, such as `learning_rate`.
    update: 'full', 'dense' or 'rows', see `train_step`; or 'none', which takes
      no steps: a document's questions are asked with its text before them.
    top_t: Slots to update per step; for 'dense' and 'rows'.
    score: (key, counts [N], background) -> scores [N]: the ranking of slots.
    pointwise: Whether the score of an accessed slot does not depend on slots
      that were not accessed, so that these can be left out.
    add_modules: (model, rngs) -> the model with modules added that train;
      parameters of the model keep their paths.
    begin: (graphdef, params, batches) -> extras: what is computed once, from
      the model before the stream and an endless stream of pretraining batches.
    begin_document: (index, number of documents) -> extras: what changes from
      document to document.
    penalty: (trainable, extras) -> scalar, added to the loss.
    hyperparameters: Numbers that go into `TrainState.extras`.
    replay_fraction: Share of a batch's rows that are pretraining's.
  """

  name: str
  trainable: type[nnx.Variable]
  optimizer: optax.GradientTransformation
  update: str = 'full'
  top_t: int = 0
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


def scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
  """Times -learning_rate, which `update` takes as an extra argument.

  A rate that is an argument, and no part of the transformation, can change
  without another compilation. It stands where `optax.scale_by_learning_rate`
  would.

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


def adamw(weight_decay: float = 0.1) -> optax.GradientTransformationExtraArgs:
  """AdamW by a given rate; 0.1 is the decay of arXiv 2510.15103's baselines."""
  return optax.with_extra_args_support(
    optax.chain(
      optax.scale_by_adam(),
      optax.add_decayed_weights(weight_decay),
      scale_by_given_rate(),
    )
  )


def check_rates(config: Any) -> None:
  """Checks the numbers that configs of methods have in common.

  Raises:
    ValueError: For a learning_rate that is not above 0 and finite, a
      weight_decay below 0, or a replay_fraction outside [0, 1).
  """
  if not 0 < config.learning_rate < math.inf:
    raise ValueError(
      f'learning_rate must be above 0 and finite, not {config.learning_rate}'
    )
  decay = getattr(config, 'weight_decay', 0.0)
  if not 0 <= decay < math.inf:
    raise ValueError(f'weight_decay must be at least 0, not {decay}')
  fraction = getattr(config, 'replay_fraction', 0.0)
  if not 0 <= fraction < 1:
    raise ValueError(
      f'replay_fraction must be at least 0 and below 1, not {fraction}'
    )
