"""Weighted reads of value rows, against a copy and other ways to read.

  python -m benchmarks.lookup [--slots N] [--out FILE.json] [--repeats R]

2048 tokens read 32 rows of 256 numbers each, 67 MB, at random from a table
larger than the caches. The copy moves as many bytes between two arrays, on all
cores: the limit of the memory. PyTorch's forms need PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
import concurrent.futures
import os

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks import peers
from smft_jax import lookup

TOKENS, ACCESSES, VALUE_DIM = 2048, 32, 256


def natural(values, slot_ids, weights):
  """Gathers all rows, then sums."""
  return jnp.einsum('tav,ta->tv', values[slot_ids], weights)


def with_gradient(read):
  """Returns a function for a read and its gradient by the weights."""

  def run(values, slot_ids, weights, read_gradient):
    out, pull_back = jax.vjp(lambda w: read(values, slot_ids, w), weights)
    return out, pull_back(read_gradient)

  return run


def compiled(function, *arguments) -> tuple[Callable[[], None], int]:
  """Returns a call of a compiled function, and the bytes of its temporaries."""
  program, temporaries = harness.compile_form(function, *arguments)
  return lambda: jax.block_until_ready(program(*arguments)), temporaries


def copier(num_bytes: int) -> Callable[[], None]:
  """Returns a copy of an array of this size, with a thread per core."""
  threads = len(os.sched_getaffinity(0))
  pool = concurrent.futures.ThreadPoolExecutor(threads)
  source = np.ones(num_bytes // 4, np.float32)
  parts = list(
    zip(
      np.array_split(np.empty_like(source), threads),
      np.array_split(source, threads),
      strict=True,
    )
  )

  def run() -> None:
    list(pool.map(lambda part: np.copyto(*part), parts))

  return run


def main() -> None:
  """Runs the program."""
  options = harness.parse(
    'Weighted reads of value rows.',
    slots=dict(type=harness.positive, default=2**18, help='rows of the table'),
  )
  rng = np.random.default_rng(0)
  shape = (TOKENS, ACCESSES)
  values = rng.standard_normal((options.slots, VALUE_DIM), np.float32)
  slot_ids = rng.integers(0, options.slots, shape).astype(np.int32)
  weights = rng.random(shape, np.float32)
  read_gradient = rng.standard_normal((TOKENS, VALUE_DIM), np.float32)
  read = tuple(map(jnp.asarray, (values, slot_ids, weights)))
  both = (*read, jnp.asarray(read_gradient))

  ours, ours_temporaries = compiled(lookup.read_rows, *read)
  plain, plain_temporaries = compiled(natural, *read)
  forms = {
    'read_rows': ours,
    'gather, then einsum': plain,
    'read_rows with gradient': compiled(with_gradient(lookup.read_rows), *both)[
      0
    ],
    'copy': copier(TOKENS * ACCESSES * VALUE_DIM * 4),
  }
  if peers.installed():
    # The same table: numpy would put its own on larger pages than JAX does.
    shared = peers.writable(read[0])
    forms['PyTorch embedding_bag'] = peers.lookup(shared, slot_ids, weights)
    forms['PyTorch with gradient'] = peers.lookup_and_gradient(
      shared, slot_ids, weights, read_gradient
    )
  seconds = harness.interleave(forms, options.repeats)
  ours_s = seconds['read_rows']
  harness.print_table(
    f'{TOKENS} tokens x {ACCESSES} rows of {VALUE_DIM} from {options.slots}',
    seconds,
    'copy',
  )
  print(
    f'temporaries: read_rows {ours_temporaries / 1e6:.1f} MB, '
    f'gather, then einsum {plain_temporaries / 1e6:.1f} MB'
  )
  goals = {'copy': 1.5, 'PyTorch embedding_bag': 1.0}
  claims = [
    harness.Claim(f'read_rows / {name}', ours_s / seconds[name], goal)
    for name, goal in goals.items()
    if name in seconds
  ]
  harness.finish(
    'lookup',
    {
      'seconds': seconds,
      'slots': options.slots,
      'temporary_bytes': {
        'read_rows': ours_temporaries,
        'gather, then einsum': plain_temporaries,
      },
    },
    claims,
    harness.bars('Weighted reads of 65,536 rows', seconds),
    options.out,
  )


if __name__ == '__main__':
  main()
