"""Tokenises text of any size into shards, which programs read row by row.

  python -m smft_jax.prepare --out=DIR --tokenizer=PATH SOURCE...

A SOURCE is what `config.data.running_text` may be: a file or a folder of JSON
lines, tables or plain text, or a split of a TFDS data set. PATH is a folder
with a tokenizer.json, or a GGUF file. DIR then stands wherever a config names a
source of running text (`config.data.running_text`, `config.background.corpus`).

The sources are read once, and only a part of them is in memory; files of plain
text and JSON arrays are read one by one, each as a whole. A run that was killed
is resumed by the same command, to the same bytes, whatever --workers. Run on a
finished folder, it compares every byte with its checksum and makes damaged
shards again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import os
import sys

from smft_jax import hf
from smft_jax import schema
from smft_jax.prepare import write
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import program
from smft_jax.store import paths


def main(argv: Sequence[str]) -> None:
  """Runs the program."""
  plan = _plan(parse(argv))
  stored = write.check(plan)
  with workdir_lib.claimed(plan.out, 'out'):
    found = write.write(plan, stored)
  print(
    f'{plan.out}: {found.num_tokens} tokens in {len(found)} rows and'
    f' {len(found.facts["shards"])} shards, hash {found.fingerprint()[:16]}'
  )


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Reads a command line.

  Raises:
    UserError: For any mistake.
  """
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.prepare',
    description='Tokenises text of any size into shards.',
  )
  add = parser.add_argument
  add('sources', nargs='+', metavar='SOURCE', help='file, folder or data set')
  add('--out', required=True, type=paths.expand, help='folder to write')
  add('--tokenizer', required=True, help='its folder or file, or a GGUF file')
  add('--max_length', type=int, default=512, help='most tokens in a row')
  add(
    '--packed',
    action='store_true',
    help='put several short texts into one row, as config.base.packed',
  )
  add('--data_dir', default='', help='the TFDS data directory')
  add(
    '--bad_input',
    default='refuse',
    choices=('refuse', 'skip'),
    help='whether to skip and count bad rows of sources',
  )
  add(
    '--workers',
    type=int,
    default=os.cpu_count() or 1,
    help='processes that tokenise; the result does not depend on them',
  )
  arguments = parser.parse(argv)
  for name, least in (('max_length', 2), ('workers', 1)):
    if getattr(arguments, name) < least:
      raise schema.UserError(
        f'--{name} must be at least {least}, not {getattr(arguments, name)}'
      )
  return arguments


def _plan(arguments: argparse.Namespace) -> write.Plan:
  return write.Plan(
    out=arguments.out,
    sources=tuple(arguments.sources),
    tokenizer=hf.load_tokenizer(arguments.tokenizer),
    max_length=arguments.max_length,
    packed=arguments.packed,
    data_dir=arguments.data_dir,
    bad_input=arguments.bad_input,
    workers=arguments.workers,
  )


if __name__ == '__main__':
  sys.exit(program.run(main))
