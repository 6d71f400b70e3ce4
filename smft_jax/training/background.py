"""Counts, saves and loads document frequencies of a background corpus.

Statistics hold only for the model and the settings that they were counted with,
so they are stored with this provenance; another one is refused.
"""

from __future__ import annotations

import functools
import io
import json
import os
from typing import Any
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import ranking
from smft_jax.sharded import layout as layout_lib
from smft_jax.sharded import ranking as sharded_ranking
from smft_jax.store import atomic
from smft_jax.store import paths
from smft_jax.training import method as method_lib

DOCUMENTS = ('sequence', 'batch')


def empty(num_slots: int) -> method_lib.Background:
  """Returns the statistics of no document, for `add`."""
  zeros = jnp.zeros((num_slots,), jnp.float32)
  return method_lib.Background(zeros, jnp.float32(0), zeros)


@functools.partial(jax.jit, static_argnames=('document', 'layout'), inline=True)
def add(
  background: method_lib.Background,
  slot_ids: jax.Array,
  mask: jax.Array | None = None,
  *,
  document: str = 'sequence',
  layout: layout_lib.Layout | None = None,
) -> method_lib.Background:
  """Adds a batch of documents to the statistics of a background corpus.

  Pure, for models and data loaders of any kind: whatever reads a memory layer
  knows the slots that it read.

  Args:
    background: From `empty`, or what the last call returned.
    slot_ids: Integers [B, ..., A], the slots that the tokens of a batch read,
      in all memory layers.
    mask: Booleans with the shape of leading dims of `slot_ids`; False =
      padding, which is not counted. A row of nothing else is no document.
    document: 'sequence' if each row is a document, or 'batch' if all rows are
      one, as in arXiv:2510.15103. A batch of many tokens reads nearly every
      slot, which makes the frequencies alike.
    layout: The mesh that the batch is split over; None without one.

  Returns:
    The statistics.

  Raises:
    ValueError: For another `document`, or as `ranking.count_accesses` does.

  Example:
    >>> from smft_jax.training import background
    >>> slot_ids = jnp.array([[[0, 2], [2, 1]], [[2, 2], [2, 2]]])
    >>> mask = jnp.array([[True, True], [False, False]])
    >>> found = background.add(background.empty(4), slot_ids, mask)
    >>> found.document_frequency.tolist(), float(found.num_documents)
    ([1.0, 1.0, 1.0, 0.0], 1.0)
  """
  if document not in DOCUMENTS:
    raise ValueError(
      f"document must be 'sequence' or 'batch', got {document!r}."
    )
  if mask is None:
    mask = jnp.ones(slot_ids.shape[:1], bool)
  count, frequency = ranking.count_accesses, ranking.document_frequency
  if layout is not None:  # split over replicas
    count = functools.partial(sharded_ranking.count_accesses, layout)
    frequency = functools.partial(sharded_ranking.document_frequency, layout)
  num_slots = len(background.document_frequency)
  counts = count(slot_ids, num_slots, mask)
  if document == 'batch':
    found, documents = (counts > 0).astype(jnp.float32), jnp.any(mask)
  else:
    found = frequency(slot_ids, num_slots, mask)
    documents = jnp.sum(jnp.any(mask.reshape(len(mask), -1), axis=1))
  accesses = background.accesses
  return method_lib.Background(
    background.document_frequency + found,
    background.num_documents + documents.astype(jnp.float32),
    None if accesses is None else accesses + counts,
  )


def save(
  path: str | os.PathLike[str],
  background: method_lib.Background,
  provenance: dict[str, str | int],
) -> None:
  """Writes statistics and their provenance to an .npz file, atomically.

  Args:
    path: The file.
    background: The statistics.
    provenance: What they were counted with, such as the model's fingerprint
      and the corpus.
  """
  arrays: dict[str, Any] = jax.tree.map(np.asarray, background._asdict())
  contents = io.BytesIO()
  np.savez(contents, provenance=np.array(json.dumps(provenance)), **arrays)
  atomic.write_bytes(paths.expand(path), contents.getvalue())


def load(
  path: str | os.PathLike[str], provenance: dict[str, str | int]
) -> method_lib.Background:
  """Reads statistics; refuses those of another model or corpus.

  Args:
    path: The file.
    provenance: What they must have been counted with.

  Returns:
    The statistics.

  Raises:
    ValueError: If the file is damaged or its provenance differs.
  """
  try:
    with open(paths.expand(path), 'rb') as file, np.load(file) as arrays:
      stored = json.loads(str(arrays['provenance']))
      background = method_lib.Background(
        jnp.asarray(arrays['document_frequency']),
        jnp.asarray(arrays['num_documents']),
        jnp.asarray(arrays['accesses']),
      )
  except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(
      f'{path} is not a readable background file; delete it and it is '
      'counted again.'
    ) from error
  for key in sorted(stored.keys() | provenance.keys()):
    if stored.get(key) != provenance.get(key):
      raise ValueError(
        f'{path} was counted with {key} = {stored.get(key)!r}, this run has '
        f'{provenance.get(key)!r}; delete it and it is counted again.'
      )
  return background
