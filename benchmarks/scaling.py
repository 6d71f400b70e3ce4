"""The cost model of a step against programs compiled for 4 to 256 chips.

  python -m benchmarks.scaling

Each line is the step of configs/paper_1b.py (facts: rows of 64 tokens, t = 500)
compiled for a TPU v5e; needs `pip install -e ".[tpu]"` but no TPU. First the
batch grows with the chips, 8 rows per replica of 4 chips; then the table, 4
times the slots for 4 times the parts. docs/scaling.md derives the model.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
import sys

from benchmarks import paper_1b
from smft_jax import schema
from smft_jax.compile import compiled
from smft_jax.compile import estimate as estimate_lib
from smft_jax.compile import shapes
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.runtime import program
from smft_jax.training import state as state_lib

_ROWS = 8  # for each replica
# Topology, replicas, parts of the table, slots.
BATCH_GROWS = (
  ('v5e:2x2', 1, 4, 1024**2),
  ('v5e:4x4', 4, 4, 1024**2),
  ('v5e:8x8', 16, 4, 1024**2),
  ('v5e:16x16', 64, 4, 1024**2),
)
TABLE_GROWS = (
  ('v5e:2x2', 1, 4, 2048**2),
  ('v5e:4x4', 1, 16, 4096**2),
  ('v5e:8x8', 1, 64, 8192**2),
  ('v5e:16x16', 1, 256, 16384**2),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costs:
  """What a step needs of each chip.

  Attributes:
    kept: Bytes of weights and statistics.
    sent: Bytes sent to other chips.
    operations: Operations of matrix products.
  """

  kept: float
  sent: float
  operations: float


def resized(data: int, memory: int, slots: int) -> config_lib.Experiment:
  """Returns configs/paper_1b.py on a mesh, with a batch for each replica."""
  experiment = paper_1b.load('facts')
  sizes = {
    name: dataclasses.replace(
      getattr(experiment, name), batch_size=_ROWS * data
    )
    for name in ('base', 'background', 'stream', 'evaluation')
  }
  return dataclasses.replace(
    experiment,
    **sizes,
    memory=dataclasses.replace(experiment.memory, num_slots=slots),
    mesh=sections.MeshConfig(data=data, memory=memory),
  )


def model(experiment: config_lib.Experiment) -> Costs:
  """Returns the costs by the formulas of docs/scaling.md.

  Args:
    experiment: With a mesh of `data` and `memory`, split by rows and sub-keys.
  """
  memory, mesh, stream = experiment.memory, experiment.mesh, experiment.stream
  assert mesh is not None
  assert stream is not None
  # Names as in the document.
  R, M, t = mesh.data, mesh.memory, experiment.method.t
  N, V, H, k = memory.num_slots, memory.value_dim, memory.num_heads, memory.k
  n = math.isqrt(N)
  vocab_size, L = shapes.vocab_size_and_length(experiment)
  B = stream.batch_size
  T = B * L // R
  params = shapes.state(
    dataclasses.replace(experiment, mesh=None), vocab_size
  ).params
  P = paper_1b.count(params) - state_lib.value_table(params).size
  subkeys = H * n * memory.key_dim
  flops, _ = paper_1b.needed(experiment, params, L)
  search = 2 * T * subkeys
  return Costs(
    kept=4 * (N * V + N + subkeys) / M + 4 * (P - subkeys),
    sent=(
      16 * H * T * min(k, n // M) * (M - 1)
      + 8 * T * V * (M - 1) / M
      + 8 * t * (M - 1)
      + 4 * B * L * H * k * (R - 1) / R
      + 8 * t * V * (R - 1) / R
    ),
    # All parts repeat everything else.
    operations=flops / R - search * (M - 1) / M,
  )


def measure(topology: str, data: int, memory: int, slots: int) -> str:
  """Returns a line of the table."""
  experiment = resized(data, memory, slots)
  found = estimate_lib.estimate(experiment, compiled.tpu(topology))
  kept = sum(
    found.memory[kind]
    for kind in (
      'value table',
      'sub-keys',
      'other weights',
      'document frequencies',
    )
  )
  costs = model(experiment)
  times = ' / '.join(f'{s * 1e3:.1f}' for s in found.seconds().values())
  return (
    f'| {data * memory} | {data} x {memory} | {slots / 2**20:.0f}M'
    f' | {costs.kept / 1e9:.2f} | {kept / 1e9:.2f}'
    f' | {found.memory["temporaries"] / 1e9:.2f}'
    f' | {costs.sent / 1e6:.2f} | {found.sent_bytes / 1e6:.2f}'
    f' | {costs.operations / 1e12:.3f} | {found.flops / 1e12:.3f} | {times} |'
  )


def main(argv: Sequence[str]) -> None:
  """Runs the program."""
  if argv:
    raise schema.UserError(f'{argv[0]!r}: this benchmark takes no arguments')
  print(
    '| chips | replicas x parts | slots | kept, model (GB) | kept | temporaries'
    ' | sent, model (MB) | sent | operations, model (T) | operations'
    ' | compute / memory / links (ms) |'
    '\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---|'
  )
  for rows in (BATCH_GROWS, TABLE_GROWS):
    for row in rows:
      print(measure(*row), flush=True)


if __name__ == '__main__':
  sys.exit(program.run(main))
