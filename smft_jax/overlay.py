"""Reads of a value table in which each row of a batch has rows of its own.

Several versions of a table that differ in few rows are read at once: the rows
that differ lie beside the one table, which is never copied. An access whose
slot is among them reads the row there, every other access the table's.

Shape letters: N slots, V value dim, A accesses of a token, B batch, G versions,
M rows of a version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import lookup

# Fills versions up to the same number of rows: no slot has this id.
_UNUSED = np.iinfo(np.int32).max


class Overlay(NamedTuple):
  """Rows to read in place of a table's.

  Attributes:
    slots: int32 [G, M], of each version the slots that have other rows, in
      ascending order.
    rows: [G, M, V], those rows.
    which: int32 [B], the version that each row of a batch reads; -1 for the
      table as it is.
  """

  slots: jax.Array
  rows: jax.Array
  which: jax.Array


def make(
  versions: Sequence[tuple[np.ndarray, np.ndarray]], which: Sequence[int]
) -> Overlay:
  """Lays the rows of several versions of a table beside each other.

  Args:
    versions: Of each its slots, ascending integers [M], and its rows [M, V];
      M may differ. At least one.
    which: As in `Overlay`.

  Raises:
    ValueError: There is no version, or `which` names one that is not there.

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
        f'which holds {version}, but there are {len(versions)} versions: -1 is'
        f' the table as it is, and the last one is {len(versions) - 1}'
      )
  most = max(1, *(len(slots) for slots, _ in versions))
  slots_GxM = np.full((len(versions), most), _UNUSED, np.int32)
  first = versions[0][1]
  rows_GxMxV = np.zeros((len(versions), most, first.shape[1]), first.dtype)
  for version, (slots, rows) in enumerate(versions):
    slots_GxM[version, : len(slots)] = slots
    rows_GxMxV[version, : len(slots)] = rows
  return Overlay(
    jnp.asarray(slots_GxM),
    jnp.asarray(rows_GxMxV),
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
  """`lookup.read_rows`, of a version of the table for each row of a batch.

  What the table and what the overlay gives are summed apart and then added: the
  result is that of the version written out, but for rounding.

  Args:
    values: Value table, floats [N, V].
    overlay: The versions, and which one each row of the batch reads.
    slot_ids: Integers [B, ..., A], as there.
    weights: Floats [B, ..., A], as there.
    read: What reads the table: `lookup.read_rows`, or that of a mesh.

  Returns:
    Floats [B, ..., V] in the dtype of `values`.

  Raises:
    ValueError: If the batch is not that of the overlay.

  Example:
    >>> values = jnp.array([[1.0], [2.0], [4.0]])
    >>> rows = np.array([[8.0]], np.float32)
    >>> overlay = make([(np.array([2]), rows)], which=[-1, 0])
    >>> read_rows(
    ...     values, overlay, jnp.array([[0, 2], [0, 2]]), jnp.ones((2, 2))
    ... ).tolist()
    [[5.0], [9.0]]
  """
  if len(slot_ids) != len(overlay.which):
    raise ValueError(
      f'slot_ids are of a batch of {len(slot_ids)}, and the overlay of one of'
      f' {len(overlay.which)}.'
    )
  place, found = _find(overlay, slot_ids)
  below = read(values, slot_ids, jnp.where(found, 0, weights))
  rows_RxV = overlay.rows.reshape(-1, overlay.rows.shape[-1])
  above = lookup.read_rows(rows_RxV, place, jnp.where(found, weights, 0))
  wide = lookup.wide_dtype(values.dtype)
  return (below.astype(wide) + above.astype(wide)).astype(values.dtype)


def _find(overlay: Overlay, slot_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Where an access finds its row in the overlay's rows, and whether it does.

  Returns:
    int32 [B, ..., A] in [0, G * M), and bool [B, ..., A].
  """
  most = overlay.slots.shape[1]
  version_B = jnp.maximum(overlay.which, 0)
  slots_BxM = overlay.slots[version_B]
  flat_BxR = slot_ids.reshape(len(slot_ids), -1)
  place_BxR = jax.vmap(jnp.searchsorted)(slots_BxM, flat_BxR)
  place_BxR = jnp.minimum(place_BxR, most - 1).astype(jnp.int32)
  found_BxR = jnp.take_along_axis(slots_BxM, place_BxR, axis=1) == flat_BxR
  found_BxR &= (overlay.which >= 0)[:, None]
  place_BxR += version_B[:, None] * most
  return place_BxR.reshape(slot_ids.shape), found_BxR.reshape(slot_ids.shape)
