"""Batches that many processes make together: each only its own rows.

A batch is a pure function of the step, so that each process knows which rows
make it without a word to the others.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from smft_jax import processes
from smft_jax import sharding


def rows_here(layout: sharding.Layout | None, batch_size: int) -> np.ndarray:
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
  layout: sharding.Layout | None, batch: Any, batch_size: int
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
