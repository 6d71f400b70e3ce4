"""Optax transformations that change only the selected rows of a value table.

The same update for three kinds of trainer:

- `update_rows` gathers the selected rows and their optimizer state, updates
  them and scatters them back, without an [N, V] array. Our own step uses it.
- `keep_top_slots`, last in an optax chain, drops the updates of all other rows.
  For trainers that can pass scores to their optimizer.
- `sparse_memory_finetuning` wraps an optimizer and reads the access counts from
  the gradients. For trainers that pass gradients only.

Unselected rows keep their bits. An update of +0.0 would turn a parameter of
-0.0 into +0.0, so a dropped update is -0.0, which changes no float.

Reference: Lin et al., Continual Learning via Sparse Memory Finetuning,
arXiv:2510.15103.

Shape letters: N slots, V value dim, t selected slots.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from smft_jax import counting
from smft_jax import ids
from smft_jax import ranking
from smft_jax import rowwise
from smft_jax.finetuning import FinetuningState as FinetuningState
from smft_jax.finetuning import (
  sparse_memory_finetuning as sparse_memory_finetuning,
)
from smft_jax.rowwise import init_rows as init_rows


def keep_top_slots(t: int) -> optax.GradientTransformationExtraArgs:
  """Drops the updates of all but the t slots of highest score.

  Must be **last** in the chain, after the step size: later transformations such
  as weight decay could move unselected rows. Masking gradients instead of
  updates would let weight decay and moments move them too. The moments of
  unselected rows do change, because the optimizer sees the dense gradient; with
  `update_rows` they do not.

  `update` takes the keyword `slot_scores`: a tree like `updates`, with floats
  [N], for example from `ranking.tf_idf`, in place of [N, V]. Tables of several
  layers may be stacked, [L, N, V] with scores [L, N]; t slots are kept in each.
  Only scores above 0 qualify. Extra leaves of `slot_scores` are ignored, so the
  transformation works within `optax.masked` and `optax.partition`. So are other
  keywords.

  Args:
    t: Number of slots to keep in each table.

  Returns:
    A stateless `optax.GradientTransformationExtraArgs`. `init` and `update`
    raise a ValueError if a leaf is no table or has fewer than t rows;
    `update` raises a TypeError if `slot_scores` is missing and a ValueError if
    it does not match the updates.

  Raises:
    ValueError: If t is not an int of 1 or more.

  Example:
    >>> from smft_jax import optim
    >>> optimizer = optax.chain(optax.sgd(1.0), optim.keep_top_slots(t=1))
    >>> params = {'values': jnp.zeros([3, 2])}
    >>> updates, state = optimizer.update(
    ...     {'values': jnp.ones([3, 2])}, optimizer.init(params), params,
    ...     slot_scores={'values': jnp.array([0.1, 0.9, 0.0])})
    >>> optax.apply_updates(params, updates)['values'].tolist()
    [[0.0, 0.0], [-1.0, -1.0], [0.0, 0.0]]
  """
  ranking.check_t(t)

  def init(params: optax.Params) -> optax.EmptyState:
    for path, leaf in jax.tree.leaves_with_path(params):
      rowwise.check_table(path, leaf, t)
    return optax.EmptyState()

  def update(
    updates: optax.Updates,
    state: optax.EmptyState,
    params: optax.Params | None = None,
    *,
    slot_scores: Any,
    **extra_args: Any,
  ) -> tuple[optax.Updates, optax.EmptyState]:
    del params, extra_args
    scores_by_path = dict(jax.tree.leaves_with_path(slot_scores))

    def keep(path: counting.Path, leaf: jax.Array) -> jax.Array:
      rowwise.check_table(path, leaf, t)
      scores = scores_by_path.get(path)
      if scores is None or jnp.shape(scores) != leaf.shape[:-1]:
        found = 'nothing' if scores is None else f'shape {jnp.shape(scores)}'
        raise ValueError(
          f'slot_scores{jax.tree_util.keystr(path)} must have shape '
          f'{leaf.shape[:-1]}, got {found}.'
        )
      return rowwise.keep_rows(leaf, jnp.asarray(scores), t)[0]

    return jax.tree.map_with_path(keep, updates), state

  return optax.GradientTransformationExtraArgs(init, update)


def update_rows(
  inner: optax.GradientTransformation,
  opt_state: optax.OptState,
  table: jax.Array,
  slots: jax.Array,
  row_gradients: jax.Array,
  rounding: jax.Array | None = None,
  **extra_args: Any,
) -> tuple[jax.Array, optax.OptState]:
  """Applies an optimizer to the selected rows of a table.

  Gathers these rows, and those of every array in `opt_state` that has the
  table's shape, updates them in float32 and scatters them back. An unselected
  row keeps its bits and its moments (a lazy update). With a state from
  `init_rows` it keeps its step count, too, so that a row's first step is a
  first step whenever it comes; other scalars, such as a schedule's count,
  advance for all rows.

  Time and memory do not depend on N if the caller's jitted step donates the
  table and the state **and returns them in the same order**, for example as
  parts of one train state: jax pairs donated arrays with results of the same
  shape in order, and copies a table that it pairs with a moment. It also copies
  a table that the step reads for something `row_gradients` do not depend on.

  Args:
    inner: An elementwise or rowwise optimizer, such as `optax.sgd`,
      `optax.adam` or `optax.adamw`: the arrays of its state have the table's
      shape. Clipping by global norm sees the norm of the selected rows.
    opt_state: `init_rows(inner, table)`, or what the last call returned.
    table: Floats [N, V], in JAX or NumPy, as a checkpoint may return them.
    slots: Integers [t] from `ranking.top_slots`; those out of range are
      dropped.
    row_gradients: Floats [t, V] from `lookup.row_gradient`.
    rounding: PRNG key, another one at every step, to round a bfloat16 table up
      or down at random, so that steps too small for it count on average; None
      rounds to the nearest.
    **extra_args: Passed to `inner`.

  Returns:
    A pair `(table, opt_state)` of the same shapes and dtypes.

  Raises:
    ValueError: If shapes do not match, or the table holds no floats.

  Example:
    >>> from smft_jax import optim
    >>> sgd = optax.sgd(0.5)
    >>> table = jnp.zeros([3, 2])
    >>> table, state = optim.update_rows(
    ...     sgd, optim.init_rows(sgd, table), table, slots=jnp.array([2, 3]),
    ...     row_gradients=jnp.array([[1.0, 2.0], [9.0, 9.0]]))
    >>> table.tolist()
    [[0.0, 0.0], [0.0, 0.0], [-0.5, -1.0]]
  """
  table, row_gradients = jnp.asarray(table), jnp.asarray(row_gradients)
  opt_state = jax.tree.map(jnp.asarray, opt_state)
  slots = ids.as_int32(slots, name='slots')
  if table.ndim != 2 or row_gradients.shape != (*slots.shape, table.shape[1]):
    raise ValueError(
      'table, slots and row_gradients must have shapes [N, V], [t] and '
      f'[t, V], got {table.shape}, {slots.shape} and {row_gradients.shape}.'
    )
  if not jnp.issubdtype(table.dtype, jnp.floating):
    raise ValueError(f'table must hold floats, got {table.dtype}.')
  ranking.check_t(slots.shape[0], table.shape[0])
  slots = jnp.where(slots < 0, table.shape[0], slots)  # -1 is the last row
  rowwise.state_kinds(opt_state, table.shape)
  rows, row_state = rowwise.take_rows((table, opt_state), slots)
  rows, row_state = rowwise.step_rows(
    inner, row_state, rows, row_gradients, **extra_args
  )
  return rowwise.put_rows(
    (table, opt_state), slots, (rows, row_state), rounding
  )
