"""Computes, applies and reverts lessons on arrays.

A lesson holds the slots that a run changed and their rows before and after, bit
for bit. `apply` requires the table to hold the rows before, `revert` the rows
after. A lesson therefore cannot be applied twice or to another base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax.sharded import layout as layout_lib
from smft_jax.store import checksum

# Name of `memory.SlotLessons` in a checkpoint.
LESSONS = 'lessons.value'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
  """What a run changed in a value table.

  Attributes:
    slots: int32 [M], the changed slots, ascending.
    old: [M, V], their rows before, in the table's dtype.
    new: [M, V], their rows after.
    old_lessons: int32 [M], which document of a run taught each slot before, as
      in `memory.SlotLessons`; zeros for a memory without a quorum.
    new_lessons: int32 [M], which one did after.
    num_slots: N of the table.
    table: Name of the table in a checkpoint, such as 'pool.value'.
    base: `fingerprint` of the model it was made from.
    runs: JSON records of the runs that made it; several after a merge.

  Raises:
    ValueError: If the shapes, dtypes or slots are inconsistent.
  """

  slots: np.ndarray
  old: np.ndarray
  new: np.ndarray
  old_lessons: np.ndarray
  new_lessons: np.ndarray
  num_slots: int
  table: str = ''
  base: str = ''
  runs: tuple[Mapping[str, Any], ...] = ()

  def __post_init__(self) -> None:
    slots, old, new = self.slots, self.old, self.new
    if slots.ndim != 1 or slots.dtype != np.int32:
      raise ValueError(f'slots must be int32 [M], not {kind(slots)}')
    if old.ndim != 2 or len(old) != len(slots):
      raise ValueError(f'old must be [{len(slots)}, V], not {kind(old)}')
    if kind(new) != kind(old):
      raise ValueError(f'new must be {kind(old)} like old, not {kind(new)}')
    for name in ('old_lessons', 'new_lessons'):
      if kind(getattr(self, name)) != kind(slots):
        raise ValueError(f'{name} must be {kind(slots)} like slots')
    ends = np.concatenate([[-1], slots, [self.num_slots]])
    if np.any(np.diff(ends) <= 0):
      raise ValueError(
        f'slots must be ascending and between 0 and {self.num_slots - 1}'
      )

  @property
  def change(self) -> np.ndarray:
    """float64 [M, V], the difference of the rows."""
    return self.new.astype(np.float64) - self.old.astype(np.float64)


def fingerprint(arrays: Mapping[str, jax.Array], table: str) -> str:
  """Hashes a model's parameters except what lessons change.

  Args:
    arrays: The parameters by name.
    table: The name of the value table.
  """
  changing = {table, LESSONS}
  rest = {k: array for k, array in arrays.items() if k not in changing}
  return checksum.fingerprint(rest)


def difference(
  old_values: jax.Array,
  new_values: jax.Array,
  old_lessons: jax.Array | None = None,
  new_lessons: jax.Array | None = None,
  *,
  table: str = '',
  base: str = '',
  runs: Sequence[Mapping[str, Any]] = (),
) -> Lesson:
  """Returns the lesson that turns one value table into another, bit for bit.

  Args:
    old_values: [N, V], the table before.
    new_values: [N, V], the table after, of the same dtype.
    old_lessons: int32 [N], `memory.SlotLessons` before; None without a quorum.
    new_lessons: int32 [N], those after.
    table: See `Lesson`, like `base` and `runs`.
    base: See `Lesson`.
    runs: See `Lesson`.

  Raises:
    ValueError: If the tables differ in shape or dtype.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.zeros((5, 2))
    >>> lesson = difference(values, values.at[3].set(1.5))
    >>> lesson.slots.tolist(), lesson.new.tolist()
    ([3], [[1.5, 1.5]])
  """
  if kind(old_values) != kind(new_values):
    raise ValueError(
      f'the table is {kind(old_values)} before and {kind(new_values)} after'
    )
  differing = checksum.differing_rows(old_values, new_values)
  if old_lessons is not None and new_lessons is not None:
    differing |= old_lessons != new_lessons
  slots = np.flatnonzero(layout_lib.to_numpy(differing)).astype(np.int32)

  def marks(lessons):
    if lessons is None:
      return np.zeros_like(slots)
    return layout_lib.to_numpy(lessons[slots])

  return Lesson(
    slots=slots,
    old=layout_lib.to_numpy(old_values[slots]),
    new=layout_lib.to_numpy(new_values[slots]),
    old_lessons=marks(old_lessons),
    new_lessons=marks(new_lessons),
    num_slots=len(old_values),
    table=table,
    base=base,
    runs=tuple(runs),
  )


def apply(values: jax.Array, lesson: Lesson) -> jax.Array:
  """Applies a lesson to a table.

  Args:
    values: [N, V], with the rows before the lesson; not modified.
    lesson: The lesson.

  Returns:
    [N, V], with the rows after it.

  Raises:
    ValueError: If the table has another shape or dtype, or other rows.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.zeros((5, 2))
    >>> lesson = difference(values, values.at[3].set(1.5))
    >>> apply(values, lesson)[3].tolist()
    [1.5, 1.5]
  """
  values = jnp.asarray(values)
  check_rows(values, lesson)
  return values.at[lesson.slots].set(lesson.new)


def check_rows(values: jax.Array, lesson: Lesson) -> None:
  """Raises a ValueError unless `apply` would accept the table."""
  differing = _num_differing(values, lesson, lesson.old)
  if differing and not _num_differing(values, lesson, lesson.new):
    raise ValueError('the lesson is already in this table')
  if differing:
    raise ValueError(
      f'{differing} of the {len(lesson.slots)} rows that the lesson changes are'
      ' not those it was made from: the table is of another base, or another'
      ' lesson changed them; merge lessons that overlap, and apply the result'
    )


def revert(values: jax.Array, lesson: Lesson) -> jax.Array:
  """Reverts an applied lesson, bit for bit.

  Args:
    values: [N, V], with the rows after the lesson; not modified.
    lesson: The lesson.

  Returns:
    [N, V], the table that the lesson was applied to.

  Raises:
    ValueError: If the table has another shape or dtype, or other rows.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.zeros((5, 2))
    >>> lesson = difference(values, values.at[3].set(1.5))
    >>> bool(jnp.all(revert(apply(values, lesson), lesson) == values))
    True
  """
  values = jnp.asarray(values)
  differing = _num_differing(values, lesson, lesson.new)
  if differing and not _num_differing(values, lesson, lesson.old):
    raise ValueError('the lesson is not in this table: it has the rows before')
  if differing:
    raise ValueError(
      f'{differing} of the {len(lesson.slots)} rows that the lesson changed'
      ' have other values: it is not in this table, or it was merged with'
      ' another lesson; revert exactly what was applied'
    )
  return values.at[lesson.slots].set(lesson.old)


def check_base(lesson: Lesson, base: str) -> None:
  """Raises a ValueError unless the lesson is of this base (`fingerprint`)."""
  if lesson.base != base:
    raise ValueError(
      f'the lesson is of another base: {lesson.base[:12] or "none"}, not'
      f' {base[:12] or "none"}'
    )


def _num_differing(values: jax.Array, lesson: Lesson, rows: np.ndarray) -> int:
  """Counts the lesson's slots whose rows differ from `rows` in any bit."""
  wanted = (lesson.num_slots, rows.shape[1])
  if values.shape != wanted or values.dtype != rows.dtype:
    raise ValueError(
      f'the lesson is of a table {rows.dtype} {list(wanted)}, not'
      f' {kind(values)}'
    )
  return int(np.sum(unlike(layout_lib.to_numpy(values[lesson.slots]), rows)))


def unlike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Tells which rows of two arrays differ in any bit."""
  if not a.size:
    return np.zeros(len(a), bool)
  bits_a, bits_b = (np.ascontiguousarray(x).view(np.uint8) for x in (a, b))
  return np.any(bits_a != bits_b, axis=1)


def kind(array: np.ndarray | jax.Array) -> str:
  """Names the dtype and shape of an array, for messages."""
  return f'{array.dtype} {list(array.shape)}'
