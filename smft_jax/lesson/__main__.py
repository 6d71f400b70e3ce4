"""The program over `lesson`: what a run learned as a file, and back.

  python -m smft_jax.lesson save --workdir=runs/docqa --out=people.safetensors
  python -m smft_jax.lesson show people.safetensors
  python -m smft_jax.lesson apply people.safetensors --model=BASE --out=FOLDER
  python -m smft_jax.lesson revert people.safetensors --model=FOLDER --out=BACK
  python -m smft_jax.lesson merge A.safetensors B.safetensors --out=FILE

A model is a folder with params/STEP (`checkpoint`) and tokenizer.json: a cached
base, whose place `save` prints, or what `apply` wrote. Models are left as they
are: the result is another folder, there whole or not at all. Its checkpoint
says which lessons are in it, so that it is not taken for the base. Several
lessons are merged, in the order given; sums of three and more are rounded by
it, so take them back in the order in which they were applied.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import os
import pathlib
import shutil
import sys
from typing import Any
import uuid

from flax import nnx
import jax
import numpy as np

from smft_jax import memory
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.lesson import file as lesson_file
from smft_jax.lesson import table as lesson_lib
from smft_jax.runs import finetune
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import program
from smft_jax.store import checkpoint
from smft_jax.store import manifest
from smft_jax.training import step as step_lib

# Methods that change rows of the value table and nothing else.
METHODS = ('sparse_memory', 'values_only')


def main(argv: list[str]) -> None:
  """The program."""
  arguments = _parse(argv)
  if arguments.command != 'show':
    out = pathlib.Path(arguments.out)
    _check_new(out)
  if arguments.command == 'save':
    lesson, base = of_run(pathlib.Path(arguments.workdir))
    lesson_file.write(out, lesson)
    print(f'{out}: {_size(lesson, out)}\nits base is {base}')
    return
  paths = [pathlib.Path(file) for file in arguments.files]
  lessons = [read(path) for path in paths]
  if arguments.command == 'show':
    for path, lesson in zip(paths, lessons, strict=True):
      print('\n'.join(lines(lesson, path)))
    return
  merged = merge(lessons, paths)
  if arguments.command == 'merge':
    lesson_file.write(out, merged)
    print(f'{out}: {_size(merged, out)}')
    return
  applies = arguments.command == 'apply'
  named = ', '.join(arguments.files)
  digests = [lesson_file.digest(lesson) for lesson in lessons]
  model = pathlib.Path(arguments.model)
  rewrite(model, out, merged, digests, named, applies=applies)
  print(f'{out}: {model} {"with" if applies else "without"} {named}')


def read(path: pathlib.Path) -> lesson_lib.Lesson:
  """`lesson_file.read`, which names the nearest file where there is none."""
  if not path.exists():
    others = [other.name for other in path.parent.glob('*.safetensors')]
    close = schema.nearest(path.name, others)
    hint = f'; did you mean {path.with_name(close)}?' if close else ''
    raise schema.UserError(f'there is no lesson {path}{hint}')
  return lesson_file.read(path)


def of_run(workdir: pathlib.Path) -> tuple[lesson_lib.Lesson, pathlib.Path]:
  """The lesson of a run, finished or stopped, and its base's folder.

  Raises:
    UserError: If its method changes more than rows of the value table, or there
      is nothing of it yet.
  """
  experiment = workdir_lib.experiment_of(workdir)
  if experiment.method is None or experiment.stream is None:
    raise schema.UserError(f'the run in {workdir} streamed no documents')
  if experiment.method.name not in METHODS:
    raise schema.UserError(
      f'the run in {workdir} is of method {experiment.method.name!r}, which'
      f' changes more than value rows; lessons are made of'
      f' {" and ".join(map(repr, METHODS))}'
    )
  base = workdir_lib.base_of(experiment)
  state = finetune.last_state(experiment, base, workdir)
  steps = int(state.step)
  config = config_lib.to_dict(experiment)
  config['base'].pop('cache_dir')  # a place on this machine
  run = {
    'config': config,
    'steps': steps,
    'documents': steps // experiment.stream.steps_per_document,
    'base model': base.fingerprint,
    'versions': workdir_lib.versions(),
  }
  table, fingerprint = identity(base.params)
  lesson = lesson_lib.difference(
    step_lib.table(base.params),
    step_lib.table(state.params),
    table=table,
    base=fingerprint,
    runs=[run],
  )
  return lesson, base.folder


def identity(params) -> tuple[str, str]:
  """Name of a model's value table, and `lesson.fingerprint` of the rest."""
  values = memory.MemoryValue
  (table,) = checkpoint.flatten(nnx.filter_state(params, values))
  return table, lesson_lib.fingerprint(checkpoint.flatten(params), table)


def merge(
  lessons: Sequence[lesson_lib.Lesson], paths: Sequence[pathlib.Path]
) -> lesson_lib.Lesson:
  """All lessons in one; says how many slots more than one of them changed.

  Args:
    lessons: At least one.
    paths: Their files, for messages.

  Raises:
    UserError: If they cannot be merged, or one is given twice.
  """
  digests = [lesson_file.digest(lesson) for lesson in lessons]
  for index, path in enumerate(paths):
    if digests[index] in digests[:index]:
      first = paths[digests.index(digests[index])]
      raise schema.UserError(f'{path} is the lesson of {first} once more')
  merged = lessons[0]
  for lesson, path in zip(lessons[1:], paths[1:], strict=True):
    both = lesson_lib.overlap(merged, lesson)
    merged = _named(path, lesson_lib.merge, merged, lesson)
    print(
      f'{path} shares {len(both)} of its {len(lesson.slots)} slots with those'
      ' before it' + ('; these get the sum of the changes' if len(both) else '')
    )
  return merged


def rewrite(
  model: pathlib.Path,
  out: pathlib.Path,
  lesson: lesson_lib.Lesson,
  digests: Sequence[str],
  named: str,
  *,
  applies: bool,
) -> None:
  """Writes a model with a lesson in it, or one without it again.

  Args:
    model: Folder of a model.
    out: Folder to make.
    lesson: What is applied or taken back.
    digests: Of the files that the lesson is made of.
    named: Their names, for messages.
    applies: Whether to apply it, else it is taken back.

  Raises:
    UserError: If the lesson is not of this model, or not as it should be in it.
  """
  step, arrays, owner = _read_model(model)
  if lesson.table not in arrays:
    raise schema.UserError(
      f'{named}: the lesson is of another base: there is no'
      f' {lesson.table!r} in {model}'
    )
  base = lesson_lib.fingerprint(arrays, lesson.table)
  _named(named, lesson_lib.check_base, lesson, base)
  change = lesson_lib.apply if applies else lesson_lib.revert
  table = _named(named, change, arrays[lesson.table], lesson)
  there = owner.pop('lessons', [])
  if not applies and not set(digests) <= set(there):
    raise schema.UserError(
      f'{named}: {model} has these rows of other lessons, or of a merged one;'
      ' take back what was applied'
    )
  left = [d for d in there if d not in digests]
  if applies:
    left = [*there, *digests]
  if left:
    owner['lessons'] = left
  unfinished = out.with_name(f'.{out.name}.{uuid.uuid4().hex[:8]}')
  try:
    arrays = {**arrays, lesson.table: table}
    checkpoint.save(unfinished / 'params', step, arrays, owner)
    for tokenizer in model.glob('tokenizer*.json'):
      shutil.copyfile(tokenizer, unfinished / tokenizer.name)
    os.rename(unfinished, out)
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def lines(lesson: lesson_lib.Lesson, path: pathlib.Path) -> list[str]:
  """What a lesson is, for a person."""
  norms = np.linalg.norm(lesson.change, axis=1)
  before = np.linalg.norm(lesson.old.astype(np.float64), axis=1)
  told = [str(path)]
  told += [_row('learned', _told(run)) for run in lesson.runs]
  told += [
    _row('base', lesson.base[:12]),
    _row('table', f'{lesson.table}, {lesson.num_slots} slots'),
    _row('size', _size(lesson, path)),
  ]
  if len(norms):
    largest = int(np.argmax(norms))
    told += [
      _row(
        'change of a row',
        f'mean norm {norms.mean():.3g}, largest {norms[largest]:.3g} (slot'
        f' {lesson.slots[largest]}); rows had mean norm {before.mean():.3g}',
      ),
    ]
  return told


def _told(run: Mapping[str, Any]) -> str:
  """One line on a run."""
  config = run['config']
  method = config['method']
  settings = ', '.join(f'{k} = {v}' for k, v in method.items() if k != 'name')
  return (
    f'{run["documents"]} documents of {config["data"]["kind"]!r} in'
    f' {run["steps"]} steps, seed {config["seed"]}, by {method["name"]}'
    f' ({settings})'
  )


def _size(lesson: lesson_lib.Lesson, path: pathlib.Path) -> str:
  share = len(lesson.slots) / lesson.num_slots
  return (
    f'{len(lesson.slots)} rows ({share:.1%} of the table) of'
    f' {lesson.old.shape[1]} {lesson.old.dtype} numbers, before and after:'
    f' {path.stat().st_size / 1e6:.2f} MB'
  )


def _row(name: str, text: str) -> str:
  return f'  {name:<18}{text}'


def _read_model(folder: pathlib.Path):
  """Step, arrays by name and owner of a model's checkpoint."""
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

  def expected(stored: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    return {
      name: jax.ShapeDtypeStruct(
        tuple(one['shape']), one['dtype'], sharding=device
      )
      for name, one in stored.items()
    }

  found = checkpoint.read_newest(folder / 'params', expected)
  if found is None:
    raise schema.UserError(
      f'{folder} holds no model: it has no params/STEP; --model is a cached'
      ' base, whose place `lesson save` prints, or what `lesson apply` wrote'
    )
  step, arrays, _ = found
  owner = manifest.read(folder / 'params' / str(step))['owner']
  return step, arrays, owner


def _named(path: Any, function: Callable[..., Any], *arguments: Any) -> Any:
  """Calls a function whose errors do not know which file it is about."""
  try:
    return function(*arguments)
  except ValueError as error:
    raise schema.UserError(f'{path}: {error}') from None


def _check_new(out: pathlib.Path) -> None:
  """Checks that something can be written there, before anything is read."""
  if out.exists():
    raise schema.UserError(f'{out} exists; remove it, or choose another --out')
  if not out.parent.is_dir():
    raise schema.UserError(f'--out={out}: there is no folder {out.parent}')
  if not os.access(out.parent, os.W_OK):
    raise schema.UserError(f'--out={out}: {out.parent} cannot be written')


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  """Reads the command line."""
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.lesson',
    description='What a run changed, as a file.',
  )
  commands = parser.add_subparsers(dest='command', required=True)
  add = functools.partial(_add, commands)
  add('save', 'writes the lesson of a run', ['--workdir', '--out'])
  add('show', 'says what lessons are', ['files'])
  model = ['files', '--model', '--out']
  add('apply', 'writes a model with lessons in it', model)
  add('revert', 'writes a model without lessons that were applied', model)
  add(
    'merge', 'writes one lesson that does what several do', ['files', '--out']
  )
  if argv and not argv[0].startswith('-'):
    schema.one_of('command', argv[0], commands.choices)
  return parser.parse(argv)


_HELP = {
  '--workdir': 'where a run of smft_jax.train wrote',
  '--model': 'folder with params/STEP: a cached base, or what apply wrote',
  '--out': 'what to write; must not exist',
  'files': 'files of lessons',
}


def _add(commands, name: str, told: str, arguments: Iterable[str]) -> None:
  parser = commands.add_parser(name, help=told)
  for argument in arguments:
    more = {'nargs': '+'} if argument == 'files' else {'required': True}
    parser.add_argument(argument, help=_HELP[argument], **more)


if __name__ == '__main__':
  sys.exit(program.run(main))
