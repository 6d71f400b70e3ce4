"""Paths as people write them."""

from __future__ import annotations

import os
import pathlib

from smft_jax import schema

_POINTER = b'version https://git-lfs.github.com/spec/'


def expand(path: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a path with its variables and its `~` replaced.

  Every path that a person gives, on a command line, in a config or to a public
  function, goes through this: shells expand neither of them after a '='. An
  unknown variable or user stays as it is.

  Example:
    >>> import os
    >>> os.environ['DATA'] = '/data'
    >>> str(expand('$DATA/facts.jsonl'))
    '/data/facts.jsonl'
  """
  return pathlib.Path(os.path.expanduser(os.path.expandvars(path)))


def check_fetched(file: pathlib.Path) -> None:
  """Checks that a file is there itself, not only what stands for it in git.

  Raises:
    UserError: It is a pointer of Git LFS, which is text.
    OSError: It cannot be read.
  """
  with file.open('rb') as stream:
    if stream.read(len(_POINTER)) == _POINTER:
      raise schema.UserError(
        f'{file} is only a pointer of Git LFS; get the file itself with'
        ' `git lfs pull`'
      )
