"""The forward pass of a training step: loss, and what memory layers read.

Shapes: B batch, L length, D model dim, A accesses per token.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import memory


class Accesses(NamedTuple):
  """Slots that the memory layers read in a forward pass, an entry per layer.

  Attributes:
    slot_ids: int32 [B, L, A] each.
    weights: float32 [B, L, A] each.
  """

  slot_ids: tuple[jax.Array, ...]
  weights: tuple[jax.Array, ...]


@functools.partial(jax.jit, static_argnames='graphdef')
def hidden_below_memory(
  graphdef: nnx.GraphDef, params: nnx.State, tokens, mask, segments=None
) -> jax.Array:
  """Computes the hidden states below the lowest memory layer.

  They do not depend on the value table.

  Args:
    graphdef: The model, a `transformer.Transformer`.
    params: Its Variables.
    tokens: int32 [B, L].
    mask: bool [B, L], False at padding.
    segments: int32 [B, L] or None, numbers of the texts that share a row.

  Returns:
    [B, L, D], for `step.train_step`.
  """
  return nnx.merge(graphdef, params).below_memory(tokens, mask, segments)


def loss_and_accesses(
  graphdef: nnx.GraphDef,
  params: nnx.State,
  batch,
  perturbations: nnx.State | None = None,
  hidden: jax.Array | None = None,
  total: jax.Array | None = None,
) -> tuple[jax.Array, Accesses]:
  """Computes the mean negative log-likelihood and the accesses.

  Args:
    graphdef: The model.
    params: Its Variables.
    batch: As in `step.train_step`.
    perturbations: Zeros added to each memory layer's read. The loss gradient
      with respect to them is the read gradient.
    hidden: From `hidden_below_memory`, to save computing it again.
    total: Loss weights to divide by; None takes the sum of the batch's.

  Returns:
    Loss in nats, float32 [], and the accesses.
  """
  model = nnx.merge(graphdef, params)
  read = nnx.capture(
    model.final_hidden, memory.SlotIds, memory.SlotWeights, init=perturbations
  )
  x, slot_ids, weights = read(batch.tokens, batch.mask, hidden, batch.segments)
  loss_weights, counted = batch.loss_weights, batch.counted
  if counted is None:
    # The last token predicts nothing; leaving it out would copy the others.
    following = jnp.pad(batch.tokens[:, 1:], ((0, 0), (0, 1)))
    nll = jnp.pad(model.nll(x, following)[:, :-1], ((0, 0), (1, 0)))
  else:  # of a large vocabulary the logits at the other tokens cost much
    loss_weights = loss_weights.reshape(-1)[counted]
    x = x.reshape(-1, x.shape[-1])[jnp.maximum(counted - 1, 0)]
    nll = model.nll(x, batch.tokens.reshape(-1)[counted])
  if total is None:
    total = jnp.sum(loss_weights)
  loss = jnp.sum(nll * loss_weights) / jnp.maximum(total, 1e-6)
  return loss, Accesses(leaves(slot_ids), leaves(weights))


def leaves(state: nnx.State) -> tuple[jax.Array, ...]:
  """Returns the arrays of captured state, in layer order."""
  return tuple(jax.tree.leaves(state))
