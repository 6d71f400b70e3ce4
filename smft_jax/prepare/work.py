"""Tokenises pieces of text in worker processes.

A piece is some consecutive texts. What becomes of it depends on nothing else,
so neither the number of workers nor their order shows in the result.
"""

from __future__ import annotations

import collections
from collections.abc import Generator, Iterable
import concurrent.futures
from concurrent.futures import process
import dataclasses
import functools
import multiprocessing
import os
import pathlib
import signal
import threading

import numpy as np

from smft_jax import schema
from smft_jax.data import encoding
from smft_jax.data import packing
from smft_jax.data import shard
from smft_jax.data import task
from smft_jax.data import tokenizers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
  """The form of rows.

  Attributes:
    tokenizer: Folder of the tokenizer.
    max_length: Most tokens in a row.
    packed: Whether texts of a piece share rows.
  """

  tokenizer: pathlib.Path
  max_length: int
  packed: bool


@dataclasses.dataclass(frozen=True)
class Piece:
  """Consecutive texts.

  Attributes:
    first: Number of the first one among all texts.
    texts: The texts.
  """

  first: int
  texts: list[str]


@dataclasses.dataclass(frozen=True)
class Tokenized:
  """The rows of a piece.

  Attributes:
    records: From `shard.to_records`.
    lengths: int64 [rows].
    num_texts: Texts in the piece.
  """

  records: list[bytes]
  lengths: np.ndarray
  num_texts: int


def tokenize(piece: Piece, form: Form) -> Tokenized:
  """Makes the rows of a piece."""
  tokenizer = _read(form.tokenizer)
  texts = [task.Text(text=text) for text in piece.texts]
  rows = encoding.tokenize(texts, tokenizer, max_length=form.max_length)
  if form.packed:
    rows = packing.pack(rows, form.max_length, piece.first)
  dtype = shard.token_dtype(tokenizer.vocab_size)
  return Tokenized(shard.to_records(rows, dtype), rows.lengths, len(texts))


def tokenize_all(
  pieces: Iterable[Piece], form: Form, workers: int
) -> Generator[Tokenized, None, None]:
  """Tokenises pieces in several processes; yields in the order of the pieces.

  Two pieces for each worker are in memory, besides those it works on.

  Raises:
    UserError: A worker was killed.
  """
  pool = concurrent.futures.ProcessPoolExecutor(
    workers,
    # Threads of this process would not survive a fork.
    multiprocessing.get_context('spawn'),
    initializer=_begin,
  )
  waiting: collections.deque[concurrent.futures.Future] = collections.deque()
  try:
    for piece in pieces:
      waiting.append(pool.submit(tokenize, piece, form))
      if len(waiting) > 2 * workers:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  except process.BrokenProcessPool:
    raise schema.UserError(
      'a worker was killed, perhaps for lack of memory: the same command'
      f' resumes, with fewer than --workers={workers} if need be'
    ) from None
  finally:
    pool.shutdown(cancel_futures=True)


def _begin() -> None:
  """Prepares a worker."""
  # Ctrl-C reaches all processes of a terminal; the first one ends the others.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # Workers are the threads.
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'
  parent = multiprocessing.parent_process()
  assert parent is not None

  def follow() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


@functools.lru_cache(maxsize=1)
def _read(folder: pathlib.Path) -> tokenizers.Tokenizer:
  return tokenizers.read(folder)
