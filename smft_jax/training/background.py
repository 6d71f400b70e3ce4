"""Counts, saves and loads document frequencies of a background corpus.

Statistics hold only for the model and the settings that they were counted with,
so they are stored with this provenance; another one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
import io
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import ranking
from smft_jax.sharded import layout as layout_lib
from smft_jax.sharded import ranking as sharded_ranking
from smft_jax.store import archive
from smft_jax.store import atomic
from smft_jax.store import paths
from smft_jax.training import method as method_lib

DOCUMENTS = ('sequence', 'batch')

Provenance = Mapping[str, str | int]


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


def without_taught(
  background: method_lib.Background, lessons: jax.Array
) -> method_lib.Background:
  """Ranks slots that a lesson has taught as if every document read them.

  Their idf is 0, so that no ranking by it selects them for another lesson.

  Args:
    background: The statistics.
    lessons: Integers [N], the lesson that taught each slot; 0 if none did.

  Example:
    >>> from smft_jax.training import background
    >>> found = background.empty(3)._replace(num_documents=jnp.float32(7))
    >>> found = background.without_taught(found, jnp.array([0, 2, 0]))
    >>> found.document_frequency.tolist()
    [0.0, 7.0, 0.0]
  """
  frequency = jnp.where(
    lessons > 0, background.num_documents, background.document_frequency
  )
  return background._replace(document_frequency=frequency)


def total(*parts: method_lib.Background) -> method_lib.Background:
  """Adds statistics, exactly, however many tokens they are of.

  Floats are exact up to 2**24 only, which statistics of a few batches do not
  reach; sums of many do.

  Args:
    *parts: Statistics with whole numbers of any dtype.

  Returns:
    int64 arrays of numpy.

  Example:
    >>> one = method_lib.Background(
    ...   np.array([2.0**24]), np.float32(1), np.array([2.0**24])
    ... )
    >>> total(one, one, one).accesses.tolist()
    [50331648]
  """
  whole = [
    jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.int64), part)
    for part in parts
  ]
  return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *whole)


def to_floats(background: method_lib.Background) -> method_lib.Background:
  """Returns statistics as methods read them: float32 arrays on a device."""
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), background)


def save(
  path: str | os.PathLike[str],
  background: method_lib.Background,
  provenance: Provenance,
) -> None:
  """Writes statistics and their provenance to an .npz file, atomically.

  Args:
    path: The file.
    background: The statistics; they are stored as 64-bit integers.
    provenance: What they were counted with, such as the model's fingerprint
      and the corpus.
  """
  arrays: dict[str, Any] = total(background)._asdict()
  contents = io.BytesIO()
  np.savez(contents, provenance=np.array(json.dumps(provenance)), **arrays)
  atomic.write_bytes(paths.expand(path), contents.getvalue())


def read(
  path: str | os.PathLike[str],
) -> tuple[method_lib.Background, dict[str, str | int]]:
  """Reads statistics, int64 arrays of numpy, and their provenance.

  Raises:
    ValueError: If the file is damaged.
  """
  try:
    with open(paths.expand(path), 'rb') as file, np.load(file) as arrays:
      provenance = dict(json.loads(str(arrays['provenance'])))
      return method_lib.Background(
        arrays['document_frequency'],
        arrays['num_documents'],
        arrays['accesses'],
      ), provenance
  except archive.DAMAGE as error:
    raise ValueError(
      f'{path} is not a readable background file; delete it and it is '
      'counted again.'
    ) from error


def check(
  path: str | os.PathLike[str], stored: Provenance, provenance: Provenance
) -> None:
  """Refuses statistics of another model or corpus.

  Args:
    path: Their file, for the message.
    stored: What they were counted with, from `read`.
    provenance: What they must have been counted with.

  Raises:
    ValueError: If the two differ.
  """
  differing = differences(stored, provenance)
  if differing:
    key = differing[0]
    raise ValueError(
      f'{path} was counted with {key} = {stored.get(key)!r}, but this run has'
      f' {provenance.get(key)!r}'
    )


def differences(one: Provenance, other: Provenance) -> list[str]:
  """Returns the sorted keys in which two provenances differ."""
  return sorted(
    key for key in one.keys() | other.keys() if one.get(key) != other.get(key)
  )
