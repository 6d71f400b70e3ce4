"""Keeps the rows of encoded texts in a file, so that texts are encoded once."""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import io
import json
import pathlib

from absl import logging
import numpy as np

from smft_jax.data import encoding
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.runtime import disk
from smft_jax.store import archive
from smft_jax.store import atomic

# The fields of `Encoded` that are stored.
_ARRAYS = ('tokens', 'loss_weights', 'starts', 'sources')


def tokenized(
  folder: pathlib.Path,
  texts: Sequence[task_lib.Text],
  tokenizer: tokenizers.Tokenizer,
  max_length: int,
) -> encoding.Encoded:
  """Reads the rows of texts from a folder, or encodes and stores them.

  The file is named by a hash of the texts, the tokenizer and the length. Only
  process 0 writes it; a process that does not see the file makes the same rows.

  Args:
    folder: The base's folder.
    texts: As for `encoding.tokenize`, like the other arguments.
    tokenizer: Tokenizer whose ids to use.
    max_length: Most tokens in a row.

  Returns:
    The rows of `encoding.tokenize`, all loss weights 1.
  """
  contents = json.dumps(
    [tokenizer.fingerprint(), max_length, *(text.text for text in texts)]
  )
  digest = hashlib.sha256(contents.encode()).hexdigest()
  path = folder / f'tokens-{digest[:16]}.npz'
  rows = _load_rows(path)
  if rows is None:
    logging.info('tokenizing %d texts', len(texts))
    rows = encoding.tokenize(texts, tokenizer, max_length=max_length)
    _save_rows(path, rows)
  return rows


def _load_rows(path: pathlib.Path) -> encoding.Encoded | None:
  """Reads rows; None if the file is missing or damaged."""
  if not path.exists():
    return None
  try:
    with open(path, 'rb') as file, np.load(file) as arrays:
      return encoding.Encoded(**{name: arrays[name] for name in _ARRAYS})
  except archive.DAMAGE as error:
    logging.warning('%s is damaged, and made again: %s', path, error)
    return None


def _save_rows(path: pathlib.Path, rows: encoding.Encoded) -> None:
  archive = io.BytesIO()
  np.savez(archive, **{name: getattr(rows, name) for name in _ARRAYS})
  try:
    atomic.write_bytes(path, archive.getvalue())
  except OSError as error:
    if error.errno in disk.FULL:
      raise
    logging.warning('%s is not kept: %s', path, error.strerror)
