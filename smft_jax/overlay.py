"""Reads a different version of a value table for each row of a batch.

The versions differ from one table in few rows. Only these rows are stored, and
the table is never copied: an access whose slot is among them reads the stored
row, every other access the table's.

Shape letters: N slots, V value dim, A accesses of a token, B batch, G versions,
M rows of a version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import ids
from smft_jax import lookup

# Pads versions to the same number of rows; no slot has this id.
_UNUSED = np.iinfo(np.int32).max


class Overlay(NamedTuple):
  """Rows to read in place of a table's.

  Attributes:
    slots: int32 [G, M], the slots with other rows in each version, ascending.
    rows: [G, M, V], those rows.
    lessons: int32 [G, M], the lesson that taught each, as in
      `memory.SlotLessons`; only a quorum reads them.
    which: int32 [B], the version that each row of a batch reads; -1 for the
      unchanged table.
  """

  slots: jax.Array
  rows: jax.Array
  lessons: jax.Array
  which: jax.Array


def make(
  versions: Sequence[tuple[np.ndarray, ...]], which: Sequence[int]
) -> Overlay:
  """Makes an overlay of several versions of a table.

  Args:
    versions: At least one pair (slots, rows) or triple (slots, rows, lessons):
      ascending integers [M], [M, V] and integers [M]. M may differ. The rows of
      a pair count as one lesson.
    which: As in `Overlay`.

  Raises:
    ValueError: If there is no version, or `which` has an unknown one.

  Example:
    >>> rows = np.ones((2, 3), np.float32)
    >>> make([(np.array([4, 7]), rows)], which=[-1, 0]).slots.tolist()
    [[4, 7]]
  """
  if not versions:
    raise ValueError('an overlay needs at least one version of the table')
  for version in which:
    if not -1 <= version < len(versions):
      raise ValueError(
        f'which holds {version}, but there are {len(versions)} versions: use -1'
        f' (the unchanged table) to {len(versions) - 1}'
      )
  num_rows = max(1, *(len(version[0]) for version in versions))
  slots_GxM = np.full((len(versions), num_rows), _UNUSED, np.int32)
  first = versions[0][1]
  rows_GxMxV = np.zeros((len(versions), num_rows, first.shape[1]), first.dtype)
  lessons_GxM = np.ones(slots_GxM.shape, np.int32)
  for version, (slots, rows, *lessons) in enumerate(versions):
    slots_GxM[version, : len(slots)] = slots
    rows_GxMxV[version, : len(slots)] = rows
    if lessons:
      lessons_GxM[version, : len(slots)] = lessons[0]
  return Overlay(
    jnp.asarray(slots_GxM),
    jnp.asarray(rows_GxMxV),
    jnp.asarray(lessons_GxM),
    jnp.asarray(which, jnp.int32),
  )


def read_rows(
  values: jax.Array,
  overlay: Overlay,
  slot_ids: jax.Array,
  weights: jax.Array,
  read: Callable[
    [jax.Array, jax.Array, jax.Array], jax.Array
  ] = lookup.read_rows,
) -> jax.Array:
  """`lookup.read_rows` of a version of the table for each row of a batch.

  Sums what comes from the table and from the overlay separately, then adds the
  two: up to rounding, the result of reading the version itself.

  Args:
    values: Value table, floats [N, V].
    overlay: The versions, and which one each row of the batch reads.
    slot_ids: Integers [B, ..., A], as for `lookup.read_rows`.
    weights: Floats [B, ..., A].
    read: Reads the table: `lookup.read_rows`, or that of `sharded.lookup`.

  Returns:
    Floats [B, ..., V] in the dtype of `values`.

  Raises:
    ValueError: If the batch size or the length of rows is not the overlay's.

  Example:
    >>> values = jnp.array([[1.0], [2.0], [4.0]])
    >>> rows = np.array([[8.0]], np.float32)
    >>> overlay = make([(np.array([2]), rows)], which=[-1, 0])
    >>> read_rows(
    ...     values, overlay, jnp.array([[0, 2], [0, 2]]), jnp.ones((2, 2))
    ... ).tolist()
    [[5.0], [9.0]]
  """
  slot_ids = ids.as_int32(slot_ids, len(values))
  if len(slot_ids) != len(overlay.which):
    raise ValueError(
      f'slot_ids have a batch of {len(slot_ids)}, the overlay one of'
      f' {len(overlay.which)}.'
    )
  if overlay.rows.shape[-1] != values.shape[-1]:
    raise ValueError(
      f'the overlay has rows of {overlay.rows.shape[-1]} numbers, the table of'
      f' {values.shape[-1]}: it is of another table.'
    )
  place, found = _find(overlay, slot_ids)
  from_table = read(values, slot_ids, jnp.where(found, 0, weights))
  rows_RxV = overlay.rows.reshape(-1, overlay.rows.shape[-1])
  from_rows = lookup.read_rows(rows_RxV, place, jnp.where(found, weights, 0))
  wide = lookup.wide_dtype(values.dtype)
  return (from_table.astype(wide) + from_rows.astype(wide)).astype(values.dtype)


def read_lessons(
  lessons: jax.Array, overlay: Overlay | None, slot_ids: jax.Array
) -> jax.Array:
  """Tells which lesson taught each slot that a token reads.

  Args:
    lessons: int32 [N], the last lesson that taught each slot of the table, from
      1; 0 if none did.
    overlay: As for `read_rows`; None for the table alone.
    slot_ids: Integers [B, ..., A].

  Returns:
    int32 [B, ..., A].
  """
  slot_ids = ids.as_int32(slot_ids, len(lessons))
  taught_by = jnp.asarray(lessons).at[slot_ids].get(mode='promise_in_bounds')
  if overlay is None:
    return taught_by
  place, found = _find(overlay, slot_ids)
  return jnp.where(found, overlay.lessons.reshape(-1)[place], taught_by)


def _find(overlay: Overlay, slot_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Looks up each access in the overlay.

  Returns:
    Indices of its rows, int32 [B, ..., A] in [0, G * M), and whether the slot
    is there, bool [B, ..., A].
  """
  num_rows = overlay.slots.shape[1]
  version_B = jnp.maximum(overlay.which, 0)
  slots_BxM = overlay.slots[version_B]
  flat_BxR = slot_ids.reshape(len(slot_ids), -1)
  place_BxR = jax.vmap(jnp.searchsorted)(slots_BxM, flat_BxR).astype(jnp.int32)
  place_BxR = jnp.minimum(place_BxR, num_rows - 1)
  found_BxR = jnp.take_along_axis(slots_BxM, place_BxR, axis=1) == flat_BxR
  found_BxR &= (overlay.which >= 0)[:, None]
  place_BxR += version_B[:, None] * num_rows
  return place_BxR.reshape(slot_ids.shape), found_BxR.reshape(slot_ids.shape)
