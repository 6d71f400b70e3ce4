"""One update of a memory table, over table sizes and against other ways.

  python -m benchmarks.update_step [--out FILE.json] [--repeats R]

A step reads 32 rows of 256 for each of 2048 tokens, ranks the accessed slots by
TF-IDF and changes the best 500 by SGD. Slots are drawn uniformly, the worst
case for memory access. It needs 16 GB. PyTorch's forms are in peers.py.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness
from benchmarks import peers
from benchmarks import plot
from smft_jax import lookup
from smft_jax import optim
from smft_jax import ranking
from smft_jax import selection

TOKENS, ACCESSES, VALUE_DIM, SELECTED = 2048, 32, 256, 500
DOCUMENTS = 1000
SIZES = {'16k': 2**14, '65k': 2**16, '262k': 2**18, '1M': 2**20, '4M': 2**22}
DENSE_SIZES = ('16k', '65k', '262k', '1M')
_SGD = optax.sgd(1e-3)
_TF_IDF = functools.partial(ranking.tf_idf, num_documents=DOCUMENTS)


@dataclasses.dataclass(frozen=True)
class Reads:
  """Inputs of a step, as numpy arrays.

  Attributes:
    slot_ids: int32 [T, A].
    weights: float32 [T, A].
    target: float32 [T, V]; the loss is half the squared distance to it.
    document_frequency: float32 [N].
  """

  slot_ids: np.ndarray
  weights: np.ndarray
  target: np.ndarray
  document_frequency: np.ndarray


def draw(num_slots: int) -> Reads:
  """Draws reads of a table."""
  rng = np.random.default_rng(0)
  shape = (TOKENS, ACCESSES)
  return Reads(
    rng.integers(0, num_slots, shape).astype(np.int32),
    rng.random(shape, np.float32),
    rng.standard_normal((TOKENS, VALUE_DIM), np.float32),
    rng.integers(0, DOCUMENTS, num_slots).astype(np.float32),
  )


def rows_step(table, opt_state, slot_ids, weights, target, frequency):
  """Takes a step in the rows form, by public functions."""
  read = lookup.read_rows(table, slot_ids, weights)
  slots, _ = selection.select_slots(
    _TF_IDF, slot_ids, frequency, SELECTED, pointwise=True
  )
  rows = lookup.row_gradient(read - target, slot_ids, weights, slots)
  return optim.update_rows(_SGD, opt_state, table, slots, rows)


def dense_step(table, opt_state, slot_ids, weights, target, frequency):
  """Takes a step in the dense form: the whole gradient, masked last."""

  def loss(table):
    read = lookup.read_rows(table, slot_ids, weights)
    return 0.5 * jnp.sum((read - target) ** 2)

  counts = ranking.count_accesses(slot_ids, table.shape[0])
  optimizer = optax.chain(_SGD, optim.keep_top_slots(SELECTED))
  updates, (opt_state, _) = optimizer.update(
    jax.grad(loss)(table),
    (opt_state, optax.EmptyState()),
    table,
    slot_scores=_TF_IDF(counts, frequency),
  )
  return optax.apply_updates(table, updates), opt_state


def stepper(step, reads: Reads) -> tuple[Callable[[], None], int]:
  """Returns a function that takes a step, and the bytes of its temporaries."""
  table = jnp.zeros((len(reads.document_frequency), VALUE_DIM))
  state = table, _SGD.init(table)
  arguments = tuple(map(jnp.asarray, dataclasses.astuple(reads)))
  program, temporaries = harness.compile_form(
    step, *state, *arguments, donate=(0, 1)
  )
  run = harness.stepper(lambda state: (program(*state, *arguments), ()), state)
  return run, temporaries


def parts(num_slots: int) -> dict[str, Callable[[], None]]:
  """Returns the parts of a step in the rows form, each by itself."""
  reads = draw(num_slots)
  table = jnp.zeros((num_slots, VALUE_DIM))
  slot_ids, weights, target, frequency = map(
    jnp.asarray, dataclasses.astuple(reads)
  )
  slots, _ = selection.select_slots(
    _TF_IDF, slot_ids, frequency, SELECTED, pointwise=True
  )
  rows = jnp.ones((SELECTED, VALUE_DIM))
  select = functools.partial(
    selection.select_slots, _TF_IDF, t=SELECTED, pointwise=True
  )
  update = jax.jit(
    functools.partial(optim.update_rows, _SGD), donate_argnums=(0, 1)
  )

  def timed(function, *arguments):
    made = jax.jit(function)
    return lambda: jax.block_until_ready(made(*arguments))

  return {
    'read_rows': timed(lookup.read_rows, table, slot_ids, weights),
    'select_slots': timed(select, slot_ids, frequency),
    '  of it, sorting the ids': timed(jnp.sort, slot_ids.reshape(-1)),
    'row_gradient': timed(
      lookup.row_gradient, target, slot_ids, weights, slots
    ),
    'update_rows': harness.stepper(
      lambda state: (update(state[1], state[0], slots, rows), ()),
      (jnp.zeros_like(table), _SGD.init(table)),
    ),
  }


def torch_forms(reads: Reads) -> dict[str, Callable[[], None]]:
  """Returns PyTorch's forms of the step, sharing one table."""
  update = peers.Update(
    # JAX's memory: numpy would put its own on larger pages.
    table=peers.writable(jnp.zeros((len(reads.document_frequency), VALUE_DIM))),
    slot_ids=reads.slot_ids,
    weights=reads.weights,
    read_gradient=-reads.target,
    document_frequency=reads.document_frequency,
    num_documents=DOCUMENTS,
    t=SELECTED,
    learning_rate=1e-3,
  )
  return {
    'PyTorch, by hand': peers.update_by_hand(update),
    'PyTorch, sparse gradient': peers.update_by_sparse_gradient(update),
    'PyTorch, gradient hook': peers.update_by_hook(update),
    'PyTorch, straight-through': peers.update_by_mask(update),
  }


def main() -> None:
  """Runs the program."""
  options = harness.parse('One update of a memory table.')
  made = {name: stepper(rows_step, draw(n)) for name, n in SIZES.items()}
  rows = harness.interleave(
    {name: run for name, (run, _) in made.items()}, 2 * options.repeats
  )
  harness.print_table('rows form, by slots', rows, '262k')
  temporaries = {name: size for name, (_, size) in made.items()}
  largest = max(temporaries.values()) / 1e6
  print(f'  temporaries at most {largest:.1f} MB')
  at_1m, made = made['1M'][0], {}  # frees the other tables

  harness.print_table(
    'parts of the rows form, 1M slots',
    harness.interleave(parts(SIZES['1M']), options.repeats),
    'select_slots',
  )

  dense = {name: stepper(dense_step, draw(SIZES[name])) for name in DENSE_SIZES}
  dense_seconds = harness.interleave(
    {name: run for name, (run, _) in dense.items()}, options.repeats
  )
  harness.print_table('dense form, by slots', dense_seconds, '262k')
  forms = {'rows': at_1m, 'dense': dense['1M'][0]}
  dense = {}
  if peers.installed():
    forms |= torch_forms(draw(SIZES['1M']))
  seconds = harness.interleave(forms, options.repeats)
  harness.print_table('1M slots', seconds, 'rows')

  claims = [
    harness.Claim('1M slots / 262k slots', rows['1M'] / rows['262k'], 1.2),
    harness.Claim('4M slots / 262k slots', rows['4M'] / rows['262k'], 1.3),
    harness.Claim('temporaries', largest, 100, unit=' MB'),
  ]
  goals = {
    'dense': 20,
    'PyTorch, by hand': 1,
    'PyTorch, sparse gradient': 4,
    'PyTorch, straight-through': 100,
  }
  claims += [
    harness.Claim(
      f'1M slots: {name} / rows',
      seconds[name] / seconds['rows'],
      goal,
      at_most=False,
    )
    for name, goal in goals.items()
    if name in seconds
  ]

  def line(times):
    return {SIZES[name]: value * 1e3 for name, value in times.items()}

  harness.finish(
    'update_step',
    {
      'rows_seconds': rows,
      'dense_seconds': dense_seconds,
      'seconds_at_1M': seconds,
      'temporary_bytes': temporaries,
    },
    claims,
    plot.Lines(
      title='One update of the memory: 2048 tokens, 500 slots changed',
      x_label='slots in the table',
      y_label='ms',
      series={
        'rows': line(rows),
        'dense': line(dense_seconds),
        **{
          name: {SIZES['1M']: seconds[name] * 1e3}
          for name in seconds
          if name.startswith('PyTorch')
        },
      },
    ),
    options.out,
  )


if __name__ == '__main__':
  main()
