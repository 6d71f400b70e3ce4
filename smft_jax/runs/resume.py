"""Saves and restores the training state of a run.

If only values train, a checkpoint holds just the rows of the table that differ
from the base, and which lesson taught each slot. The base is in the cache; the
checkpoint names it.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import memory
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import checkpoint
from smft_jax.store import checksum
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib

# What a step changes, besides the parameters.
_CHANGING = ('opt_state', 'step', 'skipped', 'skipped_in_a_row')
# And what it changes if the method grows it.
_BACKGROUND = 'background'

_SLOTS, _ROWS, _LESSONS = 'changed_slots', 'changed_rows', 'lessons'


def save(
  folder: pathlib.Path,
  state: state_lib.TrainState,
  owner: Mapping[str, Any],
  notes: Mapping[str, Any] | None = None,
  base_table: jax.Array | None = None,
) -> None:
  """Saves the parts of a state that training changes.

  Args:
    folder: Folder of the checkpoints, which are numbered by step.
    state: The state.
    owner: As in `checkpoint.save`.
    notes: As in `checkpoint.save`.
    base_table: [N, V]; if given, stores only the rows that differ from these.
      Right only if nothing else changes.

  Raises:
    OSError: As `checkpoint.save` does.
  """
  tree = _changing(state)
  if base_table is None:
    tree['params'] = state.params
  else:
    tree[_SLOTS], tree[_ROWS] = _changed(
      base_table, state_lib.value_table(state.params), state.step.sharding
    )
    tree[_LESSONS] = nnx.filter_state(state.params, memory.SlotLessons)
  checkpoint.save(folder, int(state.step), tree, owner, notes)


def restore(
  folder: pathlib.Path,
  state: state_lib.TrainState,
  owner: Mapping[str, Any],
  base_table: jax.Array | None = None,
) -> tuple[state_lib.TrainState, dict[str, Any]] | None:
  """Restores the newest intact checkpoint.

  Args:
    folder: Folder of the checkpoints; need not exist.
    state: The state before the first step, of the same model and method.
    owner: As in `checkpoint.save`.
    base_table: As in `save`; if given, the table of `state`.

  Returns:
    The state and the notes; None if there is none.

  Raises:
    ValueError: As `checkpoint.restore_newest` does.
  """
  like = _changing(state)
  if base_table is None:
    like['params'] = state.params
  else:
    like[_LESSONS] = nnx.filter_state(state.params, memory.SlotLessons)

  def expected(stored: Mapping[str, Any]) -> dict[str, Any]:
    shapes: dict[str, Any] = checkpoint.flatten(like)
    if base_table is not None and _SLOTS in stored:
      length = stored[_SLOTS]['shape'][0]
      place = state.step.sharding
      shapes[_SLOTS] = jax.ShapeDtypeStruct(
        (length,), jnp.int32, sharding=place
      )
      shapes[_ROWS] = jax.ShapeDtypeStruct(
        (length, base_table.shape[1]), base_table.dtype, sharding=place
      )
    return shapes

  found = checkpoint.read_newest(folder, expected, owner)
  if found is None:
    return None
  _, arrays, notes = found
  leaves = [arrays[name] for name in checkpoint.flatten(like)]
  changing = jax.tree.unflatten(jax.tree.structure(like), leaves)
  if base_table is not None:
    table = base_table.at[arrays[_SLOTS]].set(arrays[_ROWS])
    values, _, frozen = nnx.split_state(
      state.params, memory.MemoryValue, memory.SlotLessons, ...
    )
    changing['params'] = nnx.merge_state(
      frozen, changing.pop(_LESSONS), jax.tree.map(lambda _: table, values)
    )
  return dataclasses.replace(state, **changing), notes


def _changing(state: state_lib.TrainState) -> dict[str, Any]:
  """Returns what a step changes, without the parameters, by name."""
  names = [*_CHANGING]
  if state.method.grows_background:
    names.append(_BACKGROUND)
  return {name: getattr(state, name) for name in names}


def background_identity(background: method_lib.Background | None) -> str | None:
  """Returns a checksum of the background statistics that rank slots."""
  if background is None:
    return None
  ranked_by = background._asdict()
  del ranked_by['accesses']
  return ' '.join(checksum.checksums(ranked_by).values())


def _changed(old_NxV: jax.Array, new_NxV: jax.Array, place):
  """Returns the slots whose rows differ in any bit, and these rows.

  Padded to a power of two by repeating the last, so that few shapes are
  compiled and none is empty, which Orbax cannot store.
  """
  slots = np.flatnonzero(
    layout_lib.to_numpy(checksum.differing_rows(old_NxV, new_NxV))
  )
  if not slots.size:
    slots = np.zeros(1, np.int64)  # an unchanged row
  length = 1 << (len(slots) - 1).bit_length()
  slots = np.pad(slots, (0, length - len(slots)), mode='edge')
  slots_M = jax.device_put(slots.astype(np.int32), place)
  return slots_M, jax.device_put(new_NxV[slots_M], place)
