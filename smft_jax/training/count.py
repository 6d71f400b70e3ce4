"""Counts the slots that a background corpus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import memory
from smft_jax.training import background as background_lib
from smft_jax.training import forward
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib


def background(
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
    document: As for `background.add`.
    on_batch: Called after each batch, for progress.

  Returns:
    The document frequencies, the number of documents, and the accesses.

  Raises:
    ValueError: For another `document`, or an empty stream.
  """
  if document not in background_lib.DOCUMENTS:
    raise ValueError(
      f"document must be 'sequence' or 'batch', got {document!r}."
    )
  found = None
  for batch in stream:
    counted = _count_batch(graphdef, params, batch, document)
    found = counted if found is None else jax.tree.map(jnp.add, found, counted)
    on_batch()
  if found is None:
    raise ValueError('the background corpus is empty.')
  return found


@functools.partial(jax.jit, static_argnames=('graphdef', 'document'))
def _count_batch(graphdef, params, batch, document):
  """Returns the statistics of a batch."""
  _, accesses = forward.loss_and_accesses(graphdef, params, batch)
  return background_lib.add(
    background_lib.empty(state_lib.value_table(params).shape[0]),
    jnp.concatenate(accesses.slot_ids, axis=-1),
    batch.mask,
    document=document,
    layout=memory.layout_of(nnx.merge(graphdef, params)),
  )
