"""The training step at the paper's scale: memory, operations and time.

  python -m benchmarks.paper_1b --topology=v5p:2x2x1 [--variant=documents]
      [--vocab_size=T]
  python -m benchmarks.paper_1b [--variant=documents] [--out=FILE.json]

The step is `smft_jax.training.step.train_step` on configs/paper_1b.py, with
random weights and tokens. With `--topology` it is compiled for one chip of that
TPU but not run: this takes minutes, and needs `pip install -e ".[tpu]"` but no
TPU. Otherwise it is compiled for this machine's device, and timed if it fits,
`--repeats` times or for a minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import pathlib
import statistics
import sys
import time

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks import plot
from smft_jax import flops as flops_lib
from smft_jax.compile import compiled
from smft_jax.compile import shapes as shapes_lib
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from smft_jax.data import batches
from smft_jax.runtime import program
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

_CONFIG = pathlib.Path(__file__).parent.parent / 'configs' / 'paper_1b.py'
# Goals for temporaries in GB with bfloat16 activations; CPUs use float32.
_TEMPORARIES = {'facts': 4.0, 'documents': 5.0}
_TIMED_S = 60


def load(variant: str, vocab_size: int | None = None) -> config_lib.Experiment:
  """Loads the config without the data that it would read."""
  config = config_file.load(f'{_CONFIG}:{variant}')
  if vocab_size:
    config.data.tokenizer_vocab_size = vocab_size
  return shapes_lib.parse_experiment(config)


def fill(shapes: state_lib.TrainState) -> state_lib.TrainState:
  """Makes a state of these shapes: random weights, and an empty background.

  The weights repeat a million numbers; drawing billions would take several
  times their memory.
  """
  block = np.random.default_rng(0).normal(0, 0.02, 1_048_573)

  def zeros(shape):
    return jnp.zeros(shape.shape, shape.dtype)

  def weights(shape):
    # A copy: memory shared with numpy cannot be donated.
    return jnp.array(np.resize(block.astype(shape.dtype), shape.shape))

  return dataclasses.replace(
    shapes,
    step=zeros(shapes.step),
    skipped=zeros(shapes.skipped),
    skipped_in_a_row=zeros(shapes.skipped_in_a_row),
    params=jax.tree.map(weights, shapes.params),
    opt_state=jax.tree.map(zeros, shapes.opt_state),
    background=method_lib.Background(
      zeros(shapes.background.document_frequency), jnp.float32(1000)
    ),
    extras={
      k: jnp.float32(v) for k, v in shapes.method.hyperparameters.items()
    },
  )


def make_batch(experiment: config_lib.Experiment, length: int) -> batches.Batch:
  """Draws tokens without padding, [B, length]."""
  assert experiment.stream is not None
  shape = (experiment.stream.batch_size, length)
  random = np.random.default_rng(experiment.seed)
  tokens = random.integers(0, experiment.data.tokenizer_vocab_size, shape)
  weights = np.ones(shape, np.float32)
  weights[:, 0] = 0
  return batches.Batch(tokens.astype(np.int32), np.ones(shape, bool), weights)


def count(params: nnx.State | list) -> int:
  """Counts the numbers in a tree of arrays or shapes."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def needed(
  experiment: config_lib.Experiment, params: nnx.State, length: int
) -> tuple[float, float]:
  """Returns the least operations and bytes of a step.

  They are those of the forward pass, and of the gradients of activations above
  the memory layer: two operations per token and parameter each, and attention
  over all pairs. Norms, softmax and the lookup are left out. Each weight is
  read once per pass and each row of the table once per access; activations stay
  on the chip.
  """
  model, memory, stream = experiment.model, experiment.memory, experiment.stream
  assert stream is not None
  first = min(model.memory_layers) + 1
  above = [params['blocks'][i] for i in range(first, model.num_layers)]
  table = state_lib.value_table(params)
  parameters = count([params, *above, params['embedding']]) - table.size
  tokens = stream.batch_size * length
  pairs = tokens * length * model.num_heads * model.head_dim
  attention = 4 * pairs * (model.num_layers + 2 * len(above))
  reads = tokens * memory.num_heads * memory.k * memory.value_dim
  return (
    float(2 * tokens * parameters + attention),
    float(
      parameters * jnp.dtype(model.param_dtype).itemsize
      + reads * table.dtype.itemsize
    ),
  )


def time_step(
  step: jax.stages.Compiled,
  state: state_lib.TrainState,
  batch: batches.Batch,
  repeats: int,
) -> list[float]:
  """Returns the seconds of each step after the first."""
  seconds: list[float] = []
  state, _ = step(state, batch)
  while len(seconds) < repeats and sum(seconds) < _TIMED_S:
    jax.block_until_ready(state)
    start = time.perf_counter()
    state, _ = step(state, batch)
    jax.block_until_ready(state)
    seconds.append(time.perf_counter() - start)
  return seconds


def main(argv: Sequence[str]) -> None:
  """Runs the program."""
  options = harness.parse(
    "The training step at the paper's scale.",
    argv,
    variant=dict(
      choices=list(_TEMPORARIES), default='facts', help='which batch'
    ),
    topology=dict(help='TPU to compile for, such as v5e:1x1 or v5p:2x2x1'),
    vocab_size=dict(type=int, help="tokens; default: the config's"),
  )
  is_local = options.topology is None
  device = jax.devices()[0] if is_local else compiled.tpu(options.topology)[0]
  known = compiled.DEVICES.get(device.device_kind)
  capacity = known.memory if known else compiled.free_memory(device)
  experiment = load(options.variant, options.vocab_size)
  vocab_size, length = shapes_lib.vocab_size_and_length(experiment)
  state = shapes_lib.state(experiment, vocab_size)
  batch = make_batch(experiment, length)
  table = state_lib.value_table(state.params)
  print(
    f'{options.variant}: {len(batch.tokens)} rows of {length} tokens, on one'
    f' {device.device_kind}\n  {count(state.params) / 1e9:.3f}B'
    f' parameters, {table.size / 1e9:.3f}B of them the table'
  )
  assert experiment.stream is not None
  flops, accessed = needed(experiment, state.params, length)
  static = {'micro_batch_size': experiment.stream.micro_batch_size}
  program = compiled.compile_for(
    step_lib.train_step,
    *compiled.on_device(device, (state, batch)),
    **static,
  )
  traced = flops_lib.matmul_flops(
    functools.partial(step_lib.train_step, **static), state, batch
  )
  _print(program, flops, accessed, known)
  results = {
    'variant': options.variant,
    'device': device.device_kind,
    'parameters': count(state.params),
    'memory_bytes': program.memory,
    'refusal': program.refusal,
    'traced_flops': traced,
    'needed_flops': flops,
    'needed_bytes': accessed,
    **program.cost,
  }
  if is_local and program.peak > capacity:
    print('\nit does not fit and is not run')
  elif is_local:
    seconds = time_step(program.run, fill(state), batch, options.repeats)
    median = statistics.median(seconds)
    print(f'\n{median * 1e3:.1f} ms a step, median of {len(seconds)}')
    if known:
      least = max(flops / known.flops, accessed / known.bandwidth)
      print(f'  {least / median:.1%} of the roofline')
    results['step_s'] = median
  harness.finish(
    'paper_1b',
    results,
    list(
      _claims(
        program,
        device,
        table.shape,
        options.variant,
        traced / flops,
        capacity,
      )
    ),
    plot.Bars(
      title=f'Memory of a step, {options.variant}, {device.device_kind}',
      unit='GB',
      values={
        name: size / 1e9
        for name, size in (('peak', program.peak), *program.memory.items())
        if name in ('peak', 'arguments', 'temporaries')
      },
    ),
    options.out,
  )


def _print(
  program: compiled.Program,
  flops: float,
  accessed: float,
  known: compiled.Device | None,
) -> None:
  """Prints bytes, operations and their times at peak rates."""
  rows = {
    name: f'{size / 1e9:9.3f} GB'
    for name, size in (*program.memory.items(), ('peak', program.peak))
  }
  rows['operations needed'] = f'{flops / 1e12:9.3f} T'
  rows['bytes needed'] = f'{accessed / 1e9:9.3f} GB'
  if known:
    rows['operations needed'] += f', {flops / known.flops * 1e3:.1f} ms'
    rows['bytes needed'] += f', {accessed / known.bandwidth * 1e3:.1f} ms'
  # It counts a loop once, and the whole table for a read of a SparseCore.
  for name, number in program.cost.items():
    rows[f'compiler: {name}'] = f'{number:9.3g}'
  if program.refusal:
    rows['refused'] = program.refusal
  for name, text in rows.items():
    print(f'  {name:<26}{text}')


def _claims(
  program: compiled.Program,
  device: jax.Device,
  table_shape: tuple[int, ...],
  variant: str,
  work: float,
  capacity: float,
) -> Iterator[harness.Claim]:
  gigabytes = {name: size / 1e9 for name, size in program.memory.items()}
  if device.platform != 'cpu':
    goal = _TEMPORARIES[variant]
    yield harness.Claim(
      'temporaries', gigabytes['temporaries'], goal, unit=' GB'
    )
  peak, limit = program.peak / 1e9, capacity / 1e9
  yield harness.Claim('peak memory of the device', peak, limit, unit=' GB')
  if program.refusal:
    return
  others = len(compiled.arrays_made(program.text, table_shape))
  yield harness.Claim("other arrays of the table's size", others, 0, unit='')
  copied = gigabytes['results not in place']
  yield harness.Claim('results not written in place', copied, 0.001, unit=' GB')
  # Gradients of frozen weights would add a third.
  yield harness.Claim(
    'operations / those needed without gradients of frozen weights', work, 1.05
  )


if __name__ == '__main__':
  sys.exit(program.run(main))
