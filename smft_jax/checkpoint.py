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
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any, TypeVar

from absl import logging
import jax
from orbax.checkpoint import v1 as ocp

from smft_jax import checksum
from smft_jax import config as config_lib
from smft_jax import metrics
from smft_jax import processes
from smft_jax import schema

Tree = TypeVar('Tree')
Facts = Mapping[str, Any]
Shapes = Mapping[str, jax.ShapeDtypeStruct | jax.Array]

# Raise it when an older program would misread what this one writes.
FORMAT = 1

_KEPT = 2

# What other processes are waited for at.
_WHAT = 'a checkpoint'


class _Damaged(Exception):
  """A step that does not hold what its manifest says."""


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
    except _Damaged as error:
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
  manifest = _on_main(_read_manifest, path)
  if manifest['format'] > FORMAT:
    raise schema.UserError(
      f'checkpoint {path} is of format {manifest["format"]}, and this version'
      f' of smft_jax reads up to {FORMAT}: update it, or choose another'
      ' --workdir'
    )
  if owner is not None:
    _check_owner(path, manifest['owner'], owner)
  stored = manifest['arrays']
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
  _on_main(_check_sizes, path, manifest['files'])
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
    raise _Damaged(found_by_any[0])
  for name, found in checksum.checksums(arrays).items():
    if found != stored[name]['checksum']:
      raise _Damaged(f'the bytes of array {name} are not those saved')
  return arrays, manifest['notes']


def _on_main(function: Callable[..., Any], *args: Any) -> Any:
  """`processes.on_main`, of a function that may find damage."""

  def tried():
    try:
      return [function(*args), '']
    except _Damaged as error:
      return [None, str(error)]

  result, why = processes.on_main(_WHAT, tried)
  if why:
    raise _Damaged(why)
  return result


def _check_sizes(path: pathlib.Path, sizes: Mapping[str, int]) -> None:
  for name, size in sizes.items():
    file = path / name
    if not file.is_file():
      raise _Damaged(f'{file} is missing')
    if file.stat().st_size != size:
      raise _Damaged(f'{file} has {file.stat().st_size} bytes, not {size}')


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
  manifest = {
    'format': FORMAT,
    'step': step,
    'owner': owner,
    'notes': notes,
    'arrays': {
      name: {
        'shape': leaf.shape,
        'dtype': str(leaf.dtype),
        'checksum': sums[name],
      }
      for name, leaf in arrays.items()
    },
    'files': {
      file.relative_to(partial).as_posix(): file.stat().st_size
      for file in sorted(partial.rglob('*'))
      if file.is_file()
    },
  }
  manifest = metrics.to_json(manifest)
  metrics.write_json(
    partial / 'manifest.json', {'digest': _digest(manifest), **manifest}
  )
  _sync(partial)


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
  file = path / 'manifest.json'
  try:
    manifest = json.loads(file.read_text())
    digest = manifest.pop('digest')
  except FileNotFoundError:
    raise _Damaged(f'{file} is missing') from None
  except (OSError, ValueError, KeyError, AttributeError) as error:
    raise _Damaged(f'{file} cannot be read: {error!r}') from None
  if digest != _digest(manifest):
    raise _Damaged(f'{file} does not hold what was written')
  return manifest


def _digest(manifest: Facts) -> str:
  """A hash of the manifest without it; the same rule for every format."""
  return hashlib.sha256(
    json.dumps(manifest, sort_keys=True).encode()
  ).hexdigest()


def _check_owner(path: pathlib.Path, theirs: Facts, ours: Facts) -> None:
  if 'config' in theirs and 'config' in ours:
    differing = config_lib.differences(theirs['config'], ours['config'])
    if differing:
      raise schema.UserError(
        f'checkpoint {path} is of another config, with'
        f' {"; ".join(differing[:4])}: choose another --workdir'
      )
  for name in sorted((theirs.keys() | ours.keys()) - {'config'}):
    if theirs.get(name) != ours.get(name):
      raise schema.UserError(
        f'checkpoint {path} is of another {name}, {theirs.get(name)}, not'
        f' {ours.get(name)}: choose another --workdir'
      )


def _refusal(path: pathlib.Path, why: str) -> ValueError:
  return ValueError(
    f'checkpoint {path} does not fit or is damaged: {why}; remove it to start '
    'again.'
  )


def _is_full(error: Exception) -> bool:
  """Whether there is no room; Orbax says so in the text of a ValueError."""
  if isinstance(error, OSError):
    return error.errno in metrics.FULL
  codes = (f"os_error_code='{code}'" for code in metrics.FULL)
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
