"""Selects rows of the value table, and updates them alone.

Most methods select slots at every step, by its batch (arXiv:2510.15103). A
method that is `per_document` selects them once, by all rows of the document:
its optimizer state is that of t rows, new with every document.

Shapes: N slots, V value dim, A accesses per token, t selected slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from smft_jax import optim
from smft_jax import selection
from smft_jax.sharded import lookup as sharded_lookup
from smft_jax.sharded import ranking as sharded_ranking
from smft_jax.training import background as background_lib
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib


def select(
  state: state_lib.TrainState, slot_ids: Sequence[jax.Array], mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Ranks the slots that were read, and selects the top t.

  Args:
    state: The state, with a method that ranks slots.
    slot_ids: int32 [B, L, A] of each memory layer.
    mask: bool [B, L], the tokens whose accesses count.

  Returns:
    int32 [t], as `ranking.top_slots` returns them, and int32 [], the number of
    slots that were read.
  """
  score, document_frequency = ranking_of(state)
  layout, select_slots = state_lib.layout_of(state), selection.select_slots
  if layout is not None:
    select_slots = functools.partial(sharded_ranking.select_slots, layout)
  return select_slots(
    score,
    jnp.concatenate(slot_ids, axis=-1),
    document_frequency,
    state.method.top_t,
    mask=mask,
    pointwise=state.method.pointwise,
  )


def ranking_of(
  state: state_lib.TrainState,
) -> tuple[Callable[[jax.Array, jax.Array], jax.Array], jax.Array]:
  """Returns (counts, document frequency) -> scores, and the frequency [N].

  A method that `grows_background` leaves alone what a lesson has taught.

  Raises:
    ValueError: If the method ranks no slots.
  """
  method, background = state.method, state.background
  if method.score is None or background is None:
    raise ValueError(f'method {method.name!r} cannot rank slots.')
  key = jax.random.fold_in(jax.random.key(0), state.step)
  rank = functools.partial(method.score, key)
  lessons = state_lib.slot_lessons(state.params)
  if method.grows_background and lessons is not None:
    background = background_lib.without_taught(background, lessons)
  documents = background.num_documents

  def score(counts: jax.Array, document_frequency: jax.Array) -> jax.Array:
    return rank(counts, method_lib.Background(document_frequency, documents))

  return score, background.document_frequency


def update(
  state: state_lib.TrainState,
  slots: jax.Array,
  gradients: jax.Array,
  good: jax.Array,
) -> tuple[jax.Array, Any]:
  """Updates the rows of the selected slots, unless a step is skipped.

  Args:
    state: The state before the step.
    slots: int32 [t].
    gradients: [t, V], of their rows.
    good: bool [], False to change nothing.

  Returns:
    The value table [N, V] and the optimizer state.
  """
  values, method = state_lib.value_table(state.params), state.method
  # Slots out of range are dropped, so a skipped step writes no row. Selecting
  # between two tables would copy the table.
  kept = jnp.where(good, slots, values.shape[0])
  if not method.per_document:
    values, opt_state = _update_table(
      state, method.optimizer, state.opt_state, kept, gradients, state.extras
    )
    return values, jax.tree.map(
      lambda new, old: jnp.where(good, new, old) if new.ndim == 0 else new,
      opt_state,
      state.opt_state,
    )
  inner = state.opt_state.inner
  rows = values.at[slots].get(mode='fill', fill_value=0)
  updates, changed = optax.with_extra_args_support(method.optimizer).update(
    gradients, inner, rows.astype(gradients.dtype), **state.extras
  )
  inner = jax.tree.map(functools.partial(jnp.where, good), changed, inner)
  values, _ = _update_table(
    state, optax.identity(), optax.EmptyState(), kept, updates, {}
  )
  return values, state_lib.DocumentSlots(slots, inner)


def _update_table(state, optimizer, opt_state, slots, gradients, extras):
  """`optim.update_rows` of the state's table, on a mesh or without."""
  values, layout = (
    state_lib.value_table(state.params),
    state_lib.layout_of(state),
  )
  update_rows = optim.update_rows
  if layout is not None:
    update_rows = functools.partial(sharded_lookup.update_rows, layout)
  # Used by bfloat16 tables only.
  rounding = jax.random.fold_in(jax.random.key(1), state.step)
  return update_rows(
    optimizer, opt_state, values, slots, gradients, rounding, **extras
  )
