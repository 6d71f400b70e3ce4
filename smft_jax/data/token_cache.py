"""Keeps the rows of encoded texts in a file, so that texts are encoded once."""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import json
import pathlib
import zipfile

from absl import logging
import numpy as np

from smft_jax.data import encoding
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.runtime import processes

# Raise it where `encoding.tokenize` changes: rows that are stored do not.
_TOKENS_FORMAT = 1

# What is stored of rows.
_ARRAYS = ('tokens', 'loss_weights', 'starts', 'sources')

# What reading a damaged archive may raise.
_DAMAGE = (
  OSError,
  KeyError,
  ValueError,
  EOFError,
  RuntimeError,
  zipfile.BadZipFile,
)


def tokenized(
  folder: pathlib.Path,
  texts: Sequence[task_lib.Text],
  tokenizer: tokenizers.Tokenizer,
  max_length: int,
) -> encoding.Encoded:
  """Texts as rows with weights of 1, from a base's folder or made for it.

  The file is named by a hash of all that the rows depend on. It is no harm if a
  process does not see what process 0 wrote: it makes the same rows.

  Args:
    folder: The base's, where the rows are kept.
    texts: What to encode.
    tokenizer: As for `encoding.tokenize`.
    max_length: As for `encoding.tokenize`.

  Returns:
    What `encoding.tokenize` gives.
  """
  parts = [_TOKENS_FORMAT, tokenizer.fingerprint(), max_length]
  contents = json.dumps([*parts, *(text.text for text in texts)])
  digest = hashlib.sha256(contents.encode()).hexdigest()
  path = folder / f'tokens-{digest[:16]}.npz'
  rows = _load_rows(path)
  if rows is None:
    logging.info('tokenizing %d texts', len(texts))
    rows = encoding.tokenize(texts, tokenizer, max_length=max_length)
    if processes.is_main():
      _save_rows(path, rows)
  return rows


def _load_rows(path: pathlib.Path) -> encoding.Encoded | None:
  """The rows of a file; None if it is not there, or damaged."""
  if not path.exists():
    return None
  try:
    with open(path, 'rb') as file, np.load(file) as arrays:
      return encoding.Encoded(**{name: arrays[name] for name in _ARRAYS})
  except _DAMAGE as error:
    logging.warning('%s is damaged, and made again: %s', path, error)
    return None


def _save_rows(path: pathlib.Path, rows: encoding.Encoded) -> None:
  """Writes a file so that it is there whole or not at all."""
  partial = path.with_name(path.name + '.partial')
  try:
    with partial.open('wb') as file:
      np.savez(file, **{name: getattr(rows, name) for name in _ARRAYS})
    partial.replace(path)
  finally:  # as where the disk is full
    partial.unlink(missing_ok=True)
