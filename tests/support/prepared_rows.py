"""Texts, and folders of rows prepared from them in shards of few tokens.

  python -m tests.support.prepared_rows SIGNAL MODULE.FUNCTION CALL FLAG...

runs `python -m smft_jax.prepare FLAG...` with such shards, and signals itself
as `stopped_run` does.
"""

import contextlib
import functools
import json
import pathlib
import random
import signal
import sys
from unittest import mock

from smft_jax.data import prepared
from smft_jax.data import tokenizers
from smft_jax.prepare import __main__ as prepare
from smft_jax.prepare import work
from smft_jax.prepare import write
from smft_jax.runtime import program
from tests.support import stopped_run

WORDS = ('fog', 'rain', 'snow', 'sun', 'wind', 'sea', 'hill', 'moor', 'lane')


def texts(count: int, seed: int = 0) -> list[str]:
  """Texts of 1 to 40 words."""
  draw = random.Random(seed)
  return [
    ' '.join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(count)
  ]


def write_texts(path: pathlib.Path, found: list[str]) -> None:
  lines = [json.dumps({'text': text}) for text in found]
  path.write_text('\n'.join(lines) + '\n')


def write_tokenizer(folder: pathlib.Path) -> tokenizers.Tokenizer:
  """A folder with a tokenizer of `WORDS`."""
  folder.mkdir(exist_ok=True)
  tokenizer = tokenizers.train_word_level(WORDS)
  tokenizer.write(folder)
  return tokenizer


@contextlib.contextmanager
def small_shards(is_inline: bool = True):
  """Within the context, shards and pieces are small.

  Args:
    is_inline: Whether this process tokenises.
  """
  with contextlib.ExitStack() as stack:
    patch = functools.partial(mock.patch.object, write)
    stack.enter_context(patch('SHARD_TOKENS', 450))
    stack.enter_context(patch('PIECE_CHARS', 700))
    if is_inline:
      stack.enter_context(mock.patch.object(work, 'tokenize_all', _inline))
    yield


def _inline(pieces, form, workers):  # closed like what it stands for
  del workers
  for piece in pieces:
    yield work.tokenize(piece, form)


def run(*argv: str, is_inline: bool = True) -> int:
  """The program's exit code."""
  with small_shards(is_inline):
    return program.run(prepare.main, list(argv))


def make(folder: pathlib.Path, *flags: str, count: int = 60) -> pathlib.Path:
  """Writes texts, a tokenizer and rows; returns the folder of the rows."""
  write_tokenizer(folder / 'tokenizer')
  source = folder / 'texts.jsonl'
  write_texts(source, texts(count))
  out = folder / 'rows'
  assert run(*arguments(folder, *flags)) == 0
  assert prepared.is_folder(out)
  return out


def arguments(folder: pathlib.Path, *flags: str) -> list[str]:
  """The command line of `make`."""
  return [
    f'--out={folder}/rows',
    f'--tokenizer={folder}/tokenizer',
    f'{folder}/texts.jsonl',
    '--max_length=16',
    *flags,
  ]


def contents(folder: pathlib.Path):
  """The files of a folder of rows, but for the paths of their sources."""
  found = {
    path.name: path.read_bytes()
    for path in folder.iterdir()
    if path.name != prepared.MANIFEST
  }
  facts = prepared.read(folder).facts
  return found, {k: v for k, v in facts.items() if k != 'sources'}


def assert_same(found: pathlib.Path, expected: pathlib.Path) -> None:
  """Checks that two folders have the same rows."""
  assert contents(found) == contents(expected)


def again(root: pathlib.Path, mine: pathlib.Path) -> list[str]:
  """The command line that made a copy's rows, which names its source."""
  return [
    flag.replace(f'--out={root}', f'--out={mine}') for flag in arguments(root)
  ]


if __name__ == '__main__':
  stopped_run.stop_at(
    signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3])
  )
  with small_shards(is_inline=False):
    sys.exit(program.run(prepare.main, sys.argv[4:]))
