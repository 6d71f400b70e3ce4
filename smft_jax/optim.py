"""Optax pieces that change the selected rows of a value table, nothing else.

Three ways to the same update, for three kinds of trainer:

- `update_rows` gathers the selected rows and their optimizer state, updates
  them and scatters them back: no [N, V] array is made. For our own step.
- `keep_top_slots` comes last in an optax chain and drops the updates of all
  other rows. For trainers that can pass scores to their optimizer.
- `sparse_memory_finetuning` wraps an optimizer and finds the access counts in
  the gradients. For trainers that pass gradients only.

Unselected rows keep their bits. An update of +0.0 would turn a parameter of
-0.0 into +0.0, so a dropped update is -0.0, which changes no float at all.

Shape letters: N slots, V value dim, t selected slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from smft_jax import counting
from smft_jax import ranking

Path = tuple[Any, ...]
"""A key path, as `jax.tree_util.tree_flatten_with_path` gives it."""


def _keep_rows(
  updates_NxV: jax.Array, scores_N: jax.Array, t: int
) -> jax.Array:
  """Updates of the top-t rows; -0.0 for all others."""
  slots_t = ranking.top_slots(scores_N, t)
  kept_N = jnp.zeros(scores_N.shape, bool).at[slots_t].set(True, mode='drop')
  return jnp.where(kept_N[:, None], updates_NxV, _no_update(updates_NxV))


def _settle_ties(scores_N: jax.Array, t: int) -> jax.Array:
  """Scores, with those about equal to the t-th best made equal to it.

  Equal counts that a trainer averaged over micro-batches or scaled differ in
  their last bits, differently in every step. Ties would then go to one slot
  now and to another one later, and more than t rows would change over time.
  """
  last = ranking.top_slots(scores_N, t)[-1]
  threshold = scores_N.at[last].get(mode='fill', fill_value=0)
  is_tie_N = jnp.abs(scores_N - threshold) <= 2.0**-16 * threshold
  return jnp.where(is_tie_N, threshold, scores_N)


def _no_update(leaf: jax.Array) -> jax.Array:
  return jnp.full_like(leaf, -0.0)


def _check_table(path: Path, leaf: Any, t: int) -> None:
  name = jax.tree_util.keystr(path)
  if jnp.ndim(leaf) != 2:
    raise ValueError(
      f'{name} must be a value table [N, V], got shape {jnp.shape(leaf)}: '
      'choose the tables with optax.masked or optax.partition.'
    )
  ranking.check_t(t, jnp.shape(leaf)[0])


def keep_top_slots(t: int) -> optax.GradientTransformationExtraArgs:
  """Drops the updates of all but the t slots of highest score.

  It must be **last** in the chain, after the step size: what follows it could
  move unselected rows (weight decay does), and masking gradients instead of
  updates lets weight decay and moments move them too. Moments of unselected
  rows do change, as their optimizer sees the dense gradient; with
  `update_rows` they do not.

  `update` takes the keyword `slot_scores`: a tree like `updates`, with float
  [N] where that has [N, V], such as `ranking.tf_idf` gives. Only scores above
  0 qualify. Leaves of `slot_scores` that `updates` does not have are ignored,
  so that the transformation works within `optax.masked` and
  `optax.partition`. Other keywords are ignored.

  Args:
    t: Number of slots to keep in each table.

  Returns:
    A stateless `optax.GradientTransformationExtraArgs`. `init` and `update`
    raise a ValueError if a leaf is not [N, V] or has fewer than t rows,
    `update` a TypeError if `slot_scores` is missing and a ValueError if it
    does not fit the updates.

  Raises:
    ValueError: If t < 1.

  Example:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from smft_jax import optim
    >>> optimizer = optax.chain(optax.sgd(1.0), optim.keep_top_slots(t=1))
    >>> params = {'values': jnp.zeros([3, 2])}
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update(
    ...     {'values': jnp.ones([3, 2])}, state, params,
    ...     slot_scores={'values': jnp.array([0.1, 0.9, 0.0])})
    >>> optax.apply_updates(params, updates)['values'].tolist()
    [[0.0, 0.0], [-1.0, -1.0], [0.0, 0.0]]

  References:
    Lin et al., Continual Learning via Sparse Memory Finetuning,
    arXiv:2510.15103.
  """
  ranking.check_t(t)

  def init(params: optax.Params) -> optax.EmptyState:
    jax.tree_util.tree_map_with_path(
      lambda path, leaf: _check_table(path, leaf, t), params
    )
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
    scores_by_path = dict(jax.tree_util.tree_flatten_with_path(slot_scores)[0])

    def keep(path: Path, leaf: jax.Array) -> jax.Array:
      _check_table(path, leaf, t)
      scores = scores_by_path.get(path)
      if scores is None or jnp.shape(scores) != leaf.shape[:1]:
        found = 'nothing' if scores is None else f'shape {jnp.shape(scores)}'
        raise ValueError(
          f'slot_scores{jax.tree_util.keystr(path)} must have shape '
          f'{leaf.shape[:1]}, got {found}.'
        )
      return _keep_rows(leaf, scores, t)

    return jax.tree_util.tree_map_with_path(keep, updates), state

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

  Rows, and the rows of every part of `opt_state` that has the table's shape,
  are gathered, updated in float32 and scattered back. An unselected row keeps
  its bits and its moments (a lazy update), while scalars such as Adam's step
  count advance for all rows alike.

  Time and memory do not depend on N if the caller's jitted step donates the
  table and the state **and returns them in the same order**, as parts of one
  train state say: jax pairs donated arrays with results of the same shape in
  order, and a table paired with a moment is copied. So is a table that the step
  reads for anything on which `row_gradients` do not depend.

  Args:
    inner: An optimizer that treats every element, or every row, by itself,
      such as `optax.sgd`, `optax.adam` or `optax.adamw`; clipping by global
      norm sees the norm of the selected rows.
    opt_state: `inner.init(table)`, or what the last call returned.
    table: Floats [N, V].
    slots: Integers [t], as `ranking.top_slots` gives them; places out of range
      are dropped.
    row_gradients: Floats [t, V], as `lookup.row_gradient` gives them.
    **extra_args: For `inner`, where it takes any.

  Returns:
    A pair `(table, opt_state)` of the same shapes and dtypes.

  Raises:
    ValueError: If the shapes do not fit together, or the state has an array
      that is not per element, so that rows of it cannot be taken.

  Example:
    >>> import jax.numpy as jnp
    >>> import optax
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
  # A negative place would count from the end of the table.
  slots = jnp.where(slots < 0, table.shape[0], slots)

  def gather(leaf: jax.Array) -> jax.Array:
    if jnp.ndim(leaf) == 0:
      return leaf
    if leaf.shape != table.shape:
      raise ValueError(
        f'update_rows needs an elementwise optimizer, but its state has an '
        f'array {leaf.shape} for a table {table.shape}: try optax.sgd or '
        'optax.adam.'
      )
    # Filled, not clipped: an unused place must not show a real row's norm.
    rows = leaf.at[slots].get(mode='fill', fill_value=0)
    return _widen(rows)

  def scatter(leaf: jax.Array, rows: jax.Array) -> jax.Array:
    if jnp.ndim(leaf) == 0:
      return rows
    return leaf.at[slots].set(rows.astype(leaf.dtype), mode='drop')

  rows = gather(table)
  updates, new_row_state = optax.with_extra_args_support(inner).update(
    row_gradients.astype(rows.dtype),
    jax.tree.map(gather, opt_state),
    rows,
    **extra_args,
  )
  new_table = scatter(table, optax.apply_updates(rows, updates))
  return new_table, jax.tree.map(scatter, opt_state, new_row_state)


def _widen(array: jax.Array) -> jax.Array:
  """float32 for narrower floats: a bfloat16 step near 0.03 is 1.2e-4."""
  if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4:
    return array.astype(jnp.float32)
  return array


def _named(name: str) -> Callable[[Path], bool]:
  """Tells whether the last key is `name`, seeing through NNX variables."""

  def is_named(path: Path) -> bool:
    names = [_key_name(key) for key in path]
    return name in names[-1:] or (
      name in names[-2:] and names[-1] in ('value', 'raw_value')
    )

  return is_named


def _key_name(key: Any) -> str:
  for field in ('key', 'name', 'idx'):
    if hasattr(key, field):
      return str(getattr(key, field))
  return str(key)


_is_values = _named('values')
_is_carrier = _named('access_counts')


class SparseMemoryFinetuningState(NamedTuple):
  """State of `sparse_memory_finetuning`: that of the wrapped optimizer."""

  inner_state: optax.OptState


def sparse_memory_finetuning(
  inner: optax.GradientTransformation,
  t: int,
  *,
  document_frequency: jax.Array | Mapping[str, jax.Array] | None = None,
  num_documents: int | jax.Array = 1,
  rank_by: str = 'tf_idf',
  is_values: Callable[[Path], bool] = _is_values,
  is_carrier: Callable[[Path], bool] = _is_carrier,
) -> optax.GradientTransformationExtraArgs:
  """Finetunes t rows of each value table in a trainer that knows of none.

  Made for trainers that hand their optimizer gradients and nothing else: the
  access counts are found in the gradients of count carriers
  (`counting.count_carrier`), which must be trainable and lie beside the value
  tables in the parameter tree. `inner` sees the value tables only; its updates
  are masked to the top t slots, so weight decay and momentum move no other
  row. All other leaves, carriers included, keep their bits.

  It must be the **whole** optimizer or its last part: a transformation after
  it could move frozen parameters. Before it, or around it, what scales all
  gradients alike does no harm (gradient accumulation, global-norm clipping,
  loss scaling), as the rankings depend on shares of the counts. Nor does
  bfloat16, of parameters or of gradients (`counting.carried_counts` says how
  far counts are exact), but float16 is refused. Scores that differ by no more
  than rounding count as equal, the lower slot first. An update of a bfloat16
  number below 1 part in 512 of it is lost when it is added.

  A trainer's own additions can still touch bits that this cannot guard:
  `optax.MultiSteps` adds +0.0 to everything between its steps, which turns
  -0.0 into +0.0, and on CPUs XLA adds with subnormal numbers taken as zeros.

  Args:
    inner: Any optimizer, such as `optax.adamw(1e-3, weight_decay=0.1)`.
    t: Number of slots to change in each table.
    document_frequency: Numbers [N], or a mapping from a table's path as
      `jax.tree_util.keystr` writes it to numbers [N]; None ranks by the
      accesses alone, all slots being equally rare.
    num_documents: |B|, the number of background documents.
    rank_by: One of `ranking.RANKINGS`.
    is_values: Tells value tables by key path. By default the last key is
      `values`, whether the leaf is an array or an NNX variable.
    is_carrier: Tells count carriers by key path, by default by the name
      `access_counts`. There must be as many as tables; tables and carriers
      belong together in the order in which the tree has them.

  Returns:
    An `optax.GradientTransformationExtraArgs`; extra keywords go to `inner`.
    `init` and `update` raise a ValueError if there is no table, a table has no
    carrier or background, or shapes do not fit.

  Raises:
    ValueError: If t < 1 or `rank_by` is unknown.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from smft_jax import counting, lookup, optim
    >>> params = {'memory': {'values': jnp.ones([3, 2]),
    ...                      'access_counts': counting.make_carrier(3)},
    ...           'head': jnp.ones([2])}
    >>> optimizer = optim.sparse_memory_finetuning(
    ...     optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.5)), t=1,
    ...     document_frequency=jnp.array([9.0, 0.0, 9.0]), num_documents=9)
    >>> def loss(params):
    ...   slot_ids = jnp.array([[0, 0, 1], [0, 1, 0]])
    ...   reads = lookup.read_rows(params['memory']['values'], slot_ids,
    ...                            jnp.ones([2, 3]))
    ...   reads = counting.count_carrier(
    ...       params['memory']['access_counts'], slot_ids, reads)
    ...   return jnp.sum(reads @ params['head'])
    >>> gradients = jax.grad(loss)(params)
    >>> updates, _ = optimizer.update(
    ...     gradients, optimizer.init(params), params)
    >>> new = optax.apply_updates(params, updates)
    >>> [round(x, 3) for x in new['memory']['values'][:, 0].tolist()]
    [1.0, -0.05, 1.0]
    >>> new['head'].tolist()
    [1.0, 1.0]

  References:
    Lin et al., Continual Learning via Sparse Memory Finetuning,
    arXiv:2510.15103.
  """
  ranking.check_t(t)
  if rank_by not in ranking.RANKINGS:
    raise ValueError(
      f'unknown ranking {rank_by!r}; choose one of '
      f'{", ".join(sorted(ranking.RANKINGS))}.'
    )
  inner = optax.with_extra_args_support(inner)

  def pair(tree: Any) -> dict[Path, Path]:
    """Maps the path of each value table to that of its carrier."""
    leaves = dict(jax.tree_util.tree_flatten_with_path(tree)[0])
    tables = [path for path in leaves if is_values(path)]
    carriers = [path for path in leaves if is_carrier(path)]
    if not tables or len(tables) != len(carriers):
      raise ValueError(
        f'found {len(tables)} value tables and {len(carriers)} count '
        'carriers, need one carrier beside each table: see is_values and '
        'is_carrier.'
      )
    for table, carrier in zip(tables, carriers, strict=True):
      _check_table(table, leaves[table], t)
      wanted = (counting.DIGITS, leaves[table].shape[0])
      if jnp.shape(leaves[carrier]) != wanted:
        raise ValueError(
          f'{jax.tree_util.keystr(carrier)} must have shape {wanted} to count '
          f'the accesses of {jax.tree_util.keystr(table)}, got '
          f'{leaves[carrier].shape}: see counting.make_carrier.'
        )
    return dict(zip(tables, carriers, strict=True))

  def only_tables(tree: Any, tables: Mapping[Path, Path]) -> Any:
    return jax.tree_util.tree_map_with_path(
      lambda path, leaf: leaf if path in tables else optax.MaskedNode(), tree
    )

  def background(path: Path, num_slots: int) -> jax.Array:
    if document_frequency is None:
      return jnp.zeros((num_slots,), jnp.float32)
    name = jax.tree_util.keystr(path)
    frequency: Any = document_frequency
    if isinstance(document_frequency, Mapping):
      if name not in document_frequency:
        raise ValueError(
          f'document_frequency has no {name}, only '
          f'{", ".join(document_frequency)}.'
        )
      frequency = document_frequency[name]
    if jnp.shape(frequency) != (num_slots,):
      raise ValueError(
        f'document_frequency for {name} must have shape {(num_slots,)}, got '
        f'{jnp.shape(frequency)}.'
      )
    return jnp.asarray(frequency, jnp.float32)

  def init(params: optax.Params) -> SparseMemoryFinetuningState:
    tables = pair(params)
    return SparseMemoryFinetuningState(inner.init(only_tables(params, tables)))

  def update(
    updates: optax.Updates,
    state: SparseMemoryFinetuningState,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, SparseMemoryFinetuningState]:
    gradients = dict(jax.tree_util.tree_flatten_with_path(updates)[0])
    tables = pair(updates)
    inner_updates, inner_state = inner.update(
      only_tables(updates, tables),
      state.inner_state,
      None if params is None else only_tables(params, tables),
      **extra_args,
    )
    table_updates = dict(jax.tree_util.tree_flatten_with_path(inner_updates)[0])

    def select(path: Path, leaf: jax.Array) -> jax.Array:
      if path not in tables:
        return _no_update(leaf)
      counts_N = counting.carried_counts(gradients[tables[path]])
      scores_N = ranking.RANKINGS[rank_by](
        counts_N, background(path, leaf.shape[0]), num_documents
      )
      return _keep_rows(table_updates[path], _settle_ties(scores_N, t), t)

    new_updates = jax.tree_util.tree_map_with_path(select, updates)
    return new_updates, SparseMemoryFinetuningState(inner_state)

  return optax.GradientTransformationExtraArgs(init, update)
