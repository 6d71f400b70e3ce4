"""A shard: a file of tokenised rows that are read one by one, in any order.

A shard is an array_record file. Each of its records is a row: the number of its
segments, their lengths, and its tokens, little-endian. Its last record has the
lengths of all rows, so that they are known without reading the rows.

array_record keeps a hash of every record and compares it whenever the record is
read: flipped bytes raise `Damaged`, and are never taken for tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import errno
import functools
import hashlib
import os
import pathlib
import types
from typing import Any, NamedTuple

import numpy as np

from smft_jax.data import encoded
from smft_jax.runtime import disk
from smft_jax.store import manifest

_COUNT = np.dtype('<u4')
# A record a chunk: reading a row reads nothing else.
_WRITE_OPTIONS = 'group_size:1,uncompressed'
_READ_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'
_BUFFER_BYTES = 32768
_ERRORS = (*disk.FULL, errno.EACCES, errno.EROFS)


class Row(NamedTuple):
  """A row as it is stored.

  Attributes:
    tokens: Ids of any integer dtype.
    segments: Lengths of the texts in it; they add up to the row's.
  """

  tokens: np.ndarray
  segments: np.ndarray


def token_dtype(vocab_size: int) -> np.dtype:
  """Returns the dtype that ids below `vocab_size` are stored in."""
  return np.dtype('<u2' if vocab_size <= 2**16 else '<u4')


def to_records(rows: encoded.Encoded, dtype: np.dtype) -> list[bytes]:
  """Makes a record of each row.

  Args:
    rows: Rows whose loss weights are 1, but 0 where a text begins: weights are
      not stored.
    dtype: From `token_dtype`.
  """
  records = []
  for start, end in zip(rows.starts, rows.starts[1:], strict=False):
    lengths = np.array([end - start])
    if rows.segments is not None:
      lengths = np.bincount(rows.segments[start:end])[1:]
    head = np.array([len(lengths), *lengths], _COUNT)
    records.append(
      head.tobytes() + rows.tokens[start:end].astype(dtype).tobytes()
    )
  return records


def from_record(record: bytes, dtype: np.dtype) -> Row:
  """Reads what `to_records` made of a row."""
  count = int(np.frombuffer(record, _COUNT, 1)[0])
  return Row(
    segments=np.frombuffer(record, _COUNT, count, offset=_COUNT.itemsize),
    tokens=np.frombuffer(record, dtype, offset=(1 + count) * _COUNT.itemsize),
  )


class Writer:
  """Writes a shard; it is there, whole, after `finish`.

  Args:
    path: The file.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    # Hidden until it is whole; of an earlier process, it is overwritten.
    self._partial = path.with_name(f'.{path.name}')
    self._lengths: list[np.ndarray] = []
    with _writing(self._partial):
      self._file = _module().ArrayRecordWriter(
        str(self._partial), _WRITE_OPTIONS
      )

  def write(self, records: Sequence[bytes], lengths: np.ndarray) -> None:
    """Appends rows.

    Args:
      records: From `to_records`.
      lengths: int [rows], their numbers of tokens.
    """
    with _writing(self._partial):
      for record in records:
        self._file.write(record)
    self._lengths.append(np.asarray(lengths, _COUNT))

  def finish(self) -> dict[str, Any]:
    """Closes the shard.

    Returns:
      Facts of the file: its name, bytes and checksum, and its numbers of rows
      and tokens and the longest row.
    """
    lengths = np.concatenate([np.zeros(0, _COUNT), *self._lengths])
    with _writing(self._partial):
      self._file.write(lengths.tobytes())
      self._file.close()
    with open(self._partial, 'rb') as file:
      os.fsync(file.fileno())
    os.replace(self._partial, self._path)
    return {
      'file': self._path.name,
      'bytes': self._path.stat().st_size,
      'sha256': checksum(self._path),
      'rows': len(lengths),
      'tokens': int(lengths.sum(dtype=np.int64)),
      'longest': int(lengths.max(initial=0)),
    }

  def abandon(self) -> None:
    """Removes the shard, which is not finished."""
    with contextlib.suppress(OSError), _writing(self._partial):
      self._file.close()
    self._partial.unlink(missing_ok=True)


class Shard:
  """A shard that is read.

  Args:
    path: The file.
    num_rows: Its rows.
    dtype: Of its tokens, from `token_dtype`.

  Raises:
    Damaged: Its index is damaged.
  """

  def __init__(self, path: pathlib.Path, num_rows: int, dtype: np.dtype):
    self._path, self._dtype = path, dtype
    try:
      self._file = _module().ArrayRecordReader(
        str(path), _READ_OPTIONS, file_reader_buffer_size=_BUFFER_BYTES
      )
      found = self._file.num_records()
    except Exception as error:  # of riegeli, which share no type
      raise _damaged(f'{path} cannot be read', error) from None
    # A file that is cut short, and one that is gone, reads as one of no record.
    if found != num_rows + 1:
      raise manifest.Damaged(
        f'{path} is damaged: its index has {max(found - 1, 0)} rows, not'
        f' {num_rows}'
      )
    self._num_rows = num_rows

  @functools.cached_property
  def lengths(self) -> np.ndarray:
    """uint32 [rows].

    Raises:
      Damaged: Their record is damaged.
    """
    return np.frombuffer(self._record(self._num_rows), _COUNT)

  def row(self, index: int) -> Row:
    """Reads a row.

    Raises:
      Damaged: The row is damaged.
    """
    return from_record(self._record(index), self._dtype)

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def _record(self, index: int) -> bytes:
    try:
      (record,) = self._file.read(index, index + 1)
    except Exception as error:
      raise _damaged(f'{self._path}, row {index}, is damaged', error) from None
    return record


def checksum(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _damaged(what: str, error: Exception) -> manifest.Damaged:
  why = ' '.join(str(error).split()).split(';')[0][:120]
  return manifest.Damaged(f'{what}: {why}')


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
  """Within the context, what the disk refuses is an OSError."""
  try:
    yield
  except RuntimeError as error:  # that of array_record
    found = (number for number in _ERRORS if os.strerror(number) in str(error))
    number = next(found, errno.EIO)
    raise OSError(number, os.strerror(number), str(path)) from None


def _module() -> types.ModuleType:
  # Imported late: most runs read no shard.
  from array_record.python import array_record_module

  return array_record_module
