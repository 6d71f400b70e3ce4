"""Paths as people write them."""

from __future__ import annotations

import os
import pathlib


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
