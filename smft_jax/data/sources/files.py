"""Opens files of data, and tells their kinds by their endings."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import gzip
import io
import os
import pathlib
from typing import Literal, cast
import zlib

from smft_jax import schema
from smft_jax.data.sources import problems as problems_lib
from smft_jax.store import paths

Kind = Literal['json', 'text', 'table']

_KINDS: dict[str, Kind] = {
  '.jsonl': 'json',
  '.json': 'json',
  '.ndjson': 'json',
  '.txt': 'text',
  '.md': 'text',
  '.csv': 'table',
  '.tsv': 'table',
  '.parquet': 'table',
}
_GZIP, _GZIP_MAGIC = '.gz', b'\x1f\x8b'

ENDINGS = ', '.join(_KINDS)
"""Endings of files that can be read, any of them with .gz, for messages."""


def split(name: str) -> tuple[str, str]:
  """Splits the name of a file into the part before its ending, and that.

  Example:
    >>> split('notes/Facts.JSONL.gz'), split('squad/v1.1')
    (('notes/Facts', '.jsonl'), ('squad/v1', '.1'))
  """
  path = pathlib.PurePath(name)
  if path.suffix.lower() == _GZIP:
    path = path.with_suffix('')
  return str(path.with_suffix('')), path.suffix.lower()


def readable(name: str) -> str:
  r"""Returns a path as text, with escapes for bytes that are not UTF-8.

  Example:
    >>> readable(os.fsdecode(b'caf\xe9.txt'))
    'caf\\xe9.txt'
  """
  return os.fsencode(name).decode('utf-8', 'backslashreplace')


def kind_of(name: str) -> Kind | None:
  """Returns what a file holds by its ending; None if that is not known.

  Example:
    >>> kind_of('facts.jsonl.gz'), kind_of('NOTES.TXT'), kind_of('squad/v1.1')
    ('json', 'text', None)
  """
  return _KINDS.get(split(name)[1]) if pathlib.PurePath(name).stem else None


@contextlib.contextmanager
def opened(path: str) -> Iterator[io.BufferedReader]:
  """Opens a file to read bytes, which may be compressed by gzip.

  Raises:
    UserError: The file is missing, a pointer of Git LFS, or cannot be read.
  """
  file = existing(path)
  with file.open('rb') as raw:
    try:
      paths.check_fetched(file)
      is_compressed = raw.peek(2)[:2] == _GZIP_MAGIC
      if not is_compressed:
        yield raw
      else:
        with gzip.open(raw) as stream:
          yield cast(io.BufferedReader, stream)  # reads alike
    except (EOFError, OSError, zlib.error) as error:
      raise schema.UserError(
        f'{path} is cut short or damaged: {schema.one_line(error)}'
      ) from None


def existing(path: str) -> pathlib.Path:
  """Returns the path of a file.

  Raises:
    UserError: The file is missing, or a folder.
  """
  file = paths.expand(path)
  if not file.is_file():
    if file.is_dir():
      raise schema.UserError(f'{path} is a folder, not a file')
    names = problems_lib.entries(file.parent)
    raise schema.UserError(
      f'there is no file {path}; {problems_lib.or_else(file.name, names)}'
    )
  return file


def below(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
  """Finds the files of data in a folder and its folders, hidden ones excepted.

  Returns:
    The files, sorted by their paths; and the paths within the folder of files
    of other kinds.
  """
  found, others = [], []
  seen = set()  # links may lead back
  for name, folders, names in os.walk(folder, followlinks=True):
    is_new = os.path.realpath(name) not in seen
    seen.add(os.path.realpath(name))
    folders[:] = [f for f in folders if is_new and not f.startswith('.')]
    for path in (pathlib.Path(name, n) for n in names if is_new):
      if path.name.startswith('.'):
        continue
      if kind_of(path.name) and path.is_file():
        found.append(path)
      else:
        others.append(str(path.relative_to(folder)))
  return sorted(found), sorted(others)
