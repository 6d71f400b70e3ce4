"""Prepared rows: tokenised text of any size, in shards that stay on the disk.

`python -m smft_jax.prepare` writes a folder of shards (`shard`), the tokenizer,
and prepared.json, which has the fingerprint of the tokenizer, how rows were
made, and for each shard its numbers of rows and tokens and its checksum.
`read` opens it for `stream.Batches`:

  rows = prepared.read('corpus')
  batches = stream.Batches(rows=rows, batch_size=64, seed=0, pad_id=0)

Memory is that of the shards' indices, about 12 bytes a row. A process reads the
rows of its own part of a batch and no others.

This is array_record without grain: its shuffles and batches are not those of
texts in memory, and tokenised rows leave nothing for its workers to do.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from smft_jax import schema
from smft_jax.data import encoded
from smft_jax.data import shard as shard_lib
from smft_jax.store import manifest
from smft_jax.store import paths

MANIFEST = 'prepared.json'
# Each holds a file and the index of its rows.
_MOST_OPEN = 512
_AGAIN = 'run the same `python -m smft_jax.prepare` again, which makes it anew'


def file_name(index: int) -> str:
  """Returns the name of a shard."""
  return f'rows-{index:05d}.array_record'


def is_folder(name: str | os.PathLike[str]) -> bool:
  """Returns whether a source names a folder of prepared rows, whole or not."""
  if not str(name):
    return False
  folder = paths.expand(name)
  return (folder / MANIFEST).is_file() or any(folder.glob(file_name(0)))


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
  """The rows of a folder; opened by `read`.

  Rows are those of `encoding.tokenize`, in the order of the texts; packed, if
  the folder was prepared so. `sources` of what is taken are indices of rows.

  Attributes:
    folder: The folder.
    facts: The content of prepared.json.
  """

  folder: pathlib.Path
  facts: Mapping[str, Any]
  _open: collections.OrderedDict[int, shard_lib.Shard] = dataclasses.field(
    default_factory=collections.OrderedDict, repr=False
  )

  def __len__(self) -> int:
    return int(self._starts[-1])

  @property
  def longest(self) -> int:
    """Length of the longest row; 0 without rows."""
    return max((s['longest'] for s in self.facts['shards']), default=0)

  @property
  def num_tokens(self) -> int:
    """Tokens of all rows."""
    return sum(s['tokens'] for s in self.facts['shards'])

  @property
  def packed(self) -> bool:
    """Whether several texts share a row."""
    return self.facts['packed']

  def fingerprint(self) -> str:
    """Returns a hash of all rows and of how they were made."""
    parts = [self.facts[key] for key in ('tokenizer', 'max_length', 'packed')]
    parts += [shard['sha256'] for shard in self.facts['shards']]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

  def lengths_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the lengths of the rows with these indices, int64.

    Raises:
      UserError: A shard is damaged.
    """
    rows = np.asarray(rows, np.int64)
    lengths = np.zeros(len(rows), np.int64)
    shards, inside = self._places(rows)
    for index in np.unique(shards):
      here = shards == index
      with _told():
        lengths[here] = self._shard(int(index)).lengths[inside[here]]
    return lengths

  def take(self, rows: Sequence[int] | np.ndarray) -> encoded.Encoded:
    """Reads the rows with these indices in this order; they may repeat.

    Raises:
      UserError: A row is damaged.
    """
    rows = np.asarray(rows, np.int64)
    with _told():
      found = [
        self._shard(int(index)).row(int(place))
        for index, place in zip(*self._places(rows), strict=True)
      ]
    tokens = [row.tokens for row in found]
    weights = [np.ones(len(row.tokens), np.float32) for row in found]
    for row, weight in zip(found, weights, strict=True):
      weight[_starts(row.segments)] = 0  # nothing is before them
    taken = encoded.join(tokens, weights, rows)
    if not self.packed:
      return taken
    segments = [np.zeros(0, np.int32)]
    for row in found:
      numbers = np.arange(1, len(row.segments) + 1, dtype=np.int32)
      segments.append(np.repeat(numbers, row.segments))
    return dataclasses.replace(taken, segments=np.concatenate(segments))

  def check_tokenizer(self, fingerprint: str) -> None:
    """Raises a UserError unless this tokenizer made the rows."""
    if fingerprint != self.facts['tokenizer']:
      raise schema.UserError(
        f'{self.folder} was prepared with another tokenizer,'
        f' {self.facts["tokenizer"][:8]}, not {fingerprint[:8]}: prepare it'
        ' with the tokenizer of this model'
      )

  def check_length(self, max_length: int) -> None:
    """Raises a UserError if rows may be longer than `max_length`."""
    if self.facts['max_length'] > max_length:
      raise schema.UserError(
        f'{self.folder} was prepared with --max_length='
        f'{self.facts["max_length"]}, which is more than'
        f' config.base.max_length = {max_length}'
      )

  @functools.cached_property
  def _starts(self) -> np.ndarray:
    """int64 [shards + 1], the first row of each shard."""
    rows = [shard['rows'] for shard in self.facts['shards']]
    return np.cumsum([0, *rows], dtype=np.int64)

  def _places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shard of each row, and its index in it."""
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
      raise IndexError(f'rows must be from 0 to {len(self) - 1}')
    shards = np.searchsorted(self._starts, rows, side='right') - 1
    return shards, rows - self._starts[shards]

  def _shard(self, index: int) -> shard_lib.Shard:
    """Opens a shard, and closes the one that was not read for longest."""
    if index not in self._open:
      if len(self._open) >= _MOST_OPEN:
        self._open.popitem(last=False)[1].close()
      facts = self.facts['shards'][index]
      self._open[index] = shard_lib.Shard(
        self.folder / facts['file'],
        facts['rows'],
        shard_lib.token_dtype(self.facts['vocab_size']),
      )
    self._open.move_to_end(index)
    return self._open[index]


def read(name: str | os.PathLike[str]) -> Prepared:
  """Opens a folder that `python -m smft_jax.prepare` wrote.

  Every shard must be there with its size. Its bytes are compared with their
  hashes when they are read.

  Args:
    name: The folder.

  Raises:
    UserError: It is no such folder, not finished, or damaged.
  """
  folder = paths.expand(name).absolute()
  with _told():
    facts = manifest.unseal(folder / MANIFEST)
    if not facts['finished']:
      raise schema.UserError(
        f'{name} is not prepared to its end: run the same `python -m'
        ' smft_jax.prepare` again, which resumes'
      )
    sizes = {shard['file']: shard['bytes'] for shard in facts['shards']}
    manifest.check_files(folder, sizes)
  return Prepared(folder, facts)


def _starts(lengths: np.ndarray) -> np.ndarray:
  return np.cumsum(lengths, dtype=np.int64) - lengths


@contextlib.contextmanager
def _told() -> Iterator[None]:
  """Within the context, damage is a UserError that says what to do."""
  try:
    yield
  except manifest.Damaged as error:
    raise schema.UserError(f'{error}; {_AGAIN}') from None
