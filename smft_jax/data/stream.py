"""Batches that many processes make together: each only its own rows.

A batch is a pure function of the step, so that each process knows which rows
make it without a word to the others.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.runtime import processes
from smft_jax.sharded import layout as layout_lib


def rows_here(layout: layout_lib.Layout | None, batch_size: int) -> np.ndarray:
  """Which rows of a batch the devices of this process take, in order.

  Args:
    layout: The mesh; None takes all rows.
    batch_size: B.

  Returns:
    Integers in [0, B).
  """
  every = np.arange(batch_size)
  if layout is None:
    return every
  placed = layout.sharding(layout.batch((batch_size,)))
  slices = placed.addressable_devices_indices_map((batch_size,)).values()
  return np.unique(np.concatenate([every[index] for index in slices]))


def assemble(
  layout: layout_lib.Layout | None, batch: Any, batch_size: int
) -> Any:
  """Batches of which each process has the rows of `rows_here`, as one.

  Args:
    layout: The mesh.
    batch: A tree of numpy arrays [rows here, ...].
    batch_size: B, rows in all processes together.

  Returns:
    The tree, its arrays [B, ...] on the mesh; as it was where this is the only
    process.
  """
  processes.tick()
  if layout is None or processes.count() == 1:
    return batch
  here = rows_here(layout, batch_size)
  placed = layout.sharding(layout.batch((batch_size,)))

  def whole(rows):
    def rows_of(index):
      wanted = np.arange(batch_size)[index[0]]
      return rows[np.searchsorted(here, wanted)]

    shape = (batch_size, *rows.shape[1:])
    return jax.make_array_from_callback(shape, placed, rows_of)

  return jax.tree.map(whole, batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batches:
  """Batches of rows without end, epochs in orders of their own.

  Attributes:
    rows: What to draw from.
    batch_size: Rows of a batch.
    seed: What the orders are made from.
    pad_id: Token that fills the padding.
    layout: The mesh whose replicas split a batch; None without one.
  """

  rows: encoding.Encoded
  batch_size: int
  seed: int
  pad_id: int
  layout: layout_lib.Layout | None = None

  def at(self, step: int) -> batches.Batch:
    """The batch of a step. Each process makes its own part of it."""
    length = batches.bucket_length(self.rows.longest, 4)
    part = batches.batch_at(
      self.rows,
      step,
      self.batch_size,
      self.seed,
      length,
      self.pad_id,
      here=rows_here(self.layout, self.batch_size),
    )
    return assemble(self.layout, part, self.batch_size)

  def rows_at(self, step: int) -> np.ndarray:
    """Which rows the batch of a step has, int [B]."""
    return batches.rows_at(len(self.rows), step, self.batch_size, self.seed)

  def tokens(self, chosen: np.ndarray) -> int:
    """Tokens in these rows."""
    return int(np.sum(self.rows.lengths[chosen]))
