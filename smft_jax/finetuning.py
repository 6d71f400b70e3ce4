"""Sparse memory finetuning for trainers that pass an optimizer only gradients.

Use it as `optim.sparse_memory_finetuning`. Access counts come in the gradients
of count carriers (`counting.count_carrier`).

Shape letters: N slots, V value dim, L layers of stacked tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from smft_jax import counting
from smft_jax import ranking
from smft_jax import rowwise

# Counts that a trainer scaled or averaged over micro-batches differ in their
# last bits, differently in every step. So scores about equal count as equal:
# ties that went to other slots in other steps would change more than t rows.
_TIES = 2.0**-16


class FinetuningState(NamedTuple):
  """State of `sparse_memory_finetuning`.

  Attributes:
    inner: State of the optimizer.
    document_frequency: float32 [N] of each table, in tree order; empty if all
      slots are equally rare. Replace it to rank by another background.
    num_documents: float32 [], the number of background documents.
  """

  inner: optax.OptState
  document_frequency: tuple[jax.Array, ...]
  num_documents: jax.Array


def sparse_memory_finetuning(
  inner: optax.GradientTransformation,
  t: int,
  *,
  document_frequency: jax.Array | Mapping[str, jax.Array] | None = None,
  num_documents: int | jax.Array = 1,
  rank_by: str = 'tf_idf',
  is_values: counting.Matcher = counting.is_values,
  is_carrier: counting.Matcher = counting.is_carrier,
) -> optax.GradientTransformationExtraArgs:
  """Finetunes t rows of each value table in any trainer.

  For trainers that pass their optimizer nothing but gradients. Reads the access
  counts from the gradients of count carriers (`counting.count_carrier`), which
  must be trainable and next to the value tables in the parameter tree. `inner`
  sees the value tables only, and of these the parameters and gradients of the
  top t slots; others are zero there, as if a norm were taken of the selected
  rows alone. Its updates are masked to these slots, too, so that weight decay
  and momentum move no other row. All other leaves, carriers included, keep
  their bits. Tables may be stacked, [L, N, V] with carriers [L, 3, N].

  Must be the **whole** optimizer or its last part: a later transformation could
  move frozen parameters. Scaling all gradients alike before it or around it is
  harmless (gradient accumulation, global-norm clipping, loss scaling), because
  the rankings depend on shares of the counts. Parameters or gradients may be
  bfloat16 (see `counting.carried_counts`), but not float16. Scores that differ
  by rounding only count as equal, the lower slot first. Adding an update of
  less than 1 part in 512 to a bfloat16 number has no effect.

  A trainer's own additions can still change bits: `optax.MultiSteps` adds +0.0
  to everything between its steps, which turns -0.0 into +0.0, and XLA on CPUs
  treats subnormal numbers as zero.

  Args:
    inner: Any optimizer, such as `optax.adamw(1e-3, weight_decay=0.1)`.
    t: Number of slots to change in each table.
    document_frequency: Numbers [N], [L, N] for stacked tables, or a mapping
      from a table's path, as `jax.tree_util.keystr` writes it, to such numbers;
      None treats all slots as equally rare. Part of the state.
    num_documents: |B|, the number of background documents.
    rank_by: One of `ranking.RANKINGS`.
    is_values: Recognizes value tables by key path. By default the last key is
      `values`, for an array or an NNX variable.
    is_carrier: Recognizes count carriers by key path, by default by the name
      `access_counts`. Tables and carriers are paired in tree order. For our
      `Transformer`, whose layers share a table, give `counting.named('pool')`
      and `counting.named('pool_counts')`.

  Returns:
    An `optax.GradientTransformationExtraArgs`; extra keywords go to `inner`.
    `init` and `update` raise a ValueError if there is no table, a table has no
    carrier or background, shapes do not match, or a slot is in more than
    `num_documents` documents, as all score 0 or less if the number is left out.

  Raises:
    ValueError: If t is not an int of 1 or more or `rank_by` is unknown.

  Example:
    >>> from smft_jax import counting, lookup, optim
    >>> params = {'memory': {'values': jnp.ones([3, 2]),
    ...                      'access_counts': counting.make_carrier(3)},
    ...           'head': jnp.ones([2])}
    >>> optimizer = optim.sparse_memory_finetuning(
    ...     optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.5)), t=1,
    ...     document_frequency=jnp.array([9.0, 0.0, 9.0]), num_documents=9)
    >>> def loss(params):
    ...   memory, slot_ids = params['memory'], jnp.array([[0, 0, 1], [0, 1, 0]])
    ...   reads = lookup.read_rows(memory['values'], slot_ids, jnp.ones([2, 3]))
    ...   reads = counting.count_carrier(
    ...       memory['access_counts'], slot_ids, reads)
    ...   return jnp.sum(reads @ params['head'])
    >>> updates, _ = optimizer.update(
    ...     jax.grad(loss)(params), optimizer.init(params), params)
    >>> new = optax.apply_updates(params, updates)
    >>> [round(x, 3) for x in new['memory']['values'][:, 0].tolist()]
    [1.0, -0.05, 1.0]
    >>> new['head'].tolist()
    [1.0, 1.0]
  """
  ranking.check_t(t)
  if rank_by not in ranking.RANKINGS:
    known = ', '.join(sorted(ranking.RANKINGS))
    raise ValueError(f'unknown ranking {rank_by!r}; choose one of {known}.')
  rank_slots = ranking.RANKINGS[rank_by]
  inner = optax.masked(
    inner,
    lambda tree: jax.tree.map_with_path(lambda path, _: is_values(path), tree),
  )

  def pair(leaves: Mapping[counting.Path, Any]):
    carriers = counting.pair_carriers(leaves, is_values, is_carrier)
    for table in carriers:
      rowwise.check_table(table, leaves[table], t)
    return carriers

  def background(table: counting.Path, shape: tuple[int, ...]) -> jax.Array:
    name = jax.tree_util.keystr(table)
    frequency: Any = document_frequency
    if isinstance(frequency, Mapping):
      if name not in frequency:
        raise ValueError(
          f'document_frequency has no {name}, only {", ".join(frequency)}.'
        )
      frequency = frequency[name]
    if jnp.shape(frequency) not in (shape, shape[-1:]):
      raise ValueError(
        f'document_frequency for {name} must have shape {shape}, got '
        f'{jnp.shape(frequency)}.'
      )
    _check_documents(name, frequency, num_documents)
    frequency = jnp.asarray(frequency, jnp.float32)
    # A copy, as trainers donate the state that holds it.
    return jnp.array(jnp.broadcast_to(frequency, shape))

  def init(params: optax.Params) -> FinetuningState:
    leaves = dict(jax.tree.leaves_with_path(params))
    tables = pair(leaves)
    frequencies: tuple[jax.Array, ...] = ()
    if document_frequency is not None:
      frequencies = tuple(
        background(table, jnp.shape(leaves[table])[:-1]) for table in tables
      )
    return FinetuningState(
      inner.init(params), frequencies, jnp.array(num_documents, jnp.float32)
    )

  def update(
    updates: optax.Updates,
    state: FinetuningState,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, FinetuningState]:
    gradients = dict(jax.tree.leaves_with_path(updates))
    carriers, kept = pair(gradients), {}
    # By order: trainers wrap parameters, whose paths then differ from those of
    # their gradients.
    frequencies = {}
    if state.document_frequency:
      frequencies = dict(zip(carriers, state.document_frequency, strict=True))

    def select(path: counting.Path, leaf: jax.Array) -> jax.Array:
      if path not in carriers:
        return leaf
      counts = counting.carried_counts(gradients[carriers[path]])
      frequency = frequencies.get(path, jnp.zeros_like(counts))

      def rank(counts_N, frequency_N):
        return rank_slots(counts_N, frequency_N, state.num_documents)

      for _ in counts.shape[:-1]:
        rank = jax.vmap(rank)
      scores = rank(counts, frequency)
      selected, kept[path] = rowwise.keep_rows(leaf, scores, t, _TIES)
      return selected

    def keep(path: counting.Path, leaf: jax.Array) -> jax.Array:
      nothing = jnp.full_like(leaf, -0.0)
      if path not in kept:
        return nothing
      return jnp.where(kept[path][..., None], leaf, nothing)

    selected = jax.tree.map_with_path(select, updates)
    if params is not None:
      leaves, structure = jax.tree.flatten(params)
      shown = [
        keep(path, leaf) if path in kept else leaf
        for path, leaf in zip(gradients, leaves, strict=True)
      ]
      params = jax.tree.unflatten(structure, shown)
    updates, inner_state = inner.update(
      selected, state.inner, params, **extra_args
    )
    return (
      jax.tree.map_with_path(keep, updates),
      state._replace(inner=inner_state),
    )

  return optax.GradientTransformationExtraArgs(init, update)


def _check_documents(name: str, frequency: Any, num_documents: Any) -> None:
  """Raises a ValueError if a slot is in more documents than there are."""
  for array in (frequency, num_documents):
    is_known = not isinstance(array, jax.core.Tracer)
    if not is_known or not getattr(array, 'is_fully_addressable', True):
      return  # values that this process cannot read
  most = np.max(np.asarray(frequency, np.float32), initial=0)
  if most > np.asarray(num_documents):
    raise ValueError(
      f'document_frequency for {name} is up to {most:g}, more than '
      f'num_documents = {num_documents}: give the number of documents that it '
      'was counted on.'
    )
