"""The same operations in PyTorch, on a CPU.

Each function takes numpy arrays and returns a function without arguments that
does the work once, for `harness.interleave`. Work that steps do not repeat
(conversions, the idf) is done before.

Only the functions import PyTorch: ask `installed` first.

Shape letters: N slots, V value dim, T tokens, A accesses of a token, H heads,
K key dim, n sub-keys in a half, k slots kept, t slots to update.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import importlib.util
import types
from typing import Any

import numpy as np

Form = Callable[[], Any]


def installed() -> bool:
  """Returns whether PyTorch is installed; prints how to install it if not."""
  if importlib.util.find_spec('torch'):
    return True
  print('torch is not installed: pip install torch')
  return False


def writable(array: Any) -> np.ndarray:
  """Returns a JAX array's memory as a writable numpy array, without a copy.

  Args:
    array: JAX must not use it again if a form changes it.
  """
  import torch

  return torch.from_dlpack(array).numpy()


def lookup(
  values: np.ndarray, slot_ids: np.ndarray, weights: np.ndarray
) -> Form:
  """Builds `smft_jax.lookup.read_rows` by embedding_bag.

  Args:
    values: float32 [N, V], writable; not copied.
    slot_ids: Integers [T, A].
    weights: float32 [T, A].

  Returns:
    A function that returns the reads, a tensor [T, V].
  """
  import torch

  values_NxV = torch.from_numpy(values)
  ids_TxA = torch.tensor(slot_ids, dtype=torch.int64)
  weights_TxA = torch.tensor(weights)

  @torch.inference_mode()
  def run():
    return _bags(values_NxV, ids_TxA, weights_TxA)

  return run


def lookup_and_gradient(
  values: np.ndarray,
  slot_ids: np.ndarray,
  weights: np.ndarray,
  read_gradient: np.ndarray,
) -> Form:
  """Builds `lookup` with its gradient by the weights.

  Args:
    values: As for `lookup`.
    slot_ids: As for `lookup`.
    weights: As for `lookup`.
    read_gradient: float32 [T, V], of a loss by the reads.

  Returns:
    A function that returns tensors: reads [T, V], gradient [T, A].
  """
  import torch

  values_NxV = torch.from_numpy(values)
  ids_TxA = torch.tensor(slot_ids, dtype=torch.int64)
  weights_TxA = torch.tensor(weights, requires_grad=True)
  gradient_TxV = torch.tensor(read_gradient)

  def run():
    read_TxV = _bags(values_NxV, ids_TxA, weights_TxA)
    (found,) = torch.autograd.grad(read_TxV, weights_TxA, gradient_TxV)
    return read_TxV.detach(), found

  return run


def search(queries: np.ndarray, subkeys: np.ndarray, k: int) -> Form:
  """Builds `smft_jax.product_keys.product_key_topk` as commonly written.

  Args:
    queries: float32 [T, H, K].
    subkeys: float32 [H, 2, n, K / 2].
    k: Number of slots to keep, at most n.

  Returns:
    A function that returns tensors (slot ids, scores), both [T, H, k], best
    first.
  """
  import torch

  heads, _, n, half_dim = subkeys.shape
  queries_TxHx2xC = torch.tensor(queries).reshape(-1, heads, 2, half_dim)
  subkeys_Hx2xnxC = torch.tensor(subkeys)

  @torch.inference_mode()
  def run():
    half_scores_Hx2xTxn = torch.einsum(
      'thpc,hpnc->hptn', queries_TxHx2xC, subkeys_Hx2xnxC
    )
    best, ids = half_scores_Hx2xTxn.topk(k, dim=-1, sorted=False)
    sums = best[:, 0, :, :, None] + best[:, 1, :, None, :]
    scores, winners = sums.flatten(-2).topk(k, dim=-1)
    slot_ids = ids[:, 0].gather(-1, winners // k) * n
    slot_ids += ids[:, 1].gather(-1, winners % k)
    return slot_ids.transpose(0, 1), scores.transpose(0, 1)

  return run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
  """A step of sparse memory finetuning by SGD with a given read gradient.

  `update_by_mask`, `_hook`, `_sparse_gradient` and `_hand` take one, and return
  a function that changes the table and returns the reads, a tensor [T, V].

  Attributes:
    table: float32 [N, V], writable; steps change it in place.
    slot_ids: Integers [T, A].
    weights: float32 [T, A].
    read_gradient: float32 [T, V], of the loss by the reads.
    document_frequency: float32 [N].
    num_documents: |B|, the number of background documents.
    t: Number of slots to change; ties are broken arbitrarily.
    learning_rate: Learning rate of SGD.
  """

  table: np.ndarray
  slot_ids: np.ndarray
  weights: np.ndarray
  read_gradient: np.ndarray
  document_frequency: np.ndarray
  num_documents: int
  t: int
  learning_rate: float


def update_by_mask(update: Update) -> Form:
  """Masks by the paper's V * m + stop(V) - stop(V * m); a dense gradient."""
  import torch

  step = _tensors(update)
  values_NxV = torch.nn.Parameter(step.table)

  def masked_table():
    trained_NxV = values_NxV * _mask(step)
    return trained_NxV + values_NxV.detach() - trained_NxV.detach()

  return _dense_step(step, values_NxV, masked_table)


def update_by_hook(update: Update) -> Form:
  """Multiplies the dense gradient by the mask in a hook."""
  import torch

  step = _tensors(update)
  values_NxV = torch.nn.Parameter(step.table)
  values_NxV.register_hook(lambda gradient_NxV: gradient_NxV * _mask(step))
  return _dense_step(step, values_NxV, lambda: values_NxV)


def update_by_sparse_gradient(update: Update) -> Form:
  """Filters EmbeddingBag's sparse gradient to the top t slots.

  The fastest form that leaves gradients to autograd; it has a row per access.
  """
  import torch

  step = _tensors(update)
  values_NxV = torch.nn.Parameter(step.table)
  chosen_N = torch.zeros(len(update.table), dtype=torch.bool)

  def run():
    read_TxV = _bags(values_NxV, step.slot_ids, step.weights, sparse=True)
    (gradient,) = torch.autograd.grad(read_TxV, values_NxV, step.read_gradient)
    with torch.no_grad():
      slots, counts = step.slot_ids.view(-1).unique(return_counts=True)
      top = slots[_top(counts * step.idf[slots], step.t)]
      chosen_N[top] = True
      ids = gradient._indices()[0]
      hits = chosen_N[ids].nonzero()[:, 0]
      chosen_N[top] = False
      values_NxV.index_add_(
        0, ids[hits], gradient._values()[hits], alpha=-step.learning_rate
      )
    return read_TxV.detach()

  return run


def update_by_hand(update: Update) -> Form:
  """Computes row gradients without autograd, from accesses sorted by slot.

  The fastest form we found. The gradient of a row is a weighted sum of rows of
  the read gradient, which embedding_bag computes. Only accesses of the top t
  slots are read, and no array has N elements.
  """
  import torch

  step = _tensors(update)
  ids = step.slot_ids.view(-1)
  weights = step.weights.view(-1)
  num_accesses = step.slot_ids.shape[1]

  @torch.inference_mode()
  def run():
    read_TxV = _bags(step.table, step.slot_ids, step.weights)
    sorted_ids, order = ids.int().sort()
    slots, counts = sorted_ids.unique_consecutive(return_counts=True)
    top = _top(counts * step.idf[slots], step.t)
    # The accesses of a slot are adjacent in `order`.
    firsts = (counts.cumsum(0) - counts)[top]
    sizes = counts[top]
    offsets = sizes.cumsum(0) - sizes
    within = torch.arange(int(sizes.sum()))
    hits = order[within + (firsts - offsets).repeat_interleave(sizes)]
    row_gradients = _bags(
      step.read_gradient, hits // num_accesses, weights[hits], offsets=offsets
    )
    step.table.index_add_(
      0, slots[top], row_gradients, alpha=-step.learning_rate
    )
    return read_TxV

  return run


def _tensors(update: Update) -> types.SimpleNamespace:
  """Converts an update to tensors; the table is not copied."""
  import torch

  frequency_N = torch.tensor(update.document_frequency)
  return types.SimpleNamespace(
    table=torch.from_numpy(update.table),
    slot_ids=torch.tensor(update.slot_ids, dtype=torch.int64),
    weights=torch.tensor(update.weights),
    read_gradient=torch.tensor(update.read_gradient),
    idf=torch.log((update.num_documents + 1) / (frequency_N + 1)),
    t=update.t,
    learning_rate=update.learning_rate,
  )


def _dense_step(
  step: types.SimpleNamespace, values_NxV, table: Callable[[], Any]
) -> Form:
  import torch

  optimizer = torch.optim.SGD([values_NxV], lr=step.learning_rate)

  def run():
    read_TxV = _bags(table(), step.slot_ids, step.weights)
    read_TxV.backward(step.read_gradient)
    optimizer.step()
    optimizer.zero_grad()
    return read_TxV.detach()

  return run


def _bags(table, ids, weights, offsets=None, sparse=False):
  """Sums weighted rows: of [bags, A], or of bags that begin at `offsets`."""
  import torch

  return torch.nn.functional.embedding_bag(
    ids, table, offsets, mode='sum', per_sample_weights=weights, sparse=sparse
  )


def _mask(step: types.SimpleNamespace):
  """Returns ones [N, 1] for the slots to change, known as keys are frozen."""
  counts_N = step.slot_ids.view(-1).bincount(minlength=len(step.idf))
  mask_N = step.idf.new_zeros(len(step.idf))
  mask_N[_top(counts_N * step.idf, step.t)] = 1
  return mask_N[:, None]


def _top(scores, t: int):
  """Returns the positions of the t highest scores above 0."""
  best, places = scores.topk(min(t, len(scores)))
  return places[best > 0]
