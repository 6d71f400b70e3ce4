"""Rows of value tables and of their optimizer states, kept, taken and put back.

Shape letters: N slots, V value dim, t selected slots.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from smft_jax import blocks
from smft_jax import lookup
from smft_jax import ranking


@functools.partial(jax.jit, static_argnames=('t', 'ties'), inline=True)
def keep_rows(
  updates: jax.Array, scores: jax.Array, t: int, ties: float = 0.0
) -> tuple[jax.Array, jax.Array]:
  """Keeps the updates of the top-t rows; the others become -0.0.

  Args:
    updates: [..., N, V].
    scores: [..., N].
    t: Rows to keep in each table.
    ties: Relative difference up to which scores are equal.

  Returns:
    The updates, and which rows were kept, bool [..., N].
  """

  def top(scores_N):
    scores_N = jnp.where(scores_N > 0, scores_N, 0)
    last = blocks.top_k(scores_N, t)[0][-1]
    above_N = scores_N > last * (1 + ties)
    tied_N = (scores_N >= last * (1 - ties)) & (scores_N > 0) & ~above_N
    room = t - jnp.sum(above_N)
    return above_N | (tied_N & (jnp.cumsum(tied_N) <= room))

  for _ in scores.shape[:-1]:
    top = jax.vmap(top)
  kept = top(scores)
  return jnp.where(kept[..., None], updates, jnp.full_like(updates, -0.0)), kept


def check_table(path: tuple[Any, ...], leaf: Any, t: int) -> None:
  """Raises a ValueError unless a leaf is [..., N, V] with at least t rows."""
  if jnp.ndim(leaf) < 2:
    raise ValueError(
      f'{jax.tree_util.keystr(path)} must be a value table [N, V], got shape '
      f'{jnp.shape(leaf)}: select tables by optax.masked or optax.partition.'
    )
  ranking.check_t(t, jnp.shape(leaf)[-2])


def init_rows(inner: optax.GradientTransformation, table: jax.Array) -> Any:
  """Makes the state of `update_rows`, with a step count for each row.

  Adam divides its moments by what they lack after so many steps; with one count
  for all rows, a row that is selected late would move up to 2.5 times as far.

  Args:
    inner: The optimizer.
    table: [N, V].

  Returns:
    `inner.init(table)`, in which a `count` next to moments is int32 [N], and
    moments are float32 if the table is bfloat16.

  Example:
    >>> from smft_jax import rowwise
    >>> rowwise.init_rows(optax.adam(0.1), jnp.zeros([3, 2]))[0].count.tolist()
    [0, 0, 0]
  """
  wide = lookup.wide_dtype(table.dtype)
  if table.dtype != wide:  # bfloat16 moments saturate
    table = jnp.zeros_like(table, wide)
  state = inner.init(table)
  leaves = jax.tree.leaves_with_path(state)
  moments = {path[:-1] for path, x in leaves if jnp.shape(x) == table.shape}

  def widen(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    name = getattr(path[-1], 'name', None) if path else None
    if name != 'count' or jnp.ndim(leaf) or path[:-1] not in moments:
      return leaf
    return jnp.full(table.shape[:1], leaf)

  return jax.tree.map_with_path(widen, state)


def state_kinds(opt_state: Any, shape: tuple[int, ...]) -> Any:
  """Tells what each array of a state holds: 'scalar', 'count' or 'rows'.

  Args:
    opt_state: State of an optimizer of a table.
    shape: (N, V).

  Raises:
    ValueError: If it holds anything else.
  """

  def kind(leaf: jax.Array) -> str:
    if not jnp.ndim(leaf):
      return 'scalar'
    if leaf.shape == shape:
      return 'rows'
    if leaf.shape == shape[:1] and jnp.issubdtype(leaf.dtype, jnp.integer):
      return 'count'
    raise ValueError(
      'update_rows needs an elementwise optimizer, but its state has an array'
      f' {leaf.shape} for a table {shape}: try optax.sgd or optax.adam.'
    )

  return jax.tree.map(kind, opt_state)


def take_rows(tree: Any, slots: jax.Array) -> Any:
  """Gathers the rows [t, V] and counts [t, 1] of a table and its state."""

  def take(leaf: jax.Array) -> jax.Array:
    if not jnp.ndim(leaf):
      return leaf
    # Filled, not clipped: an unused place must not add a real row's norm.
    rows = leaf.at[slots].get(mode='fill', fill_value=0)
    # A bfloat16 step near 0.03 is 1.2e-4.
    narrow = jnp.issubdtype(rows.dtype, jnp.floating) and rows.itemsize < 4
    rows = rows.astype(jnp.float32) if narrow else rows
    return rows[:, None] if leaf.ndim == 1 else rows

  return jax.tree.map(take, tree)


def step_rows(
  inner: optax.GradientTransformation,
  row_state: Any,
  rows: jax.Array,
  row_gradients: jax.Array,
  **extra_args: Any,
) -> tuple[jax.Array, Any]:
  """Steps what `take_rows` gathered."""
  updates, row_state = optax.with_extra_args_support(inner).update(
    row_gradients.astype(rows.dtype), row_state, rows, **extra_args
  )
  return optax.apply_updates(rows, updates), row_state


def put_rows(
  tree: Any, slots: jax.Array, rows: Any, rounding: jax.Array | None = None
) -> Any:
  """Scatters what `step_rows` returned into a table and its state.

  Args:
    tree: Table and state.
    slots: int32 [t].
    rows: What `step_rows` returned.
    rounding: PRNG key of `round_at_random`, for bfloat16; None rounds to the
      nearest.
  """

  def put(leaf: jax.Array, rows: jax.Array) -> jax.Array:
    if not jnp.ndim(leaf):
      return rows
    rows = rows.reshape(len(slots), *leaf.shape[1:])
    if rounding is not None and leaf.dtype == jnp.bfloat16:
      rows = round_at_random(rounding, rows)
    return leaf.at[slots].set(rows.astype(leaf.dtype), mode='drop')

  return jax.tree.map(put, tree, rows)


def round_at_random(key: jax.Array, x: jax.Array) -> jax.Array:
  """Rounds float32 numbers up or down to bfloat16, right on average.

  To the nearest, a step of less than 1 part in 512 would be lost every time.
  Numbers that bfloat16 holds stay what they are.

  Args:
    key: PRNG key.
    x: float32 [...].

  Returns:
    bfloat16 [...].

  Example:
    >>> from smft_jax import rowwise
    >>> x = jnp.full(10_000, 1.001)  # between 1 and 1.0078125
    >>> rounded = rowwise.round_at_random(jax.random.key(0), x)
    >>> float(abs(rounded.astype(jnp.float32).mean() - 1.001)) < 1e-4
    True
  """
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
  cut = (bits + noise) & jnp.uint32(0xFFFF0000)
  rounded = jax.lax.bitcast_convert_type(cut, jnp.float32)
  return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)
