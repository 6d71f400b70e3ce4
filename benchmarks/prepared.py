"""Times and weighs prepared rows of corpora of growing size.

  python -m benchmarks.prepared [--sizes 10MB 1GB] [--folder DIR] [--workers N]
      [--out FILE.json]

For each size it generates a corpus of JSON lines, prepares it
(`python -m smft_jax.prepare`), and in a process of its own draws batches of
8 rows of 512 tokens, those of configs/pretrain.py on real text. Peak memory is
that of the largest process, its imports included. In DIR corpora and rows are
kept, and a second run only reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks import plot
from smft_jax import schema
from smft_jax.data import prepared
from smft_jax.data import stream
from smft_jax.data import tokenizers
from smft_jax.runtime import program
from smft_jax.store import paths

# Peak memory may be so many times that of the smallest corpus.
FLAT = 1.5
# Seconds from opening the folder to the first batch.
FIRST_S = 10

_UNITS = {'kB': 10**3, 'MB': 10**6, 'GB': 10**9}
_STEPS = 500
_VOCAB_SIZE = 4096


def num_bytes(size: str) -> int:
  """Parses a size.

  Example:
    >>> num_bytes('10MB')
    10000000
  """
  found = re.fullmatch(r'(\d+)(kB|MB|GB)', size)
  if not found:
    raise schema.UserError(f'{size!r} is no size, such as 10MB or 1GB')
  return int(found[1]) * _UNITS[found[2]]


def write_corpus(path: pathlib.Path, size: int, seed: int = 0) -> None:
  """Writes JSON lines with texts of 20 to 800 random words, most of them rare.

  Args:
    path: The file.
    size: Its bytes, about.
    seed: Seed of the words.
  """
  random = np.random.default_rng(seed)
  words, chances = harness.random_words(random)
  partial = path.with_suffix('.partial')
  written = 0
  with partial.open('w') as file:
    while written < size:
      chosen = words[random.choice(len(words), 100_000, p=chances)]
      lengths = random.integers(20, 800, 240)
      for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        text = ' '.join(chosen[end - length : end])
        written += file.write(json.dumps({'text': f'{text}.'}) + '\n')
        if end > len(chosen) or written >= size:
          break
  partial.replace(path)


def train_tokenizer(corpus: pathlib.Path, folder: pathlib.Path) -> None:
  """Trains a tokenizer on the first texts of a corpus."""
  with corpus.open() as file:
    texts = [
      json.loads(line)['text']
      for line, _ in zip(file, range(500), strict=False)
    ]
  folder.mkdir(exist_ok=True)
  tokenizers.train_byte_level_bpe(texts, _VOCAB_SIZE).write(folder)


def prepare(
  folder: pathlib.Path, size: str, workers: int
) -> dict[str, float | int]:
  """Prepares a corpus; returns its seconds and peak memory."""
  began = time.perf_counter()
  started = subprocess.Popen(
    [sys.executable, '-m', 'smft_jax.prepare', f'--workers={workers}']
    + [f'--out={folder}/rows-{size}', f'--tokenizer={folder}/tokenizer']
    + [f'{folder}/corpus-{size}.jsonl'],
    stdout=subprocess.DEVNULL,
  )
  _, status, used = os.wait4(started.pid, 0)
  started.returncode = os.waitstatus_to_exitcode(status)
  if started.returncode:
    raise schema.UserError(f'preparing {size} failed, see above')
  return {
    'prepare_s': time.perf_counter() - began,
    'prepare_peak_mb': used.ru_maxrss / 1024,
  }


def read(folder: pathlib.Path) -> dict[str, float | int]:
  """Draws batches; returns the time to the first one and that of others."""
  began = time.perf_counter()
  rows = prepared.read(folder)
  texts = stream.Batches(rows=rows, batch_size=8, seed=0, pad_id=0)
  texts.batch(0)
  first_s = time.perf_counter() - began
  began, tokens = time.perf_counter(), 0
  for step in range(1, _STEPS):
    texts.batch(step)
    tokens += texts.num_tokens(step)
  return {
    'rows': len(rows),
    'tokens': rows.num_tokens,
    'shards': len(rows.facts['shards']),
    'first_batch_s': first_s,
    'batch_s': (time.perf_counter() - began) / (_STEPS - 1),
    'tokens_per_s': tokens / (time.perf_counter() - began),
    'read_peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
  }


def measure(
  folder: pathlib.Path, sizes: Sequence[str], workers: int
) -> dict[str, dict[str, Any]]:
  """Measures each size, in processes of their own."""
  results = {}
  for size in sizes:
    corpus = folder / f'corpus-{size}.jsonl'
    if not corpus.exists():
      write_corpus(corpus, num_bytes(size))
    if not (folder / 'tokenizer').exists():
      train_tokenizer(corpus, folder / 'tokenizer')
    kept = folder / f'preparing-{size}.json'
    if not kept.exists():
      kept.write_text(json.dumps(prepare(folder, size, workers)))
    done = subprocess.run(
      [sys.executable, '-m', 'benchmarks.prepared', '--read']
      + [f'{folder}/rows-{size}'],
      check=True,
      stdout=subprocess.PIPE,
      text=True,
    )
    results[size] = json.loads(kept.read_text()) | json.loads(done.stdout)
  return results


def main(argv: Sequence[str]) -> None:
  """Runs the program."""
  options = harness.parse(
    'Prepared rows of corpora of growing size.',
    argv,
    sizes=dict(nargs='+', default=['10MB', '1GB'], help='sizes of corpora'),
    folder=dict(type=paths.expand, help='keeps corpora and rows; none: temp'),
    workers=dict(type=harness.positive, default=2, help='of preparing'),
    read=dict(type=paths.expand, help='only draw batches of this folder'),
  )
  if options.read:
    print(json.dumps(read(options.read)))
    return
  sizes = sorted(options.sizes, key=num_bytes)
  with tempfile.TemporaryDirectory() as temporary:
    folder = options.folder or pathlib.Path(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    results = measure(folder, sizes, options.workers)
  print(
    '  corpus   tokens  shards  prepared at  peak of it  first batch'
    '  a batch    drawn at  peak of it'
  )
  for size, row in results.items():
    print(
      f'  {size:>6}  {row["tokens"] / 1e6:5.0f} M  {row["shards"]:6d}'
      f'  {row["tokens"] / row["prepare_s"] / 1e3:6.0f} kt/s'
      f'  {row["prepare_peak_mb"]:7.0f} MB  {row["first_batch_s"]:9.2f} s'
      f'  {row["batch_s"] * 1e3:4.1f} ms  {row["tokens_per_s"] / 1e6:5.2f} Mt/s'
      f'  {row["read_peak_mb"]:7.0f} MB'
    )
  largest, smallest = results[sizes[-1]], results[sizes[0]]
  claims = [
    harness.Claim(
      f'peak of {what} {sizes[-1]} / {sizes[0]}',
      largest[f'{key}_peak_mb'] / smallest[f'{key}_peak_mb'],
      FLAT,
    )
    for what, key in (('preparing', 'prepare'), ('reading', 'read'))
  ]
  claims.append(
    harness.Claim(
      f'first batch of {sizes[-1]}',
      largest['first_batch_s'],
      FIRST_S,
      unit=' s',
    )
  )
  drawing = plot.Bars(
    title='Peak memory of reading',
    unit='MB',
    values={size: row['read_peak_mb'] for size, row in results.items()},
  )
  harness.finish('prepared', results, claims, drawing, options.out)


if __name__ == '__main__':
  sys.exit(program.run(main))
