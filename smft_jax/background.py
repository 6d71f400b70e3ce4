"""Counts a background in several jobs, whose counts add up.

  python -m smft_jax.background count --config=FILE --part=0/4 --out=0.npz
  python -m smft_jax.background merge --out=FILE.npz 0.npz 1.npz 2.npz 3.npz
  python -m smft_jax.background show FILE.npz

`count` makes the base of a config if need be, and counts a part of the batches
of `config.background`: of `--part=I/N` the I-th of N parts, from 0. Counts are
integers, so merged ones are those of one job to the last bit, and
`--config.background.counts=FILE.npz` gives them to a run. A file says what it
was counted with; files of another model, corpus or batch are refused. Batches
0-4 are those from 0 up to 3.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
import re
import sys

import numpy as np

from smft_jax import schema
from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.runs import background_cache
from smft_jax.runs import base as base_lib
from smft_jax.runs import base_cache
from smft_jax.runs import saved_run
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import processes
from smft_jax.runtime import program
from smft_jax.store import paths
from smft_jax.training import background as background_lib
from smft_jax.training import method as method_lib

_FLAGS = {
  'part': command_line.Flag(
    default='0/1', help='I/N counts the I-th of N parts, from 0'
  ),
  'out': command_line.Flag(default='', help='file to write, .npz'),
  **command_line.PROCESSES,
}


def count(argv: Sequence[str]) -> None:
  """Counts a part of a background."""
  invocation = command_line.parse(argv, _FLAGS, 'Counts part of a background.')
  flags = dict(invocation.flags)
  out, part = _out(flags.pop('out')), flags.pop('part')
  processes.initialize(**flags)
  experiment = config_lib.from_config_dict(invocation.config)
  settings = experiment.background
  if settings is None:
    raise schema.UserError('config.background is missing: nothing to count')
  batches = _batches(part, settings.num_batches)
  task = base_lib.make_task(experiment)
  base_cache.check(experiment)
  background_cache.count_batches(
    settings,
    saved_run.make_base(experiment, task),
    batches,
    out,
    max_length=experiment.base.max_length,
    seed=experiment.seed,
  )
  if processes.is_main():
    print(f'batches {batches.start}-{batches.stop} are in {out}')


def merge(argv: Sequence[str]) -> None:
  """Adds files of counts."""
  parser = arguments_lib.Parser(prog='python -m smft_jax.background merge')
  parser.add_argument('files', nargs='+', type=paths.expand, metavar='FILE')
  parser.add_argument('--out', required=True, help='file to write, .npz')
  arguments = parser.parse(argv)
  out = _out(arguments.out)
  if out.exists():
    raise schema.UserError(f'{out} exists; remove it, or choose another --out')
  statistics, provenance = add(arguments.files)
  background_lib.save(out, statistics, provenance)
  print(f'batches {provenance["batches"]} are in {out}')


def add(
  files: Sequence[pathlib.Path],
) -> tuple[method_lib.Background, dict[str, str | int]]:
  """Adds counts of different batches of one background.

  Args:
    files: Written by `count` or `merge`.

  Returns:
    Their sum, int64, and its provenance.

  Raises:
    UserError: If a file cannot be read, or is of another background or of
      batches that another file has, too.
  """
  read = [_read(file) for file in files]
  first = read[0][1]
  ranges: list[tuple[int, int, pathlib.Path]] = []
  for file, (_, provenance) in zip(files, read, strict=True):
    for key in background_lib.differences(provenance, first):
      if key != 'batches':
        raise schema.UserError(
          f'{file} was counted with {key} = {provenance.get(key)!r}, but'
          f' {files[0]} with {first.get(key)!r}'
        )
    ranges += [(*r, file) for r in _ranges(file, provenance)]
  ranges.sort()
  merged: list[list[int]] = []
  for (start, stop, file), before in zip(
    ranges, [None, *ranges[:-1]], strict=True
  ):
    if before is not None and start < before[1]:
      raise schema.UserError(
        f'{file} and {before[2]} both counted batch {start}'
      )
    if merged and merged[-1][1] == start:
      merged[-1][1] = stop
    else:
      merged.append([start, stop])
  spelled = ','.join(f'{start}-{stop}' for start, stop in merged)
  total = background_lib.total(*(statistics for statistics, _ in read))
  return total, first | {'batches': spelled}


def show(argv: Sequence[str]) -> None:
  """Prints what a file of counts holds."""
  parser = arguments_lib.Parser(prog='python -m smft_jax.background show')
  parser.add_argument('file', type=paths.expand, metavar='FILE')
  print('\n'.join(lines(*_read(parser.parse(argv).file))))


def lines(
  statistics: method_lib.Background, provenance: background_lib.Provenance
) -> list[str]:
  """Describes counts, a line for each of their properties."""
  frequency, accesses = statistics.document_frequency, statistics.accesses
  assert accesses is not None
  documents = int(statistics.num_documents)
  read = frequency > 0
  common = np.asarray(frequency) * 2 > documents
  rows = [
    *provenance.items(),
    ('documents', documents),
    ('accesses', int(np.sum(accesses))),
    ('slots', len(frequency)),
    ('slots read', f'{read.sum()} ({read.mean():.1%})'),
    ('slots read by over half of the documents', int(common.sum())),
  ]
  width = max(len(name) for name, _ in rows)
  return [f'{name:<{width}}  {value}' for name, value in rows]


def _read(
  file: pathlib.Path,
) -> tuple[method_lib.Background, dict[str, str | int]]:
  if not file.is_file():
    raise schema.UserError(f'there is no file {file}')
  try:
    return background_lib.read(file)
  except ValueError:
    raise schema.UserError(f'{file} is no file of counts') from None


def _ranges(
  file: pathlib.Path, provenance: background_lib.Provenance
) -> list[tuple[int, int]]:
  """Reads the batches that a file counted."""
  spelled = str(provenance.get('batches'))
  if not re.fullmatch(r'\d+-\d+(,\d+-\d+)*', spelled):
    raise schema.UserError(f'{file} does not say which batches it counted')
  pairs = (part.split('-') for part in spelled.split(','))
  return [(int(start), int(stop)) for start, stop in pairs]


def _batches(part: str, num_batches: int) -> range:
  """Returns the batches of a part, such as '0/4'."""
  found = re.fullmatch(r'(\d+)/(\d+)', part)
  index, parts = map(int, found.groups()) if found else (0, 0)
  if not index < parts <= num_batches:
    raise schema.UserError(
      f'--part={part} is no part of {num_batches} batches, such as --part=0/4'
    )
  return range(num_batches * index // parts, num_batches * (index + 1) // parts)


def _out(name: str) -> pathlib.Path:
  """Returns the file to write, in an existing folder."""
  path = paths.expand(name)
  if path.suffix != '.npz':
    raise schema.UserError(f'--out={name} must end in .npz')
  if not os.access(path.parent, os.W_OK):
    raise schema.UserError(f'--out: {path.parent} is no folder to write in')
  return path


COMMANDS = {'count': count, 'merge': merge, 'show': show}


def main(argv: Sequence[str]) -> None:
  """Runs the program."""
  if not argv or argv[0] in ('-h', '--help'):
    print(__doc__)
    return
  name = schema.one_of('the command', argv[0], COMMANDS)
  COMMANDS[name](argv[1:])


if __name__ == '__main__':
  sys.exit(program.run(main))
