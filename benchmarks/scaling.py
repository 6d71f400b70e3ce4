"""The cost model of a step against what is compiled for 4 to 256 chips.

  python -m benchmarks.scaling

Each line is the step of configs/paper_1b.py (facts: rows of 64 tokens, t = 500)
compiled for a TPU v5e that need not be there (`pip install -e ".[tpu]"`). First
the batch grows with the chips, 8 rows for each replica of 4 chips; then the
table does, 4 times the slots for 4 times the parts. docs/scaling.md derives the
model.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import sys

from benchmarks import paper_1b
from smft_jax import cli
from smft_jax import compile as compile_lib
from smft_jax import compiled
from smft_jax import config as config_lib

LENGTH = 64
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
)


def resized(data: int, memory: int, slots: int) -> config_lib.Experiment:
  """configs/paper_1b.py with 8 rows for each replica, on a mesh."""
  experiment = paper_1b.load('facts')
  assert experiment.stream is not None
  return dataclasses.replace(
    experiment,
    base=dataclasses.replace(experiment.base, batch_size=8 * data),
    background=dataclasses.replace(experiment.background, batch_size=8 * data),
    evaluation=dataclasses.replace(experiment.evaluation, batch_size=8 * data),
    stream=dataclasses.replace(experiment.stream, batch_size=8 * data),
    memory=dataclasses.replace(experiment.memory, num_slots=slots),
    mesh=config_lib.MeshConfig(data=data, memory=memory),
  )


def model_bytes(experiment: config_lib.Experiment, parameters: int) -> float:
  """Bytes of weights and statistics on a chip, by docs/scaling.md.

  Args:
    experiment: With a mesh.
    parameters: P, numbers beside the table.
  """
  memory, mesh = experiment.memory, experiment.mesh
  assert mesh is not None
  table = memory.num_slots * (2 * memory.value_dim + 4) / mesh.memory
  return table + 2 * parameters


def model_sent(experiment: config_lib.Experiment) -> float:
  """Bytes that a chip sends in a step, by docs/scaling.md."""
  memory, mesh = experiment.memory, experiment.mesh
  assert mesh is not None
  assert experiment.stream is not None
  data, parts = mesh.data, mesh.memory
  tokens = experiment.stream.batch_size * LENGTH
  mine = tokens / data
  heads, k, dim = memory.num_heads, memory.k, memory.value_dim
  t = experiment.method.t
  shared = (parts - 1) / parts  # what a ring sends of what is gathered
  candidates = 2 * heads * mine * k * parts * 8 * shared
  read = 2 * mine * dim * 2 * shared
  best = t * parts * 8 * shared
  replicas = (data - 1) / data
  accesses = tokens * heads * k
  ids = min(accesses * 4, 2 * memory.num_slots / parts * 4) * replicas
  rows = 2 * t * dim * 4 * replicas
  return candidates + read + best + ids + rows


def measure(topology: str, data: int, memory: int, slots: int) -> str:
  """A line of the table."""
  experiment = resized(data, memory, slots)
  devices = compiled.tpu(topology)
  vocab_size = experiment.data.tokenizer_vocab_size
  found = compile_lib.report(experiment, vocab_size, LENGTH, devices)
  kinds = found.memory
  kept = sum(
    kinds[kind]
    for kind in (
      'value table',
      'sub-keys',
      'other weights',
      'document frequencies',
    )
  )
  params = compile_lib.state_shapes(experiment, vocab_size, devices).params
  outside = paper_1b.count(params) - slots * experiment.memory.value_dim
  seconds = found.seconds()
  return (
    f'| {data * memory} | {data} x {memory} | {slots / 2**20:.0f}M'
    f' | {model_bytes(experiment, outside) / 1e9:.2f} | {kept / 1e9:.2f}'
    f' | {kinds["temporaries"] / 1e9:.2f}'
    f' | {model_sent(experiment) / 1e6:.2f} | {found.sent_bytes / 1e6:.2f}'
    f' | {found.flops / 1e12:.2f}'
    f' | {" / ".join(f"{seconds[k] * 1e3:.1f}" for k in seconds)} |'
  )


def main(argv: Sequence[str]) -> None:
  """The program."""
  if argv:
    raise ValueError(f'{argv[0]!r}: this benchmark takes no arguments')
  print(
    '| chips | replicas x parts | slots | kept, model (GB) | kept | temporaries'
    ' | sent, model (MB) | sent | T operations | compute / memory / links (ms)'
    ' |\n|---|---|---|---:|---:|---:|---:|---:|---:|---|'
  )
  for rows in (BATCH_GROWS, TABLE_GROWS):
    for row in rows:
      print(measure(*row), flush=True)


if __name__ == '__main__':
  sys.exit(cli.run(main))
