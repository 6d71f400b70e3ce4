"""Lessons: the rows of a value table that a run changed, to apply or take back.

  python -m smft_jax.lesson save --workdir=runs/docqa --out=people.safetensors
  python -m smft_jax.lesson --help

A lesson is small, as sparse memory finetuning changes few rows: slots, the rows
before, the rows after, all bit for bit. Applying it asks that the table holds
the rows before, taking it back that it holds those after: a lesson cannot be
applied twice, to another base, or be taken back where it is not.

Two lessons of one base **merge** into one. A slot that only one of them changed
gets that one's row. A slot that both changed gets both changes, old + (a - old)
+ (b - old): each lesson moved the row by what its texts asked for, so that a
later row in place of an earlier one would take a part of that lesson back. (The
default run's stream in two halves of 25 documents, each from the base, 3588 of
their 9296 and 9724 slots shared: summed, they answer 92% and 89% of their
questions, alone 94% and 91%; with the later rows, 39% and 91%.) The order does
not matter. `overlap` tells which slots these are.

Several lessons can be read at once, without a copy of the table: `overlay`.
Their files are those of `lesson_file`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from smft_jax import overlay as overlay_lib
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import checksum


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
  """What a run changed of a value table.

  Attributes:
    slots: int32 [M], ascending: the changed slots.
    old: [M, V], their rows before, of the table's dtype.
    new: [M, V], their rows after.
    num_slots: N of the table.
    table: Name of the table in a checkpoint, such as 'pool'.
    base: `fingerprint` of the model that it belongs to.
    runs: What made it, as JSON: one entry, or more where lessons were merged.

  Raises:
    ValueError: If these do not fit together.
  """

  slots: np.ndarray
  old: np.ndarray
  new: np.ndarray
  num_slots: int
  table: str = ''
  base: str = ''
  runs: tuple[Mapping[str, Any], ...] = ()

  def __post_init__(self) -> None:
    slots, old, new = self.slots, self.old, self.new
    if slots.ndim != 1 or slots.dtype != np.int32:
      raise ValueError(f'slots must be int32 [M], not {_kind(slots)}')
    if old.ndim != 2 or len(old) != len(slots):
      raise ValueError(f'old must be [{len(slots)}, V], not {_kind(old)}')
    if _kind(new) != _kind(old):
      raise ValueError(f'new must be {_kind(old)} as old, not {_kind(new)}')
    ends = np.concatenate([[-1], slots, [self.num_slots]])
    if np.any(np.diff(ends) <= 0):
      raise ValueError(
        f'slots must ascend and lie in 0 to {self.num_slots - 1}'
      )

  @property
  def change(self) -> np.ndarray:
    """float64 [M, V], what is added to each row."""
    return self.new.astype(np.float64) - self.old.astype(np.float64)


def fingerprint(arrays: Mapping[str, jax.Array], table: str) -> str:
  """A hash of all of a model but its value table, which lessons change.

  Args:
    arrays: Its parameters by name, as `checkpoint.flatten` gives them.
    table: Name of the table among them.
  """
  rest = {name: array for name, array in arrays.items() if name != table}
  return checksum.fingerprint(rest)


def difference(
  old_values: jax.Array,
  new_values: jax.Array,
  *,
  table: str = '',
  base: str = '',
  runs: Sequence[Mapping[str, Any]] = (),
) -> Lesson:
  """The lesson that turns one value table into another, bit for bit.

  Args:
    old_values: [N, V], the table before.
    new_values: [N, V], the table after, of the same dtype.
    table: As in `Lesson`.
    base: As in `Lesson`.
    runs: As in `Lesson`.

  Raises:
    ValueError: If the tables are of different shapes or dtypes.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.zeros((5, 2))
    >>> lesson = difference(values, values.at[3].set(1.5))
    >>> lesson.slots.tolist(), lesson.new.tolist()
    ([3], [[1.5, 1.5]])
  """
  if _kind(old_values) != _kind(new_values):
    raise ValueError(
      f'the table is {_kind(old_values)} before and {_kind(new_values)} after'
    )
  differing = checksum.differing_rows(old_values, new_values)
  slots = np.flatnonzero(layout_lib.to_numpy(differing)).astype(np.int32)
  return Lesson(
    slots=slots,
    old=layout_lib.to_numpy(old_values[slots]),
    new=layout_lib.to_numpy(new_values[slots]),
    num_slots=len(old_values),
    table=table,
    base=base,
    runs=tuple(runs),
  )


def apply(values: jax.Array, lesson: Lesson) -> jax.Array:
  """The table with a lesson in it.

  Args:
    values: [N, V], which holds the rows before; it is left as it is.
    lesson: What to apply.

  Returns:
    [N, V].

  Raises:
    ValueError: If the table is of another shape or dtype, or holds other rows.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.zeros((5, 2))
    >>> lesson = difference(values, values.at[3].set(1.5))
    >>> apply(values, lesson)[3].tolist()
    [1.5, 1.5]
  """
  check_rows(values, lesson)
  return values.at[lesson.slots].set(lesson.new)


def check_rows(values: jax.Array, lesson: Lesson) -> None:
  """Raises what `apply` does, and makes no other table."""
  differing = _num_differing(values, lesson, lesson.old)
  if differing and not _num_differing(values, lesson, lesson.new):
    raise ValueError('the lesson is in this table already')
  if differing:
    raise ValueError(
      f'{differing} of the {len(lesson.slots)} rows that the lesson changes are'
      ' not those it was made from: the table is of another base, or another'
      ' lesson changed them; merge lessons that overlap, and apply the result'
    )


def revert(values: jax.Array, lesson: Lesson) -> jax.Array:
  """The table without a lesson that was applied.

  Args:
    values: [N, V], which holds the rows after; it is left as it is.
    lesson: What to take back.

  Returns:
    [N, V], bit for bit what the lesson was applied to.

  Raises:
    ValueError: If the table is of another shape or dtype, or holds other rows.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.zeros((5, 2))
    >>> lesson = difference(values, values.at[3].set(1.5))
    >>> bool(jnp.all(revert(apply(values, lesson), lesson) == values))
    True
  """
  differing = _num_differing(values, lesson, lesson.new)
  if differing and not _num_differing(values, lesson, lesson.old):
    raise ValueError('the lesson is not in this table: it has the rows before')
  if differing:
    raise ValueError(
      f'{differing} of the {len(lesson.slots)} rows that the lesson changed are'
      ' not those it left: it is not in this table, or was merged with another;'
      ' take back what was applied'
    )
  return values.at[lesson.slots].set(lesson.old)


def overlap(a: Lesson, b: Lesson) -> np.ndarray:
  """The slots that both lessons change, int32, ascending."""
  return np.intersect1d(a.slots, b.slots, assume_unique=True)


def merge(a: Lesson, b: Lesson) -> Lesson:
  """One lesson that does what two do.

  The change of a slot that both change is the sum of their changes, computed in
  float64 and rounded once to the table's dtype.

  Args:
    a: A lesson.
    b: Another one, of the same base.

  Returns:
    The lesson; it is the same in whatever order, but for that of `runs`.

  Raises:
    ValueError: If they are of different bases or tables.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.ones((5, 2))
    >>> a = difference(values, values.at[1].add(2.0).at[3].add(4.0))
    >>> b = difference(values, values.at[3].add(0.5))
    >>> merge(a, b).slots.tolist(), merge(a, b).new[:, 0].tolist()
    ([1, 3], [3.0, 5.5])
  """
  check_base(b, a.base)
  ours, theirs = ((x.table, x.num_slots, _kind(x.old[:0])) for x in (a, b))
  if ours != theirs:
    raise ValueError(
      f'the lessons are of different tables: {ours[0]!r} of {ours[1]} slots,'
      f' rows {ours[2]}, and {theirs[0]!r} of {theirs[1]}, rows {theirs[2]}'
    )
  both = overlap(a, b)
  of_a, of_b = np.isin(a.slots, both), np.isin(b.slots, both)
  differing = _num_unlike(a.old[of_a], b.old[of_b])
  if differing:
    raise ValueError(
      f'the lessons were made from different tables: {differing} of the'
      f' {len(both)} rows that both change differ before them'
    )
  added = b.change[of_b]
  added += a.change[of_a]  # first the two, so that the order does not count
  summed = (a.old[of_a].astype(np.float64) + added).astype(a.old.dtype)
  slots = np.concatenate([a.slots, b.slots[~of_b]])
  new = a.new.copy()
  new[of_a] = summed
  order = np.argsort(slots)
  return dataclasses.replace(
    a,
    slots=slots[order],
    old=np.concatenate([a.old, b.old[~of_b]])[order],
    new=np.concatenate([new, b.new[~of_b]])[order],
    runs=(*a.runs, *b.runs),
  )


def check_base(lesson: Lesson, base: str) -> None:
  """Raises a ValueError unless the lesson is of this base (`fingerprint`)."""
  if lesson.base != base:
    raise ValueError(
      f'the lesson is of another base: {_short(lesson.base)}, not'
      f' {_short(base)}'
    )


def overlay(
  lessons: Sequence[Lesson], which: Sequence[int]
) -> overlay_lib.Overlay:
  """Rows of several lessons, each for its rows of a batch; copies no table.

  Args:
    lessons: At least one, all of the table that is read.
    which: For each row of the batch the lesson that it reads, -1 for none.

  Returns:
    The argument `overlay` of `transformer.Transformer`.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.zeros((5, 1))
    >>> lesson = difference(values, values.at[3].set(1.5))
    >>> overlay_lib.read_rows(
    ...     values, overlay([lesson], [-1, 0]), jnp.full((2, 1), 3),
    ...     jnp.ones((2, 1))).tolist()
    [[0.0], [1.5]]
  """
  return overlay_lib.make([(x.slots, x.new) for x in lessons], which)


def _num_differing(values: jax.Array, lesson: Lesson, rows: np.ndarray) -> int:
  """How many rows of a table are not these, bit for bit."""
  wanted = (lesson.num_slots, rows.shape[1])
  if values.shape != wanted or values.dtype != rows.dtype:
    raise ValueError(
      f'the lesson is of a table {rows.dtype} {list(wanted)}, not'
      f' {_kind(values)}'
    )
  return _num_unlike(layout_lib.to_numpy(values[lesson.slots]), rows)


def _num_unlike(one: np.ndarray, other: np.ndarray) -> int:
  """How many rows of two arrays differ in any bit."""
  if not one.size:
    return 0
  bits = [np.ascontiguousarray(x).view(np.uint8) for x in (one, other)]
  return int(np.sum(np.any(bits[0] != bits[1], axis=1)))


def _kind(array: np.ndarray | jax.Array) -> str:
  return f'{array.dtype} {list(array.shape)}'


def _short(base: str) -> str:
  return base[:12] or 'none'
