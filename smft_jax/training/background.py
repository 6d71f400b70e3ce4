"""Counts, saves and loads document frequencies of a background corpus.

Statistics hold only for the model and the settings that they were counted with,
so they are stored with this provenance; another one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import functools
import io
import json
import os
from typing import Any
import zipfile

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import memory
from smft_jax import ranking
from smft_jax.sharded import ranking as sharded_ranking
from smft_jax.store import atomic
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

DOCUMENTS = ('sequence', 'batch')


def count(
  graphdef: nnx.GraphDef,
  params: nnx.State,
  stream: Iterable[Any],
  *,
  document: str = 'sequence',
  on_batch: Callable[[], None] = lambda: None,
) -> method_lib.Background:
  """Counts the background documents that read each slot.

  Args:
    graphdef: The model.
    params: Its Variables.
    stream: Batches of the background corpus, as `train_step` takes them;
      padding is not counted.
    document: 'sequence', or 'batch' as in arXiv:2510.15103. A batch of many
      tokens reads nearly every slot, which makes the frequencies alike.
    on_batch: Called after each batch, for progress.

  Returns:
    The document frequencies, the number of documents, and the accesses.

  Raises:
    ValueError: For another `document`, or an empty stream.
  """
  if document not in DOCUMENTS:
    raise ValueError(
      f"document must be 'sequence' or 'batch', got {document!r}."
    )
  total, documents = None, 0
  for batch in stream:
    counted = _count_batch(graphdef, params, batch, document)
    total = counted if total is None else jax.tree.map(jnp.add, total, counted)
    documents += len(batch.tokens) if document == 'sequence' else 1
    on_batch()
  if total is None:
    raise ValueError('the background corpus is empty.')
  frequency, accesses = total
  return method_lib.Background(frequency, jnp.float32(documents), accesses)


@functools.partial(jax.jit, static_argnames=('graphdef', 'document'))
def _count_batch(graphdef, params, batch, document):
  """Returns document frequencies and accesses [N] of a batch."""
  _, accesses = step_lib.loss_and_accesses(graphdef, params, batch)
  num_slots = state_lib.value_table(params).shape[0]
  slot_ids, mask = jnp.concatenate(accesses.slot_ids, axis=-1), batch.mask
  layout = memory.layout_of(nnx.merge(graphdef, params))
  count, frequency = ranking.count_accesses, ranking.document_frequency
  if layout is not None:  # split over replicas
    count = functools.partial(sharded_ranking.count_accesses, layout)
    frequency = functools.partial(sharded_ranking.document_frequency, layout)
  counts = count(slot_ids, num_slots, mask)
  if document == 'batch':
    return (counts > 0).astype(jnp.float32), counts
  return frequency(slot_ids, num_slots, mask), counts


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
  atomic.write_bytes(path, contents.getvalue())


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
    with open(path, 'rb') as file, np.load(file) as arrays:
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
