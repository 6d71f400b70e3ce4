"""Makes the batches of steps; each process makes its own rows.

A batch is a pure function of the step, so processes need not communicate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from smft_jax.data import batches
from smft_jax.data import encoded
from smft_jax.runtime import processes
from smft_jax.sharded import layout as layout_lib

# Batches of sorted rows are padded to a multiple of this.
_SORTED_LENGTHS = 32


def local_rows(layout: layout_lib.Layout | None, batch_size: int) -> np.ndarray:
  """Returns the rows of a batch that this process's devices hold.

  Args:
    layout: The mesh; without one, every row is local.
    batch_size: B.

  Returns:
    Ascending integers in [0, B).
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
  """Joins the local rows of all processes into global arrays.

  Args:
    layout: The mesh.
    batch: A tree of numpy arrays [local rows, ...], see `local_rows`.
    batch_size: B, the rows of all processes together.

  Returns:
    The tree with arrays [B, ...] on the mesh. A single process gets `batch`
    back unchanged.
  """
  processes.tick()
  if layout is None or processes.count() == 1:
    return batch
  local = local_rows(layout, batch_size)
  placed = layout.sharding(layout.batch((batch_size,)))

  def join(rows):
    def shard(index):
      wanted = np.arange(batch_size)[index[0]]
      return rows[np.searchsorted(local, wanted)]

    shape = (batch_size, *rows.shape[1:])
    return jax.make_array_from_callback(shape, placed, shard)

  return jax.tree.map(join, batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batches:
  """An endless series of padded batches, drawn by `batches.row_indices`.

  Attributes:
    rows: Rows to draw from, in memory or, as those of `prepared`, not. Of these
      a process reads only its own.
    batch_size: Rows in a batch.
    seed: Seed of the orders of the epochs.
    pad_id: The padding token.
    layout: The mesh whose replicas share a batch; None without one.
    sorted_steps: Steps whose rows are sorted by length together, so that little
      is padding; 1 for rows in random order.
  """

  rows: encoded.Rows
  batch_size: int
  seed: int
  pad_id: int
  layout: layout_lib.Layout | None = None
  sorted_steps: int = 1

  def batch(self, step: int) -> batches.Batch:
    """Makes the batch of a step. Each process makes its own part."""
    local = local_rows(self.layout, self.batch_size)
    chosen = self.row_indices(step)
    length = batches.bucket_length(self.rows.longest, 4)
    if self.sorted_steps > 1:  # few lengths, as each compiles a program
      longest = int(self.rows.lengths_of(chosen).max())
      length = min(length, batches.bucket_length(longest, _SORTED_LENGTHS))
    part = batches.pad(self.rows.take(chosen[local]), length, self.pad_id)
    return assemble(self.layout, part, self.batch_size)

  def num_tokens(self, step: int) -> int:
    """Counts the tokens of a step's batch, in all processes together."""
    return int(np.sum(self.rows.lengths_of(self.row_indices(step))))

  def row_indices(self, step: int) -> np.ndarray:
    """Returns the rows of a step's batch, int [B]."""
    # Consecutive steps draw consecutive rows of an epoch.
    part, place = divmod(step, self.sorted_steps)
    size = self.batch_size * self.sorted_steps
    chosen = batches.row_indices(len(self.rows), part, size, self.seed)
    if self.sorted_steps > 1:
      lengths = self.rows.lengths_of(chosen)
      chosen = chosen[np.argsort(-lengths, kind='stable')]
    start = place * self.batch_size
    return chosen[start : start + self.batch_size]
