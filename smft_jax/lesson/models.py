"""Makes lessons from runs, and applies them to model folders.

A model folder holds params/STEP (`store.checkpoint`) and the tokenizer's files:
a cached base, or what `python -m smft_jax.lesson apply` wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
import os
import pathlib
import shutil
from typing import Any
import uuid

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import memory
from smft_jax import methods
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.lesson import table as lesson_lib
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.runs import workdir as workdir_lib
from smft_jax.store import checkpoint
from smft_jax.store import manifest
from smft_jax.training import state as state_lib


def from_run(workdir: pathlib.Path) -> tuple[lesson_lib.Lesson, pathlib.Path]:
  """Returns the lesson of a finished or stopped run, and its base's folder.

  Raises:
    UserError: If the run's method changes more than rows of the value table, or
      the run has no checkpoint yet.
  """
  experiment = saved_run.load_experiment(workdir)
  if experiment.method is None or experiment.stream is None:
    raise schema.UserError(f'the run in {workdir} streamed no documents')
  if not experiment.method.only_values:
    known = [k for k, v in methods.METHODS.items() if v.Config.only_values]
    raise schema.UserError(
      f'the run in {workdir} used method {experiment.method.name!r}, which'
      f' changes more than value rows; lessons are made of'
      f' {" and ".join(map(repr, known))}'
    )
  base = saved_run.load_base(experiment, workdir)
  state = states.last_state(experiment, base, workdir)
  steps = int(state.step)
  config = config_lib.to_dict(experiment)
  config['base'].pop('cache_dir')  # a path on this machine
  run = {
    'config': config,
    'steps': steps,
    'documents': steps // experiment.stream.steps_per_document,
    'base model': base.fingerprint,
    'versions': workdir_lib.versions(),
  }
  table, fingerprint = identify(base.params)
  lesson = lesson_lib.difference(
    *(state_lib.value_table(params) for params in (base.params, state.params)),
    *(state_lib.slot_lessons(params) for params in (base.params, state.params)),
    table=table,
    base=fingerprint,
    runs=[run],
  )
  return lesson, base.folder


def identify(params: nnx.State) -> tuple[str, str]:
  """Returns the name of a model's value table and its `lesson.fingerprint`.

  Raises:
    UserError: If the model has no memory.
  """
  tables = checkpoint.flatten(nnx.filter_state(params, memory.MemoryValue))
  if not tables:
    raise schema.UserError('the model has no memory, which lessons are of')
  (table,) = tables
  return table, lesson_lib.fingerprint(checkpoint.flatten(params), table)


def rewrite(
  model: pathlib.Path,
  out: pathlib.Path,
  lesson: lesson_lib.Lesson,
  digests: Sequence[str],
  names: str,
  *,
  revert: bool = False,
) -> None:
  """Writes a copy of a model with a lesson applied or reverted, atomically.

  Its checkpoint records the lessons in it, so that it is not mistaken for the
  base.

  Args:
    model: Folder of a model; not modified.
    out: Folder to make.
    lesson: The lesson, possibly merged from several files.
    digests: `file.digest` of each of these files.
    names: Their names, for messages.
    revert: Whether to revert the lesson instead of applying it.

  Raises:
    UserError: If the lesson does not fit the model.
  """
  step, arrays, owner = _read(model)
  if lesson.table not in arrays:
    raise schema.UserError(
      f'{names}: the lesson is of another base: there is no'
      f' {lesson.table!r} in {model}'
    )
  base = lesson_lib.fingerprint(arrays, lesson.table)
  named(names, lesson_lib.check_base, lesson, base)
  change = lesson_lib.revert if revert else lesson_lib.apply
  table = named(names, change, arrays[lesson.table], lesson)
  applied = owner.pop('lessons', [])
  if not revert:
    applied = [*applied, *digests]
  elif set(digests) <= set(applied):
    applied = [digest for digest in applied if digest not in digests]
  else:
    raise schema.UserError(
      f'{names}: {model} has these rows from other lessons, or from a merged'
      ' one; revert exactly what was applied'
    )
  if applied:
    owner['lessons'] = applied
  unfinished = out.with_name(f'.{out.name}.{uuid.uuid4().hex[:8]}')
  try:
    arrays = {**arrays, lesson.table: table}
    if lesson_lib.LESSONS in arrays:
      marks = arrays[lesson_lib.LESSONS]
      new = jnp.asarray(lesson.old_lessons)
      if not revert:
        # Every run numbers its documents from 1; the model may have others.
        new = jnp.asarray(lesson.new_lessons)
        new = jnp.where(new > 0, new + jnp.max(marks), 0)
      arrays[lesson_lib.LESSONS] = marks.at[lesson.slots].set(new)
    checkpoint.save(unfinished / 'params', step, arrays, owner)
    for file in model.glob('*.json'):  # of the tokenizer
      shutil.copyfile(file, unfinished / file.name)
    os.rename(unfinished, out)
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def named(name: Any, function: Callable[..., Any], *arguments: Any) -> Any:
  """Calls a function and puts the name of a file before its ValueErrors."""
  try:
    return function(*arguments)
  except ValueError as error:
    raise schema.UserError(f'{name}: {error}') from None


def _read(folder: pathlib.Path):
  """Returns the step, arrays by name and owner of a model's checkpoint."""
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

  def shapes(stored: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    make = functools.partial(jax.ShapeDtypeStruct, sharding=device)
    return {k: make(tuple(v['shape']), v['dtype']) for k, v in stored.items()}

  found = checkpoint.read_newest(folder / 'params', shapes)
  if found is None:
    raise schema.UserError(
      f'{folder} holds no model: it has no params/STEP; --model takes a cached'
      ' base, whose folder `lesson save` prints, or what `lesson apply` wrote'
    )
  step, arrays, _ = found
  return step, arrays, manifest.read(folder / 'params' / str(step))['owner']
