"""Checkpoints: one folder per step, whole or not there, the newest two kept.

  STEP/arrays         written by Orbax
  STEP/manifest.json  what the step must hold: arrays with their checksums,
                      files with their sizes, whose it is, notes

A step is written as STEP.partial and renamed when it is complete. Orbax does
not notice a flipped byte; the manifest shows it, and the step before is taken.
A tree is stored flat, by the paths of its leaves: reading never runs code, and
every name is checked against what the program expects.

Saving waits until all is on disk: metrics.jsonl and the step then agree at
whatever moment a run is killed.
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

# What other processes are waited for at.
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
    folder: Where the steps are.
    step: Number of the step; one that is there already is left as it is.
    tree: Arrays.
    owner: What must be the same where it is restored, as JSON; under 'config'
      a config, of which a difference is named in full.
    notes: What else to store, as JSON.

  Raises:
    OSError: Of errno ENOSPC if the disk is full; older steps are whole then.
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
  """Makes the folder; whether the step is to be written."""
  folder.mkdir(parents=True, exist_ok=True)
  # What a killed run left half-written, or half-removed.
  for unfinished in folder.glob('*.partial'):
    shutil.rmtree(unfinished)
  return not (folder / str(step)).exists()


def _finish(folder: pathlib.Path, step: int) -> None:
  """Gives the step its name, and drops those too old to keep."""
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
  """Reads the newest step that is whole.

  Args:
    folder: Where the steps are; need not exist.
    like: A tree of arrays, of the structure, shapes, dtypes and shardings to
      restore to.
    owner: As in `save`; None asks for no owner.

  Returns:
    The step and its tree, or None if there is none.

  Raises:
    ValueError: If no step can be read, or the newest that can be holds other
      arrays, has another owner or is of a newer format.
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
  """What `restore_newest` does, for arrays whose shapes the step knows.

  Args:
    folder: Where the steps are; need not exist.
    expected: From the stored arrays' {'shape', 'dtype', 'checksum'} by name to
      the arrays to read: shapes, dtypes and shardings.
    owner: As in `save`; None asks for no owner.

  Returns:
    The step, its arrays by name and its notes, or None if there is none.

  Raises:
    ValueError: As `restore_newest` does.
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
      logging.warning('goes back to step %d in %s', step, folder)
    return step, arrays, notes
  if not damaged:
    return None
  older = f', nor is any of {len(damaged) - 1} older' if damaged[1:] else ''
  raise _refusal(damaged[0], first + older)


def _put_aside(damaged: list[pathlib.Path]) -> None:
  """Moves them out of the way of the steps that the run comes to again."""
  for path in damaged:
    aside = path.with_name(f'{path.name}.damaged')
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)


def flatten(tree: Any) -> dict[str, jax.Array]:
  """The leaves of a tree by the names they are stored by, in tree order."""
  paths, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='.'): leaf
    for path, leaf in paths
  }


def _read(path: pathlib.Path, expected, owner: Facts | None):
  contents = _on_main(manifest.read, path)
  manifest.check(path, contents, owner)
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
  except Exception as error:  # of many kinds, by where the damage is
    why = schema.one_line(error)[:300]
  # A process reads what its devices need, and may be the one to find damage.
  found_by_any = [found for found in processes.exchange(_WHAT, why) if found]
  if found_by_any:
    raise manifest.Damaged(found_by_any[0])
  for name, found in checksum.checksums(arrays).items():
    if found != stored[name]['checksum']:
      raise manifest.Damaged(f'the bytes of array {name} are not those saved')
  return arrays, contents['notes']


def _on_main(function: Callable[..., Any], *args: Any) -> Any:
  """`processes.on_main`, of a function that may find damage."""

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
  """Writes a step's folder. With many processes, one writes the manifest."""
  ocp.save(partial / 'arrays', dict(arrays))
  sums = checksum.checksums(arrays)
  if not processes.is_main():
    return
  manifest.write(partial, step, arrays, sums, owner, notes)
  _sync(partial)


def _refusal(path: pathlib.Path, why: str) -> ValueError:
  return ValueError(
    f'checkpoint {path} does not fit or is damaged: {why}; remove it to start '
    'again.'
  )


def _is_full(error: Exception) -> bool:
  """Whether there is no room; Orbax says so in the text of a ValueError."""
  if isinstance(error, OSError):
    return error.errno in disk.FULL
  codes = (f"os_error_code='{code}'" for code in disk.FULL)
  return 'RESOURCE_EXHAUSTED' in str(error) or any(
    code in str(error) for code in codes
  )


def _sync(folder: pathlib.Path) -> None:
  """Has the names in a folder written to the disk."""
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
