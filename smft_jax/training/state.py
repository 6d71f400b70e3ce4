"""The state of training: what a step reads and writes, and its sharding.

Shapes: N slots, V value dim.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from smft_jax import lookup
from smft_jax import memory
from smft_jax import rowwise
from smft_jax.sharded import layout as layout_lib
from smft_jax.training import method as method_lib


class DocumentSlots(NamedTuple):
  """Optimizer state of a method that selects slots once per document.

  Attributes:
    slots: int32 [t], the slots that the document's steps update; unused places
      hold N.
    inner: The optimizer's state for their rows.
  """

  slots: jax.Array
  inner: Any


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=[
    'step',
    'params',
    'opt_state',
    'background',
    'extras',
    'skipped',
    'skipped_in_a_row',
  ],
  meta_fields=['graphdef', 'method'],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
  """Everything a step reads and writes.

  Attributes:
    step: int32 [], steps taken, including skipped ones.
    params: All Variables of the model.
    opt_state: Optimizer state of the trainable parameters.
    background: Document frequencies; None for update 'full'.
    extras: Extra arguments of the method's optimizer and penalty, by name:
      float32 [] for each hyperparameter, and the results of the method's
      `begin` and `begin_document`.
    skipped: int32 [], steps that changed nothing because their loss or gradient
      was not finite.
    skipped_in_a_row: int32 [], skipped steps since the last good one.
    graphdef: The model without its Variables.
    method: The way of finetuning.
  """

  step: jax.Array
  params: nnx.State
  opt_state: Any
  background: method_lib.Background | None
  extras: method_lib.Extras
  skipped: jax.Array
  skipped_in_a_row: jax.Array
  graphdef: nnx.GraphDef
  method: method_lib.Method


def init(
  model: nnx.Module,
  method: method_lib.Method,
  background: method_lib.Background | None = None,
  extras: method_lib.Extras | None = None,
) -> TrainState:
  """Creates the state before the first step.

  Args:
    model: The model. Its Variables are used, not copied, and the first
      `train_step` donates them: pass `nnx.clone(model)` to go on using yours.
    method: The way of finetuning.
    background: Document frequencies, for updates 'dense' and 'rows'.
    extras: Results of the method's `begin`.

  Returns:
    The state.

  Raises:
    ValueError: If the method ranks slots and there is no background, or its
      top_t is not in [1, N].
  """
  graphdef, params = nnx.split(model)
  if method.update in ('dense', 'rows'):
    if background is None:
      raise ValueError(f'method {method.name!r} needs a background.')
    num_slots = value_table(params).shape[0]
    if not 1 <= method.top_t <= num_slots:
      raise ValueError(
        f'method.t must be from 1 to num_slots = {num_slots}, got '
        f'{method.top_t}.'
      )
  trainable = nnx.filter_state(params, method.trainable)
  if method.per_document:
    values = value_table(params)
    unused = jnp.full((method.top_t,), values.shape[0], jnp.int32)
    opt_state: Any = for_document(method, unused, values)
  else:
    opt_state = (
      rowwise.init_rows(method.optimizer, value_table(params))
      if method.update == 'rows'
      else method.optimizer.init(trainable)
    )
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    skipped=jnp.zeros((), jnp.int32),
    skipped_in_a_row=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=opt_state,
    background=background,
    extras={
      **(extras or {}),
      **{k: jnp.float32(v) for k, v in method.hyperparameters.items()},
    },
    graphdef=graphdef,
    method=method,
  )
  return shard(state, jax.device_put)


def for_document(
  method: method_lib.Method, slots: jax.Array, values: jax.Array
) -> DocumentSlots:
  """Returns the optimizer state before the first step on a document.

  Args:
    method: The method.
    slots: int32 [t], the selected slots.
    values: The value table [N, V], or its shape and dtype.
  """
  shape = (slots.shape[0], values.shape[1])
  rows = jnp.zeros(shape, lookup.wide_dtype(values.dtype))
  return DocumentSlots(slots, method.optimizer.init(rows))


def layout_of(state: TrainState) -> layout_lib.Layout | None:
  """Returns the layout of the state's memory, or None for one device."""
  return memory.layout_of(nnx.merge(state.graphdef, state.params))


def shard(state: TrainState, put: Callable[..., Any]) -> TrainState:
  """Puts every array of a state where the model's layout wants it.

  Args:
    state: The state.
    put: (array, sharding) -> array, such as `jax.device_put`.

  Returns:
    The state; unchanged if the model has no layout.
  """
  layout = layout_of(state)
  if layout is None:
    return state
  rows = value_table(state.params).shape
  specs = {rows: layout.values_NxV, rows[:1]: layout.slots_N}

  def shard_leaf(node):
    if isinstance(node, nnx.Variable):
      spec = memory.spec_of(node, layout)
    else:  # optimizer state of rows, their counts, or something small
      spec = specs.get(node.shape, PartitionSpec())
    return jax.tree.map(lambda leaf: put(leaf, layout.sharding(spec)), node)

  scalars = ('step', 'skipped', 'skipped_in_a_row')
  sharded = jax.tree.map(
    shard_leaf,
    {
      name: getattr(state, name)
      for name in (*scalars, 'params', 'opt_state', 'extras')
    },
    is_leaf=lambda node: isinstance(node, nnx.Variable),
  )
  background = state.background
  if background is not None:
    background = method_lib.Background(
      put(background.document_frequency, layout.sharding(layout.slots_N)),
      shard_leaf(background.num_documents),
    )
  return dataclasses.replace(state, background=background, **sharded)


def value_table(params: nnx.State) -> jax.Array:
  """Returns the value table [N, V] of a model.

  Raises:
    ValueError: If the model has no table, or several.
  """
  tables = jax.tree.leaves(nnx.filter_state(params, memory.MemoryValue))
  if len(tables) != 1:
    raise ValueError(
      f'the model must have one value table, found {len(tables)}.'
    )
  return tables[0]


def slot_lessons(params: nnx.State) -> jax.Array | None:
  """Returns which lesson taught each slot, int32 [N]; None without a quorum."""
  found = jax.tree.leaves(nnx.filter_state(params, memory.SlotLessons))
  return found[0] if found else None
