"""Saves what a run learned to a file, and applies or reverts it.

  python -m smft_jax.lesson save --workdir=runs/docqa --out=people.safetensors
  python -m smft_jax.lesson show people.safetensors
  python -m smft_jax.lesson apply people.safetensors --model=BASE --out=FOLDER
  python -m smft_jax.lesson revert people.safetensors --model=FOLDER --out=BACK
  python -m smft_jax.lesson merge A.safetensors B.safetensors --out=FILE

A model is a folder with params/STEP and tokenizer.json: a cached base, whose
folder `save` prints, or what `apply` wrote. The input model is not modified.
Several lessons are merged in the order given. Sums of three or more depend on
that order in the last bits, so revert them in the order in which they were
applied.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import os
import pathlib
import sys
from typing import Any

import numpy as np

from smft_jax import schema
from smft_jax.lesson import combine
from smft_jax.lesson import file as lesson_file
from smft_jax.lesson import models
from smft_jax.lesson import table as lesson_lib
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import program
from smft_jax.store import paths

_HELP = {
  '--workdir': 'workdir of a run of smft_jax.train',
  '--model': 'folder with params/STEP: a cached base, or what apply wrote',
  '--out': 'what to write; must not exist',
  'files': 'lesson files',
}
_COMMANDS = {
  'save': ('writes the lesson of a run', ['--workdir', '--out']),
  'show': ('describes lessons', ['files']),
  'apply': ('applies lessons to a model', ['files', '--model', '--out']),
  'revert': ('reverts applied lessons', ['files', '--model', '--out']),
  'merge': ('merges lessons into one', ['files', '--out']),
}


def main(argv: list[str]) -> None:
  """Runs the program."""
  arguments = _parse(argv)
  if arguments.command != 'show':
    out = paths.expand(arguments.out)
    _check_new(out)
  if arguments.command == 'save':
    lesson, base = models.from_run(paths.expand(arguments.workdir))
    lesson_file.write(out, lesson)
    print(f'{out}: {_size(lesson, out)}\nits base is {base}')
    return
  files = [paths.expand(file) for file in arguments.files]
  lessons = [lesson_file.read(path) for path in files]
  if arguments.command == 'show':
    for path, lesson in zip(files, lessons, strict=True):
      print('\n'.join([str(path), *_description(lesson, path)]))
    return
  digests = [lesson_file.digest(lesson) for lesson in lessons]
  merged = _merge(lessons, digests, files)
  if arguments.command == 'merge':
    lesson_file.write(out, merged)
    print(f'{out}: {_size(merged, out)}')
    return
  revert = arguments.command == 'revert'
  names = ', '.join(arguments.files)
  model = paths.expand(arguments.model)
  models.rewrite(model, out, merged, digests, names, revert=revert)
  print(f'{out}: {model} {"without" if revert else "with"} {names}')


def _merge(lessons, digests, files) -> lesson_lib.Lesson:
  """Merges lessons, and prints how many slots they share."""
  for index, path in enumerate(files):
    first = digests.index(digests[index])
    if first < index:
      raise schema.UserError(f'{path} is the same lesson as {files[first]}')
  merged = lessons[0]
  for lesson, path in zip(lessons[1:], files[1:], strict=True):
    shared = combine.overlap(merged, lesson)
    merged = models.named(path, combine.merge, merged, lesson)
    print(
      f'{path} shares {len(shared)} of its {len(lesson.slots)} slots with the'
      ' lessons before it'
      + ('; these get the sum of the changes' if len(shared) else '')
    )
  return merged


def _description(lesson: lesson_lib.Lesson, path: pathlib.Path) -> list[str]:
  """Describes a lesson in a line per property."""
  rows = [
    *(('learned', _run(run)) for run in lesson.runs),
    ('base', lesson.base[:12]),
    ('table', f'{lesson.table}, {lesson.num_slots} slots'),
    ('size', _size(lesson, path)),
  ]
  if len(lesson.slots):
    norms = np.linalg.norm(lesson.change, axis=1)
    before = np.linalg.norm(lesson.old.astype(np.float64), axis=1).mean()
    slot = lesson.slots[np.argmax(norms)]
    change = f'mean norm {norms.mean():.3g}, largest {norms.max():.3g} (slot'
    change += f' {slot}); mean norm of the rows before {before:.3g}'
    rows.append(('change of a row', change))
  return [f'  {name:<18}{text}' for name, text in rows]


def _run(run: Mapping[str, Any]) -> str:
  """Describes a run in one line."""
  try:
    config = run['config']
    method = config['method']
    settings = ', '.join(f'{k} = {v}' for k, v in method.items() if k != 'name')
    return (
      f'{run["documents"]} documents of {config["data"]["kind"]!r} in'
      f' {run["steps"]} steps, seed {config["seed"]}, by {method["name"]}'
      f' ({settings})'
    )
  except (KeyError, TypeError, AttributeError):  # another program's record
    return schema.brief(dict(run))


def _size(lesson: lesson_lib.Lesson, path: pathlib.Path) -> str:
  share = len(lesson.slots) / lesson.num_slots
  return (
    f'{len(lesson.slots)} rows ({share:.1%} of the table) of'
    f' {lesson.old.shape[1]} {lesson.old.dtype} numbers, before and after:'
    f' {path.stat().st_size / 1e6:.2f} MB'
  )


def _check_new(out: pathlib.Path) -> None:
  """Checks that `out` can be written, before anything is read."""
  if out.exists():
    raise schema.UserError(f'{out} exists; remove it, or choose another --out')
  if not out.parent.is_dir():
    raise schema.UserError(f'--out={out}: there is no folder {out.parent}')
  if not os.access(out.parent, os.W_OK):
    raise schema.UserError(f'--out={out}: {out.parent} cannot be written')


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the command line."""
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.lesson',
    description='Saves, applies, reverts and merges what runs learned.',
  )
  commands = parser.add_subparsers(dest='command', required=True)
  for command, (description, arguments) in _COMMANDS.items():
    added = commands.add_parser(command, help=description)
    for name in arguments:
      if name == 'files':
        added.add_argument(name, help=_HELP[name], nargs='+')
      else:
        added.add_argument(name, help=_HELP[name], required=True)
  if argv and not argv[0].startswith('-'):
    schema.one_of('command', argv[0], commands.choices)
  return parser.parse(argv)


if __name__ == '__main__':
  sys.exit(program.run(main))
