"""Checkpoints: one folder per step, written by Orbax, the newest one kept.

Orbax writes into a temporary folder and renames it, so a step is there whole
or not at all. A tree is stored flat, by the paths of its leaves: reading never
runs code, and every name is checked against what the program expects.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Any, TypeVar

from absl import logging
import jax
from orbax.checkpoint import v1 as ocp

from smft_jax import train_step

Tree = TypeVar('Tree')


def save(folder: pathlib.Path, step: int, tree: Any) -> None:
  """Writes `tree` as the newest step of `folder`, then drops older ones.

  Args:
    folder: Where the steps are.
    step: Number of the step; one that is there already is left as it is.
    tree: Arrays.
  """
  folder = folder.absolute()
  # What a killed run left half-written would stand in this one's way.
  for unfinished in folder.glob('*.orbax-checkpoint-tmp*'):
    shutil.rmtree(unfinished)
  if not (folder / str(step)).exists():
    ocp.save(folder / str(step), _flatten(tree))
  for old in _steps(folder):
    if old < step:
      shutil.rmtree(folder / str(old))


def restore_newest(folder: pathlib.Path, like: Tree) -> tuple[int, Tree] | None:
  """Reads the newest step.

  Args:
    folder: Where the steps are; need not exist.
    like: A tree of arrays, of the structure, shapes, dtypes and shardings to
      restore to.

  Returns:
    The step and its tree, or None if there is none.

  Raises:
    ValueError: If the step cannot be read, or holds other arrays.
  """
  folder = folder.absolute()
  steps = _steps(folder)
  if not steps:
    return None
  path = folder / str(steps[-1])
  flat = _flatten(like)
  try:
    stored = ocp.metadata(path).metadata
    for name in sorted(flat.keys() ^ stored.keys()):
      where = 'the model lacks' if name in stored else 'it lacks'
      raise ValueError(f'{where} {name}')
    for name, leaf in flat.items():
      if stored[name].shape != leaf.shape:
        raise ValueError(f'{name} is {stored[name].shape}, not {leaf.shape}')
      if stored[name].dtype != leaf.dtype:
        raise ValueError(f'{name} is {stored[name].dtype}, not {leaf.dtype}')
    restored = ocp.load(
      path,
      jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        flat,
      ),
    )
  except Exception as error:
    raise ValueError(
      f'checkpoint {path} does not fit or is damaged: {error}; remove it to '
      'start again.'
    ) from error
  leaves = [restored[name] for name in flat]
  return steps[-1], jax.tree.unflatten(jax.tree.structure(like), leaves)


def save_state(
  folder: pathlib.Path, step: int, state: train_step.TrainState
) -> None:
  """Writes what training changes of a state, as `save` does."""
  save(folder, step, _changing(state))


def restore_state(
  folder: pathlib.Path, state: train_step.TrainState
) -> tuple[int | None, train_step.TrainState]:
  """The newest step of `save_state`, and the state there.

  Args:
    folder: Where the steps are; need not exist.
    state: A state of the same model and method.

  Returns:
    The step and its state; None and `state` as it is if there is none.

  Raises:
    ValueError: As `restore_newest` does.
  """
  found = restore_newest(folder, _changing(state))
  if found is None:
    return None, state
  step, changing = found
  logging.info('resumes after %d, from %s', step, folder)
  return step, dataclasses.replace(state, **changing)


def _changing(state: train_step.TrainState) -> dict[str, Any]:
  return {
    name: getattr(state, name) for name in ('params', 'opt_state', 'step')
  }


def _steps(folder: pathlib.Path) -> list[int]:
  if not folder.is_dir():
    return []
  return sorted(
    int(path.name) for path in folder.iterdir() if path.name.isdigit()
  )


def _flatten(tree: Any) -> dict[str, jax.Array]:
  """Leaves by their path, in tree order."""
  paths, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='.'): leaf
    for path, leaf in paths
  }
