"""Checkpoints: one folder per step, complete or absent; the newest two stay.

  STEP/arrays         written by Orbax
  STEP/manifest.json  checksums of the arrays, sizes of the files, the owner and
                      notes (`manifest`)

A step is written as STEP.partial and renamed when complete. Orbax does not
notice a flipped byte; the manifest does, and the step before is restored. A
tree is stored flat, by the paths of its leaves: reading never runs code, and
every name is checked against those expected.

Saving returns when all is on disk, so metrics.jsonl and the step agree whenever
a run is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import errno
import os
import pathlib
import shutil
from typing import Any, TypeVar

from absl import logging
import jax
from orbax.checkpoint import v1 as ocp

from smft_jax import schema
from smft_jax.runtime import disk
from smft_jax.runtime import processes
from smft_jax.store import checksum
from smft_jax.store import manifest

Tree = TypeVar('Tree')
Facts = manifest.Facts
Shapes = Mapping[str, jax.ShapeDtypeStruct | jax.Array]

_KEPT = 2

# Names the exchange in messages of processes that wait.
_WHAT = 'a checkpoint'


def save(
  folder: pathlib.Path,
  step: int,
  tree: Any,
  owner: Facts | None = None,
  notes: Facts | None = None,
) -> None:
  """Writes `tree` as the newest step of `folder`, and keeps the one before.

  Args:
    folder: The folder of all steps.
    step: Number of the step; an existing one is not overwritten.
    tree: Arrays.
    owner: JSON that must be equal when the step is restored. For a config
      under 'config' the error names the keys that differ.
    notes: More JSON to store.

  Raises:
    OSError: With errno ENOSPC if the disk is full; older steps stay complete.
  """
  folder = folder.absolute()
  if processes.on_main(_WHAT, _prepare, folder, step):
    partial = folder / f'{step}.partial'
    try:
      _write(partial, step, flatten(tree), owner or {}, notes or {})
    except (OSError, ValueError) as error:
      if processes.is_main():
        shutil.rmtree(partial, ignore_errors=True)
      if not _is_full(error):
        raise
      raise OSError(
        errno.ENOSPC, f'no room to save step {step}', str(folder)
      ) from error
  processes.on_main(_WHAT, _finish, folder, step)


def _prepare(folder: pathlib.Path, step: int) -> bool:
  """Makes the folder; returns whether the step still has to be written."""
  folder.mkdir(parents=True, exist_ok=True)
  # A killed run left these half-written or half-removed.
  for unfinished in folder.glob('*.partial'):
    shutil.rmtree(unfinished)
  return not (folder / str(step)).exists()


def _finish(folder: pathlib.Path, step: int) -> None:
  """Renames the step, and removes those too old to keep."""
  partial = folder / f'{step}.partial'
  if partial.exists():
    partial.rename(folder / str(step))
    _sync(folder)
  for old in _steps(folder)[:-_KEPT]:
    dropped = folder / f'{old}.partial'
    (folder / str(old)).rename(dropped)
    shutil.rmtree(dropped)


def restore_newest(
  folder: pathlib.Path, like: Tree, owner: Facts | None = None
) -> tuple[int, Tree] | None:
  """Reads the newest undamaged step.

  Args:
    folder: The folder of all steps; need not exist.
    like: A tree of arrays with the structure, shapes, dtypes and shardings to
      restore.
    owner: As in `save`; None accepts any owner.

  Returns:
    The step and its tree, or None if there is no step.

  Raises:
    ValueError: If all steps are damaged, or the newest undamaged one has other
      arrays or another owner.
  """
  found = read_newest(folder, lambda unused: flatten(like), owner)
  if found is None:
    return None
  step, arrays, _ = found
  leaves = [arrays[name] for name in flatten(like)]
  return step, jax.tree.unflatten(jax.tree.structure(like), leaves)


def read_newest(
  folder: pathlib.Path,
  expected: Callable[[Mapping[str, Any]], Shapes],
  owner: Facts | None = None,
) -> tuple[int, dict[str, jax.Array], dict[str, Any]] | None:
  """Reads the newest undamaged step, with shapes that depend on what is stored.

  Args:
    folder: The folder of all steps; need not exist.
    expected: Maps the stored {'shape', 'dtype', 'checksum'} by name to the
      arrays to read: shapes, dtypes and shardings.
    owner: As in `save`; None accepts any owner.

  Returns:
    The step, its arrays by name and its notes, or None if there is no step.

  Raises:
    ValueError: As in `restore_newest`.
  """
  folder = folder.absolute()
  damaged: list[pathlib.Path] = []
  first = ''
  for step in reversed(processes.on_main(_WHAT, _steps, folder)):
    path = folder / str(step)
    try:
      arrays, notes = _read(path, expected, owner)
    except manifest.Damaged as error:
      logging.warning('checkpoint %s is damaged: %s', path, error)
      first = first or str(error)
      damaged.append(path)
      continue
    if damaged:
      processes.on_main(_WHAT, _put_aside, damaged)
      logging.warning('falling back to step %d in %s', step, folder)
    return step, arrays, notes
  if not damaged:
    return None
  raise schema.UserError(
    f'no checkpoint in {folder} is whole: {first}; remove the folder to start'
    ' again'
  )


def _put_aside(damaged: list[pathlib.Path]) -> None:
  """Renames damaged steps, so that the run can write them again."""
  for path in damaged:
    aside = path.with_name(f'{path.name}.damaged')
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)


def flatten(tree: Any) -> dict[str, jax.Array]:
  """Returns the leaves of a tree by the names they are stored under."""
  paths, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='.'): leaf
    for path, leaf in paths
  }


def _read(path: pathlib.Path, expected, owner: Facts | None):
  contents = _on_main(manifest.read, path)
  if owner is not None:
    manifest.check_owner(path, contents['owner'], owner)
  stored = contents['arrays']
  shapes = dict(expected(stored))
  for name in sorted(shapes.keys() ^ stored.keys()):
    where = 'the model lacks' if name in stored else 'it lacks'
    raise _refusal(path, f'{where} {name}')
  for name, leaf in shapes.items():
    shape, dtype = tuple(stored[name]['shape']), stored[name]['dtype']
    if shape != leaf.shape:
      raise _refusal(path, f'{name} is {shape}, not {leaf.shape}')
    if dtype != str(leaf.dtype):
      raise _refusal(path, f'{name} is {dtype}, not {leaf.dtype}')
  _on_main(manifest.check_files, path, contents['files'])
  why = ''
  try:
    arrays = ocp.load(
      path / 'arrays',
      {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        for name, x in shapes.items()
      },
    )
  except Exception as error:  # its type depends on where the damage is
    why = schema.one_line(error)[:300]
  # Each process reads its own part, so only one of them may find the damage.
  found_by_any = [found for found in processes.exchange(_WHAT, why) if found]
  if found_by_any:
    raise manifest.Damaged(found_by_any[0])
  for name, found in checksum.checksums(arrays).items():
    if found != stored[name]['checksum']:
      raise manifest.Damaged(
        f'the bytes of array {name} differ from those saved'
      )
  return arrays, contents['notes']


def _on_main(function: Callable[..., Any], *args: Any) -> Any:
  """Calls `processes.on_main` with a function that may raise `Damaged`."""

  def tried():
    try:
      return [function(*args), '']
    except manifest.Damaged as error:
      return [None, str(error)]

  result, why = processes.on_main(_WHAT, tried)
  if why:
    raise manifest.Damaged(why)
  return result


def _write(
  partial: pathlib.Path,
  step: int,
  arrays: Mapping[str, jax.Array],
  owner: Facts,
  notes: Facts,
) -> None:
  """Writes the folder of a step; only process 0 writes the manifest."""
  ocp.save(partial / 'arrays', dict(arrays))
  sums = checksum.checksums(arrays)
  if not processes.is_main():
    return
  manifest.write(partial, step, arrays, sums, owner, notes)
  _sync(partial)


def _refusal(path: pathlib.Path, why: str) -> ValueError:
  return ValueError(
    f'checkpoint {path} does not fit this run: {why}; remove {path.parent} to'
    ' start again'
  )


def _is_full(error: Exception) -> bool:
  """Returns whether the disk is full; Orbax raises a ValueError for that."""
  if isinstance(error, OSError):
    return error.errno in disk.FULL
  codes = (f"os_error_code='{code}'" for code in disk.FULL)
  return 'RESOURCE_EXHAUSTED' in str(error) or any(
    code in str(error) for code in codes
  )


def _sync(folder: pathlib.Path) -> None:
  """Flushes the names in a folder to disk."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _steps(folder: pathlib.Path) -> list[int]:
  if not folder.is_dir():
    return []
  return sorted(
    int(path.name) for path in folder.iterdir() if path.name.isdigit()
  )
