"""What people would use in PyTorch instead, on a CPU.

Each function takes numpy arrays and returns a function without arguments that
does the work once, to be timed by `harness.interleave`. What does not change
from step to step (conversions, the background's idf) is done before.

PyTorch is imported by the functions only: ask `installed` first.

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
  """Whether there is a PyTorch; if not, prints how to get one."""
  if importlib.util.find_spec('torch'):
    return True
  print('torch is not installed: pip install torch')
  return False


def writable(array: Any) -> np.ndarray:
  """A JAX array's own memory as a numpy array, for PyTorch to change.

  Args:
    array: Of a type that PyTorch knows; JAX must not use it any more where a
      form changes it.

  Returns:
    The numbers, not copied.
  """
  import torch

  return torch.from_dlpack(array).numpy()


def lookup(
  values: np.ndarray, slot_ids: np.ndarray, weights: np.ndarray
) -> Form:
  """`smft_jax.lookup.read_rows` by embedding_bag.

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
  """`lookup`, and its gradient by the weights.

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
  """`smft_jax.product_keys.product_key_topk`, as it is commonly written.

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
  """A step of sparse memory finetuning, by SGD, whose read gradient is known.

  `update_by_mask`, `_hook`, `_sparse_gradient` and `_hand` take one, and return
  a function that changes the table and returns the reads, a tensor [T, V].

  Attributes:
    table: float32 [N, V], writable. The steps change it in place, so that no
      form needs a copy of its own.
    slot_ids: Integers [T, A].
    weights: float32 [T, A].
    read_gradient: float32 [T, V], of the loss by the reads.
    document_frequency: float32 [N].
    num_documents: |B|, the number of background documents.
    t: Slots to change. Of equal scores any may win.
    learning_rate: Of SGD.
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
  """The paper's trick: V * m + stop(V) - stop(V * m), a dense gradient."""
  import torch

  step = _tensors(update)
  values_NxV = torch.nn.Parameter(step.table)

  def masked_table():
    trained_NxV = values_NxV * _mask(step)
    return trained_NxV + values_NxV.detach() - trained_NxV.detach()

  return _dense_step(step, values_NxV, masked_table)


def update_by_hook(update: Update) -> Form:
  """A hook that multiplies the dense gradient by the mask."""
  import torch

  step = _tensors(update)
  values_NxV = torch.nn.Parameter(step.table)
  values_NxV.register_hook(lambda gradient_NxV: gradient_NxV * _mask(step))
  return _dense_step(step, values_NxV, lambda: values_NxV)


def update_by_sparse_gradient(update: Update) -> Form:
  """EmbeddingBag's sparse gradient, filtered to the top t slots.

  The best that leaves gradients to autograd: theirs has a row per access.
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
  """No autograd: the accesses sorted by slot, and bags of read gradients.

  The strongest form we found. The gradient of a row is itself a weighted sum
  of rows, those of the read gradient, so embedding_bag computes it; only the
  accesses of the top t slots are ever looked at, and nothing has N elements.
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
    # The accesses of a slot lie side by side in `order`.
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
  """An update as tensors; the table shares its memory."""
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
  """Weighted sums of rows: of [bags, A], or of bags that begin at `offsets`."""
  import torch

  return torch.nn.functional.embedding_bag(
    ids, table, offsets, mode='sum', per_sample_weights=weights, sparse=sparse
  )


def _mask(step: types.SimpleNamespace):
  """Ones [N, 1] for the slots to change, known beforehand: keys are frozen."""
  counts_N = step.slot_ids.view(-1).bincount(minlength=len(step.idf))
  mask_N = step.idf.new_zeros(len(step.idf))
  mask_N[_top(counts_N * step.idf, step.t)] = 1
  return mask_N[:, None]


def _top(scores, t: int):
  """Where the t highest scores above 0 are."""
  best, places = scores.topk(min(t, len(scores)))
  return places[best > 0]
