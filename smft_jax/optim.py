"""Optax transformations that change only the selected rows of a value table.

The same update for three kinds of trainer:

- `update_rows` gathers the selected rows and their optimizer state, updates
  them and scatters them back, without an [N, V] array. Our own step uses it.
- `keep_top_slots`, last in an optax chain, drops the updates of all other rows.
  For trainers that can pass scores to their optimizer.
- `sparse_memory_finetuning` wraps an optimizer and reads the access counts from
  the gradients. For trainers that pass gradients only.

Unselected rows keep their bits. An update of +0.0 would turn a parameter of
-0.0 into +0.0, so a dropped update is -0.0, which changes no float.

Reference: Lin et al., Continual Learning via Sparse Memory Finetuning,
arXiv:2510.15103.

Shape letters: N slots, V value dim, t selected slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from smft_jax import counting
from smft_jax import ranking


def _keep_rows(updates_NxV, scores_N, t):
  """Keeps the updates of the top-t rows; the others become -0.0."""
  slots_t = ranking.top_slots(scores_N, t)
  kept_N = jnp.zeros(scores_N.shape, bool).at[slots_t].set(True, mode='drop')
  return jnp.where(
    kept_N[:, None], updates_NxV, jnp.full_like(updates_NxV, -0.0)
  )


def _settle_ties(scores_N: jax.Array, t: int) -> jax.Array:
  """Sets scores about equal to the t-th best to exactly that score.

  Equal counts that a trainer scaled or averaged over micro-batches differ in
  their last bits, differently in every step. Ties would go to different slots
  in different steps, and more than t rows would change over time.
  """
  last = ranking.top_slots(scores_N, t)[-1]
  threshold = scores_N.at[last].get(mode='fill', fill_value=0)
  is_tie_N = jnp.abs(scores_N - threshold) <= 2.0**-16 * threshold
  return jnp.where(is_tie_N, threshold, scores_N)


def _check_table(path: counting.Path, leaf: Any, t: int) -> None:
  if jnp.ndim(leaf) != 2:
    raise ValueError(
      f'{jax.tree_util.keystr(path)} must be a value table [N, V], got shape '
      f'{jnp.shape(leaf)}: select tables by optax.masked or optax.partition.'
    )
  ranking.check_t(t, jnp.shape(leaf)[0])


def keep_top_slots(t: int) -> optax.GradientTransformationExtraArgs:
  """Drops the updates of all but the t slots of highest score.

  Must be **last** in the chain, after the step size: later transformations such
  as weight decay could move unselected rows. Masking gradients instead of
  updates would let weight decay and moments move them too. The moments of
  unselected rows do change, because the optimizer sees the dense gradient; with
  `update_rows` they do not.

  `update` takes the keyword `slot_scores`: a tree like `updates`, with floats
  [N], for example from `ranking.tf_idf`, in place of [N, V]. Only scores above
  0 qualify. Extra leaves of `slot_scores` are ignored, so the transformation
  works within `optax.masked` and `optax.partition`. So are other keywords.

  Args:
    t: Number of slots to keep in each table.

  Returns:
    A stateless `optax.GradientTransformationExtraArgs`. `init` and `update`
    raise a ValueError if a leaf is not [N, V] or has fewer than t rows;
    `update` raises a TypeError if `slot_scores` is missing and a ValueError if
    it does not match the updates.

  Raises:
    ValueError: If t < 1.

  Example:
    >>> from smft_jax import optim
    >>> optimizer = optax.chain(optax.sgd(1.0), optim.keep_top_slots(t=1))
    >>> params = {'values': jnp.zeros([3, 2])}
    >>> updates, state = optimizer.update(
    ...     {'values': jnp.ones([3, 2])}, optimizer.init(params), params,
    ...     slot_scores={'values': jnp.array([0.1, 0.9, 0.0])})
    >>> optax.apply_updates(params, updates)['values'].tolist()
    [[0.0, 0.0], [-1.0, -1.0], [0.0, 0.0]]
  """
  ranking.check_t(t)

  def init(params: optax.Params) -> optax.EmptyState:
    for path, leaf in jax.tree.leaves_with_path(params):
      _check_table(path, leaf, t)
    return optax.EmptyState()

  def update(
    updates: optax.Updates,
    state: optax.EmptyState,
    params: optax.Params | None = None,
    *,
    slot_scores: Any,
    **extra_args: Any,
  ) -> tuple[optax.Updates, optax.EmptyState]:
    del params, extra_args
    scores_by_path = dict(jax.tree.leaves_with_path(slot_scores))

    def keep(path: counting.Path, leaf: jax.Array) -> jax.Array:
      _check_table(path, leaf, t)
      scores = scores_by_path.get(path)
      if scores is None or jnp.shape(scores) != leaf.shape[:1]:
        found = 'nothing' if scores is None else f'shape {jnp.shape(scores)}'
        raise ValueError(
          f'slot_scores{jax.tree_util.keystr(path)} must have shape '
          f'{leaf.shape[:1]}, got {found}.'
        )
      return _keep_rows(leaf, scores, t)

    return jax.tree.map_with_path(keep, updates), state

  return optax.GradientTransformationExtraArgs(init, update)


def update_rows(
  inner: optax.GradientTransformation,
  opt_state: optax.OptState,
  table: jax.Array,
  slots: jax.Array,
  row_gradients: jax.Array,
  **extra_args: Any,
) -> tuple[jax.Array, optax.OptState]:
  """Applies an optimizer to the selected rows of a table.

  Gathers these rows, and those of every array in `opt_state` that has the
  table's shape, updates them in float32 and scatters them back. An unselected
  row keeps its bits and its moments (a lazy update); scalars such as Adam's
  step count advance for all rows.

  Time and memory do not depend on N if the caller's jitted step donates the
  table and the state **and returns them in the same order**, for example as
  parts of one train state: jax pairs donated arrays with results of the same
  shape in order, and copies a table that it pairs with a moment. It also copies
  a table that the step reads for something `row_gradients` do not depend on.

  Args:
    inner: An elementwise or rowwise optimizer, such as `optax.sgd`,
      `optax.adam` or `optax.adamw`: the arrays of its state have the table's
      shape. Clipping by global norm sees the norm of the selected rows.
    opt_state: `inner.init(table)`, or what the last call returned.
    table: Floats [N, V].
    slots: Integers [t] from `ranking.top_slots`; those out of range are
      dropped.
    row_gradients: Floats [t, V] from `lookup.row_gradient`.
    **extra_args: Passed to `inner`.

  Returns:
    A pair `(table, opt_state)` of the same shapes and dtypes.

  Raises:
    ValueError: If shapes do not match.

  Example:
    >>> from smft_jax import optim
    >>> sgd = optax.sgd(0.5)
    >>> table = jnp.zeros([3, 2])
    >>> table, state = optim.update_rows(
    ...     sgd, sgd.init(table), table, slots=jnp.array([2, 3]),
    ...     row_gradients=jnp.array([[1.0, 2.0], [9.0, 9.0]]))
    >>> table.tolist()
    [[0.0, 0.0], [0.0, 0.0], [-0.5, -1.0]]
  """
  if table.ndim != 2 or row_gradients.shape != (*slots.shape, table.shape[1]):
    raise ValueError(
      'table, slots and row_gradients must have shapes [N, V], [t] and '
      f'[t, V], got {table.shape}, {slots.shape} and {row_gradients.shape}.'
    )
  ranking.check_t(slots.shape[0], table.shape[0])
  slots = jnp.where(slots < 0, table.shape[0], slots)  # -1 is the last row

  def gather(leaf: jax.Array) -> jax.Array:
    if jnp.ndim(leaf) == 0:
      return leaf
    if leaf.shape != table.shape:
      raise ValueError(
        'update_rows needs an elementwise optimizer, but its state has an array'
        f' {leaf.shape} for a table {table.shape}: try optax.sgd or optax.adam.'
      )
    # Filled, not clipped: an unused place must not add a real row's norm.
    rows = leaf.at[slots].get(mode='fill', fill_value=0)
    # A bfloat16 step near 0.03 is 1.2e-4.
    narrow = jnp.issubdtype(rows.dtype, jnp.floating) and rows.itemsize < 4
    return rows.astype(jnp.float32) if narrow else rows

  def scatter(leaf: jax.Array, rows: jax.Array) -> jax.Array:
    if jnp.ndim(leaf) == 0:
      return rows
    return leaf.at[slots].set(rows.astype(leaf.dtype), mode='drop')

  rows = gather(table)
  row_gradients = row_gradients.astype(rows.dtype)
  updates, row_state = optax.with_extra_args_support(inner).update(
    row_gradients, jax.tree.map(gather, opt_state), rows, **extra_args
  )
  new_table = scatter(table, optax.apply_updates(rows, updates))
  return new_table, jax.tree.map(scatter, opt_state, row_state)


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
  sees the value tables only. Its updates are masked to the top t slots, so
  weight decay and momentum move no other row. All other leaves, carriers
  included, keep their bits.

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
    document_frequency: Numbers [N], or a mapping from a table's path, as
      `jax.tree_util.keystr` writes it, to numbers [N]; None treats all slots
      as equally rare.
    num_documents: |B|, the number of background documents.
    rank_by: One of `ranking.RANKINGS`.
    is_values: Recognizes value tables by key path. By default the last key is
      `values`, for an array or an NNX variable.
    is_carrier: Recognizes count carriers by key path, by default by the name
      `access_counts`. Tables and carriers are paired in tree order.

  Returns:
    An `optax.GradientTransformationExtraArgs`; extra keywords go to `inner`.
    `init` and `update` raise a ValueError if there is no table, a table has no
    carrier or background, or shapes do not match.

  Raises:
    ValueError: If t < 1 or `rank_by` is unknown.

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
  inner = optax.masked(
    inner,
    lambda tree: jax.tree.map_with_path(lambda path, _: is_values(path), tree),
  )

  def pair(leaves: Mapping[counting.Path, Any]):
    carriers = counting.pair_carriers(leaves, is_values, is_carrier)
    for table in carriers:
      _check_table(table, leaves[table], t)
    return carriers

  def background(table: counting.Path, num_slots: int) -> jax.Array:
    name = jax.tree_util.keystr(table)
    frequency: Any = document_frequency
    if frequency is None:
      frequency = jnp.zeros((num_slots,), jnp.float32)
    elif isinstance(frequency, Mapping):
      if name not in frequency:
        raise ValueError(
          f'document_frequency has no {name}, only {", ".join(frequency)}.'
        )
      frequency = frequency[name]
    if jnp.shape(frequency) != (num_slots,):
      raise ValueError(
        f'document_frequency for {name} must have shape {(num_slots,)}, got '
        f'{jnp.shape(frequency)}.'
      )
    return jnp.asarray(frequency, jnp.float32)

  def init(params: optax.Params) -> optax.OptState:
    pair(dict(jax.tree.leaves_with_path(params)))
    return inner.init(params)

  def update(
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, optax.OptState]:
    gradients = dict(jax.tree.leaves_with_path(updates))
    carriers = pair(gradients)
    updates, state = inner.update(updates, state, params, **extra_args)

    def select(path: counting.Path, leaf: jax.Array) -> jax.Array:
      if path not in carriers:
        return jnp.full_like(leaf, -0.0)
      counts_N = counting.carried_counts(gradients[carriers[path]])
      frequency_N = background(path, leaf.shape[0])
      scores_N = ranking.RANKINGS[rank_by](counts_N, frequency_N, num_documents)
      return _keep_rows(leaf, _settle_ties(scores_N, t), t)

    return jax.tree.map_with_path(select, updates), state

  return optax.GradientTransformationExtraArgs(init, update)
