"""The pure training step: (state, batch) -> (state, metrics).

One step serves every method. `Method.update` says what is differentiated:
- full: the trainable parameters, with an ordinary optimizer;
- dense: the value table [N, V]; the optimizer chain ends in `keep_top_slots`;
- rows: only the reads [B, L, V]. Nothing below the lowest memory layer is
  differentiated and no table gradient exists: gradients of the t selected rows
  are built from the read gradients, and only those rows are written.

Shapes: B batch, L length, N slots, V value dim, A accesses per token.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from smft_jax import lookup
from smft_jax import memory
from smft_jax import ranking
from smft_jax.sharded import lookup as sharded_lookup
from smft_jax.sharded import ranking as sharded_ranking
from smft_jax.training import background as background_lib
from smft_jax.training import forward
from smft_jax.training import micro_batches
from smft_jax.training import rows as rows_lib
from smft_jax.training import state as state_lib


@functools.partial(
  jax.jit, donate_argnames='state', static_argnames='micro_batch_size'
)
def train_step(
  state: state_lib.TrainState,
  batch,
  hidden: jax.Array | None = None,
  micro_batch_size: int | None = None,
) -> tuple[state_lib.TrainState, dict[str, Any]]:
  """Takes one step; changes nothing if the loss or gradient is not finite.

  Args:
    state: The state; donated, so that the table is updated in place.
    batch: tokens int32 [B, L]; mask bool [B, L], False at padding; loss_weights
      float32 [B, L]; ranked, bool [B, L] or None, tokens whose accesses rank
      slots (None: all); segments, int32 [B, L] or None, numbers of the texts
      that share a row; counted, int32 [P] or None, as in `batches.Batch`.
    hidden: [B, L, D] from `forward.hidden_below_memory`, to save computing it
      again; only for methods that train nothing but values.
    micro_batch_size: Rows whose activations are kept at once, a divisor of B;
      None keeps all. The step is that of the whole batch.

  Returns:
    The next state and scalars: loss (mean over the loss weights), tokens,
    skipped_in_a_row; for the sparse updates also slots_accessed and
    slots_updated.
  """
  if state.method.update == 'rows':
    update = _rows_update
  else:
    update = _dense_update
  params, opt_state, good, metrics = update(
    state, batch, hidden, micro_batch_size
  )
  in_a_row = jnp.where(good, 0, state.skipped_in_a_row + 1)
  metrics['skipped_in_a_row'] = in_a_row
  metrics['tokens'] = jnp.sum(batch.mask)
  state = dataclasses.replace(
    state,
    step=state.step + 1,
    params=params,
    opt_state=opt_state,
    skipped=state.skipped + jnp.where(good, 0, 1),
    skipped_in_a_row=in_a_row,
  )
  return state_lib.shard(state, jax.lax.with_sharding_constraint), metrics


@functools.partial(jax.jit, donate_argnames='state')
def begin_document(
  state: state_lib.TrainState, batch, hidden: jax.Array | None, lesson
) -> state_lib.TrainState:
  """Selects the slots that all steps on a document update.

  Args:
    state: The state, of a method that is `per_document`; donated.
    batch: All rows of the document, as in `train_step`.
    hidden: As in `train_step`.
    lesson: Number of the document, from 1. With a quorum the slots are marked
      as taught by it.

  Returns:
    The state, with a new optimizer state and, if the method says so, a grown
    background.
  """
  _, accesses = forward.loss_and_accesses(
    state.graphdef, state.params, batch, hidden=hidden
  )
  slots, _ = rows_lib.select(state, accesses.slot_ids, _ranked(batch))
  params, background = state.params, state.background
  if state.method.grows_background:
    # What its texts read is then read often elsewhere, so that later documents,
    # with a name in common perhaps, rank it lower.
    background = background_lib.add(
      background,
      jnp.concatenate(accesses.slot_ids, axis=-1),
      _ranked(batch),
      layout=state_lib.layout_of(state),
    )
  marks, rest = nnx.split_state(params, memory.SlotLessons, ...)
  if marks:
    marks = jax.tree.map(
      lambda lessons: lessons.at[slots].set(lesson, mode='drop'), marks
    )
    params = nnx.merge_state(rest, marks)
  state = dataclasses.replace(
    state,
    params=params,
    background=background,
    opt_state=state_lib.for_document(
      state.method, slots, state_lib.value_table(params)
    ),
  )
  return state_lib.shard(state, jax.lax.with_sharding_constraint)


@jax.jit
def slot_scores(state: state_lib.TrainState, batch) -> jax.Array:
  """Computes the scores [N] by which a step with this batch selects slots.

  `ranking.top_slots` of them are the slots that the step changes.

  Args:
    state: As in `train_step`; not donated.
    batch: As in `train_step`.

  Raises:
    ValueError: If the method ranks no slots.
  """
  _, accesses = forward.loss_and_accesses(state.graphdef, state.params, batch)
  return _slot_scores(state, batch, accesses)[0]


def _rows_update(state: state_lib.TrainState, batch, hidden, size):
  """Updates the selected rows; makes no [N, V] array besides the table."""
  method = state.method
  total = jnp.sum(batch.loss_weights)

  def read_gradients_of(part, hidden):
    def loss_fn(perturbations):
      return forward.loss_and_accesses(
        state.graphdef, state.params, part, perturbations, hidden, total
      )

    zeros = _perturbations(state, part)
    (loss, accesses), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
      zeros
    )
    return loss, (forward.leaves(gradients), accesses)

  loss, (read_gradients, accesses) = micro_batches.apply(
    read_gradients_of, batch, hidden, size
  )
  metrics = {'loss': loss}
  if method.per_document:
    slots = state.opt_state.slots
  else:
    slots, metrics['slots_accessed'] = rows_lib.select(
      state, accesses.slot_ids, _ranked(batch)
    )
  layers = zip(read_gradients, accesses.slot_ids, accesses.weights, strict=True)
  layout = state_lib.layout_of(state)
  row_gradient = _with_layout(
    layout, lookup.row_gradient, sharded_lookup.row_gradient
  )
  gradients = _sum(row_gradient(*layer, slots) for layer in layers)
  good = _finite((loss, gradients))
  values, opt_state = rows_lib.update(state, slots, gradients, good)
  trainable, frozen = nnx.split_state(state.params, memory.MemoryValue, ...)
  params = nnx.merge_state(frozen, jax.tree.map(lambda _: values, trainable))
  metrics['slots_updated'] = jnp.sum(good & (slots < values.shape[0]))
  return params, opt_state, good, metrics


def _perturbations(state: state_lib.TrainState, batch) -> nnx.State:
  """Returns zeros of the shape of each memory layer's read."""
  shapes = jax.eval_shape(
    lambda params: nnx.capture(
      nnx.merge(state.graphdef, params), memory.ReadPerturbation
    )(batch.tokens, batch.mask)[1],
    state.params,
  )
  return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _dense_update(state: state_lib.TrainState, batch, hidden, size):
  """Updates whole arrays; the optimizer gets the slot scores."""
  method = state.method
  trainable, frozen = nnx.split_state(state.params, method.trainable, ...)
  total = jnp.sum(batch.loss_weights)

  def gradients_of(part, hidden):
    def loss_fn(trainable):
      params = nnx.merge_state(trainable, frozen)
      return forward.loss_and_accesses(
        state.graphdef, params, part, hidden=hidden, total=total
      )

    (loss, accesses), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
      trainable
    )
    return (loss, gradients), accesses

  (loss, gradients), accesses = micro_batches.apply(
    gradients_of, batch, hidden, size
  )
  good = _finite((loss, gradients))
  if method.penalty is not None:
    penalty, more = jax.value_and_grad(method.penalty)(trainable, state.extras)
    gradients = jax.tree.map(jnp.add, gradients, more)
    good &= _finite((penalty, more))
  metrics = {'loss': loss}
  extras = dict(state.extras)
  if method.update == 'dense':
    scores, num_accessed = _slot_scores(state, batch, accesses)
    extras['slot_scores'] = jax.tree.map(lambda _: scores, gradients)
    slots = ranking.top_slots(scores, method.top_t)
    metrics['slots_accessed'] = num_accessed
    metrics['slots_updated'] = jnp.sum(good & (slots < len(scores)))

  def update(trainable, opt_state):
    updates, opt_state = optax.with_extra_args_support(method.optimizer).update(
      gradients, opt_state, trainable, **extras
    )
    return optax.apply_updates(trainable, updates), opt_state

  # Selecting each of hundreds of arrays takes XLA a minute to compile.
  trainable, opt_state = jax.lax.cond(
    good, update, lambda *kept: kept, trainable, state.opt_state
  )
  return nnx.merge_state(trainable, frozen), opt_state, good, metrics


def _slot_scores(
  state: state_lib.TrainState, batch, accesses: forward.Accesses
):
  """Returns the scores [N] and the number of accessed slots."""
  score, document_frequency = rows_lib.ranking_of(state)
  slot_ids = jnp.concatenate(accesses.slot_ids, axis=-1)
  count_accesses = _with_layout(
    state_lib.layout_of(state),
    ranking.count_accesses,
    sharded_ranking.count_accesses,
  )
  counts = count_accesses(slot_ids, len(document_frequency), _ranked(batch))
  return score(counts, document_frequency), jnp.sum(counts > 0)


def _finite(tree: Any) -> jax.Array:
  """Returns whether every number is finite, bool []."""
  leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
  return functools.reduce(jnp.logical_and, leaves)


def _ranked(batch):
  """Returns the tokens whose accesses rank slots, bool [B, L]."""
  return batch.mask if batch.ranked is None else batch.ranked


def _with_layout(layout, whole, sharded):
  """Chooses the one-device or the mesh form of a function."""
  return whole if layout is None else functools.partial(sharded, layout)


def _sum(arrays: Iterable[jax.Array]) -> jax.Array:
  return functools.reduce(jnp.add, arrays)
