"""The pure training step: (state, batch) -> (state, metrics).

One step for every method. The forms differ in what is differentiated:
- full: the trainable parameters, by an ordinary optimizer;
- dense: the value table [N, V]; the optimizer's chain ends in `keep_top_slots`;
- rows: the rows read [B, L, V] only. Nothing below the lowest memory layer is
  differentiated and no gradient of the table exists: the gradients of the t
  chosen rows are built from what was read, and only those rows are written.

Shapes: B batch, L length, N slots, V value dim, A accesses per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import optax

from smft_jax import lookup
from smft_jax import memory
from smft_jax import optim
from smft_jax import ranking
from smft_jax import selection
from smft_jax.sharded import layout as layout_lib
from smft_jax.sharded import lookup as sharded_lookup
from smft_jax.sharded import ranking as sharded_ranking
from smft_jax.training import method as method_lib


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
    step: int32 [], steps taken, skipped ones too: the place in the data.
    params: All Variables of the model.
    opt_state: The optimizer's state, over the trainable parameters.
    background: Document frequencies; None for update 'full'.
    extras: What the method's optimizer and penalty take beside gradients, by
      name: float32 [] for each of its hyperparameters, and what its `begin` and
      `begin_document` gave.
    skipped: int32 [], steps that changed nothing, as their loss or gradient was
      not finite.
    skipped_in_a_row: int32 [], such steps since the last good one.
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


class Accesses(NamedTuple):
  """What the memory layers read in a forward pass, a tuple entry per layer.

  Attributes:
    slot_ids: int32 [B, L, A] each.
    weights: float32 [B, L, A] each.
  """

  slot_ids: tuple[jax.Array, ...]
  weights: tuple[jax.Array, ...]


def init_state(
  model: nnx.Module,
  method: method_lib.Method,
  background: method_lib.Background | None = None,
  extras: method_lib.Extras | None = None,
) -> TrainState:
  """The state before the first step.

  Args:
    model: The model; its Variables are used, not copied.
    method: The way of finetuning.
    background: Needed by the updates 'dense' and 'rows'.
    extras: What the method's `begin` gave.

  Returns:
    The state.

  Raises:
    ValueError: If the method ranks slots and there is nothing to rank by, or
      it asks for more slots than there are.
  """
  graphdef, params = nnx.split(model)
  if method.update in ('dense', 'rows'):
    if background is None:
      raise ValueError(f'method {method.name!r} needs a background.')
    num_slots = table(params).shape[0]
    if not 1 <= method.top_t <= num_slots:
      raise ValueError(
        f'method.t must be from 1 to num_slots = {num_slots}, got '
        f'{method.top_t}.'
      )
  trainable = nnx.filter_state(params, method.trainable)
  opt_state = method.optimizer.init(
    table(params) if method.update == 'rows' else trainable
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
  return lay_out(state, jax.device_put)


@functools.partial(jax.jit, donate_argnames='state')
def train_step(
  state: TrainState, batch, hidden: jax.Array | None = None
) -> tuple[TrainState, dict[str, Any]]:
  """Takes one step; a loss or gradient that is not finite changes nothing.

  Args:
    state: Donated: the table is updated in place.
    batch: tokens int32 [B, L], mask bool [B, L] (False at padding),
      loss_weights float32 [B, L]; ranked, bool [B, L] or None: the tokens
      whose accesses rank the slots, if not all; segments, int32 [B, L] or
      None: numbers of the texts that share a row.
    hidden: [B, L, D], what `hidden_below_memory` gave for the batch, in place
      of computing it again; only where nothing but values trains.

  Returns:
    The next state, and scalars: loss (mean over the loss weights), tokens,
    skipped_in_a_row, and for the sparse updates slots_accessed and
    slots_updated.
  """
  if state.method.update == 'rows':
    params, opt_state, good, metrics = _rows_update(state, batch, hidden)
  else:
    params, opt_state, good, metrics = _dense_update(state, batch, hidden)
  in_a_row = jnp.where(good, 0, state.skipped_in_a_row + 1)
  metrics['skipped_in_a_row'] = in_a_row
  metrics['tokens'] = jnp.sum(batch.mask)
  state = dataclasses.replace(
    state,
    step=state.step + 1,
    params=params,
    opt_state=opt_state,
    skipped=state.skipped + jnp.where(good, 0, 1),
    skipped_in_a_row=in_a_row,
  )
  return lay_out(state, jax.lax.with_sharding_constraint), metrics


@functools.partial(jax.jit, static_argnames='graphdef')
def hidden_below_memory(
  graphdef: nnx.GraphDef, params: nnx.State, tokens, mask
) -> jax.Array:
  """Hidden states [B, L, D] that no change of values moves; for `train_step`.

  Args:
    graphdef: The model, a `transformer.Transformer`.
    params: Its Variables.
    tokens: int32 [B, L].
    mask: bool [B, L], False at padding.
  """
  return nnx.merge(graphdef, params).below_memory(tokens, mask)


def loss_and_accesses(
  graphdef: nnx.GraphDef,
  params: nnx.State,
  batch,
  perturbations: nnx.State | None = None,
  hidden: jax.Array | None = None,
) -> tuple[jax.Array, Accesses]:
  """Mean negative log-likelihood per loss weight, and what the memory read.

  Args:
    graphdef: The model.
    params: Its Variables.
    batch: As in `train_step`.
    perturbations: Zeros added to what each memory layer reads; the gradient
      of the loss for them is the gradient for the rows read.
    hidden: As in `train_step`.

  Returns:
    Loss in nats, float32 [], and the accesses.
  """
  forward = nnx.capture(
    nnx.merge(graphdef, params),
    memory.SlotIds,
    memory.SlotWeights,
    init=perturbations,
  )
  # Models that know of neither can be trained all the same.
  given = {'hidden': hidden, 'segments': batch.segments}
  more = {name: array for name, array in given.items() if array is not None}
  logits, slot_ids, weights = forward(batch.tokens, batch.mask, **more)
  nll = token_nll(logits, batch.tokens)
  total = jnp.sum(batch.loss_weights)
  loss = jnp.sum(nll * batch.loss_weights) / jnp.maximum(total, 1e-6)
  return loss, Accesses(_leaves(slot_ids), _leaves(weights))


@jax.jit
def slot_scores(state: TrainState, batch) -> jax.Array:
  """Scores [N] of the slots that a step of update 'dense' or 'rows' ranks by.

  `ranking.top_slots` of these are the slots that the step would change.

  Args:
    state: As in `train_step`; it is left as it is.
    batch: As in `train_step`.

  Raises:
    ValueError: If the method ranks no slots.
  """
  _, accesses = loss_and_accesses(state.graphdef, state.params, batch)
  return _slot_scores(state, batch, accesses)[0]


def token_nll(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """Negative log-likelihood of each token given those before it.

  Args:
    logits: [B, L, T].
    tokens: int32 [B, L].

  Returns:
    float32 [B, L], in nats; the first column, which nothing predicts, is 0.
  """
  nll = optax.softmax_cross_entropy_with_integer_labels(
    logits[:, :-1].astype(jnp.float32), tokens[:, 1:]
  )
  return jnp.pad(nll, ((0, 0), (1, 0)))


def _rows_update(state: TrainState, batch, hidden):
  """Sparse memory finetuning without any [N, V] array but the table."""
  method = state.method
  shapes = jax.eval_shape(
    lambda params: nnx.capture(
      nnx.merge(state.graphdef, params), memory.ReadPerturbation
    )(batch.tokens, batch.mask)[1],
    state.params,
  )
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def loss_fn(perturbations):
    return loss_and_accesses(
      state.graphdef, state.params, batch, perturbations, hidden
    )

  (loss, accesses), read_gradients = jax.value_and_grad(loss_fn, has_aux=True)(
    zeros
  )
  values = table(state.params)
  layout = layout_of(state)
  score, document_frequency = _ranking(state)
  slots, num_accessed = _with_layout(
    layout, selection.select_slots, sharded_ranking.select_slots
  )(
    score,
    jnp.concatenate(accesses.slot_ids, axis=-1),
    document_frequency,
    method.top_t,
    mask=_ranked(batch),
    pointwise=method.pointwise,
  )
  layers = zip(
    _leaves(read_gradients), accesses.slot_ids, accesses.weights, strict=True
  )
  row_gradient = _with_layout(
    layout, lookup.row_gradient, sharded_lookup.row_gradient
  )
  rows = _sum(row_gradient(*layer, slots) for layer in layers)
  good = _finite((loss, rows))
  # Places out of range are dropped: a skipped step writes no row, and the
  # table need not be copied for it, as a choice between two tables would.
  slots = jnp.where(good, slots, values.shape[0])
  update = functools.partial(optim.update_rows, method.optimizer)
  if layout is None:
    values, opt_state = update(
      state.opt_state, values, slots, rows, **state.extras
    )
  else:
    values, opt_state = sharded_lookup.update_rows(
      layout, update, state.opt_state, values, slots, rows, state.extras
    )
  opt_state = jax.tree.map(
    lambda new, old: jnp.where(good, new, old) if new.ndim == 0 else new,
    opt_state,
    state.opt_state,
  )
  trainable, frozen = nnx.split_state(state.params, memory.MemoryValue, ...)
  params = nnx.merge_state(frozen, jax.tree.map(lambda _: values, trainable))
  metrics = {
    'loss': loss,
    'slots_accessed': num_accessed,
    'slots_updated': jnp.sum(slots < values.shape[0]),
  }
  return params, opt_state, good, metrics


def _dense_update(state: TrainState, batch, hidden):
  """An ordinary step over whole arrays; slot scores go to the optimizer."""
  method = state.method
  trainable, frozen = nnx.split_state(state.params, method.trainable, ...)

  def loss_fn(trainable):
    params = nnx.merge_state(trainable, frozen)
    loss, accesses = loss_and_accesses(
      state.graphdef, params, batch, hidden=hidden
    )
    total = loss
    if method.penalty is not None:
      total += method.penalty(trainable, state.extras)
    return total, (loss, accesses)

  (total, (loss, accesses)), gradients = jax.value_and_grad(
    loss_fn, has_aux=True
  )(trainable)
  good = _finite((total, gradients))
  metrics = {'loss': loss}
  extras = dict(state.extras)
  if method.update == 'dense':
    scores, num_accessed = _slot_scores(state, batch, accesses)
    extras['slot_scores'] = jax.tree.map(lambda _: scores, gradients)
    slots = ranking.top_slots(scores, method.top_t)
    metrics['slots_accessed'] = num_accessed
    metrics['slots_updated'] = jnp.sum(good & (slots < len(scores)))
  updates, opt_state = optax.with_extra_args_support(method.optimizer).update(
    gradients, state.opt_state, trainable, **extras
  )
  trainable, opt_state = jax.tree.map(
    functools.partial(jnp.where, good),
    (optax.apply_updates(trainable, updates), opt_state),
    (trainable, state.opt_state),
  )
  return nnx.merge_state(trainable, frozen), opt_state, good, metrics


def _slot_scores(state: TrainState, batch, accesses: Accesses):
  """Scores [N] of the slots, and how many were accessed."""
  score, document_frequency = _ranking(state)
  slot_ids = jnp.concatenate(accesses.slot_ids, axis=-1)
  count_accesses = _with_layout(
    layout_of(state), ranking.count_accesses, sharded_ranking.count_accesses
  )
  counts = count_accesses(slot_ids, len(document_frequency), _ranked(batch))
  return score(counts, document_frequency), jnp.sum(counts > 0)


def _finite(tree: Any) -> jax.Array:
  """Bool []: whether every number is finite."""
  leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
  return functools.reduce(jnp.logical_and, leaves)


def _ranked(batch):
  """Bool [B, L]: tokens whose accesses rank the slots."""
  return batch.mask if batch.ranked is None else batch.ranked


def _ranking(state: TrainState):
  """(counts, document frequencies) -> scores of this step; the frequencies."""
  method, background = state.method, state.background
  if method.score is None or background is None:
    raise ValueError(f'method {method.name!r} cannot rank slots.')
  key = jax.random.fold_in(jax.random.key(0), state.step)
  rank = functools.partial(method.score, key)
  documents = background.num_documents

  def score(counts: jax.Array, document_frequency: jax.Array) -> jax.Array:
    return rank(counts, method_lib.Background(document_frequency, documents))

  return score, background.document_frequency


def layout_of(state: TrainState) -> layout_lib.Layout | None:
  """How a state lies on a mesh; None without one."""
  return memory.layout_of(nnx.merge(state.graphdef, state.params))


def _with_layout(layout, whole, sharded):
  """A function for one device, or the one of its name for a mesh."""
  return whole if layout is None else functools.partial(sharded, layout)


def lay_out(state: TrainState, put: Callable[..., Any]) -> TrainState:
  """The state with every array where it belongs on the mesh of its model.

  Args:
    state: The state.
    put: (array, sharding) -> array.
  """
  layout = layout_of(state)
  if layout is None:
    return state
  rows = table(state.params).shape

  def lay_out(node):
    if isinstance(node, nnx.Variable):
      spec = memory.spec_of(node, layout)
    else:  # what the optimizer knows of the rows, or numbers
      spec = layout.values_NxV if node.shape == rows else PartitionSpec()
    return jax.tree.map(lambda leaf: put(leaf, layout.sharding(spec)), node)

  numbers = ('step', 'skipped', 'skipped_in_a_row')
  names = (*numbers, 'params', 'opt_state', 'extras')
  laid_out = jax.tree.map(
    lay_out,
    {name: getattr(state, name) for name in names},
    is_leaf=lambda node: isinstance(node, nnx.Variable),
  )
  background = state.background
  if background is not None:
    background = method_lib.Background(
      put(background.document_frequency, layout.sharding(layout.slots_N)),
      lay_out(background.num_documents),
    )
  return dataclasses.replace(state, background=background, **laid_out)


def table(params: nnx.State) -> jax.Array:
  """The one value table [N, V] of a model."""
  tables = jax.tree.leaves(nnx.filter_state(params, memory.MemoryValue))
  if len(tables) != 1:
    raise ValueError(
      f'the model must have one value table, found {len(tables)}.'
    )
  return tables[0]


def _sum(arrays: Iterable[jax.Array]) -> jax.Array:
  return functools.reduce(jnp.add, arrays)


def _leaves(state: nnx.State) -> tuple[jax.Array, ...]:
  """The arrays of captured state, in the order of the layers."""
  return tuple(jax.tree.leaves(state))
