"""Compiles the training step of a config for devices that need not be there.

  python -m smft_jax.compile --config=configs/paper_1b.py --topology=v5e:16x16 \
      --config.mesh.data=8 --config.mesh.memory=32

It prints what a step takes of each chip: bytes by kind, what is sent, how long
it takes at least; and exits with code 1 if it does not fit. The step is that of
`smft_jax.train` on the stream (in pretraining, for a config without one),
compiled from shapes: no weights are made. Data is read of the embedded world
only; rows of other data are as long as the config lets them be. Without
`--topology` it compiles for the devices at hand. For a TPU it needs libtpu
(`pip install -e ".[tpu]"`), and no TPU.

The estimated time of a step is the largest of three, each at the peak rate of
the chip (`compiled.DEVICES`): operations of its matrix products, bytes of its
memory read and written, bytes sent over all its links; the last two as the
compiled program has them (`traffic`). A step takes longer.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import sys

from flax import nnx
import jax

from smft_jax import flops
from smft_jax import memory
from smft_jax import schema
from smft_jax.compile import compiled
from smft_jax.compile import hlo
from smft_jax.compile import shapes
from smft_jax.compile import traffic
from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.data import batches
from smft_jax.runs import model as model_lib
from smft_jax.runtime import program
from smft_jax.sharded import layout as layout_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

_FLAGS = {
  'topology': command_line.Flag(
    default='', help='a TPU such as v5e:16x16 or v5p:4x4x4; none: at hand'
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """What a step takes of each chip.

  Attributes:
    step: Method, rows, tokens in a row and slots, in words.
    device: Name of the kind of chip.
    mesh: Sizes of the mesh by axis.
    memory: Bytes by kind; together the peak.
    room: Bytes a chip has.
    sent: The collectives.
    flops: Operations of the matrix products on each chip.
    accessed: Bytes of memory that each chip reads and writes.
    peak: The chip's peak rates; None where they are not known.
    refusal: Why the compiler refused, or ''.
  """

  step: str
  device: str
  mesh: dict[str, int]
  memory: dict[str, float]
  room: float
  sent: list[traffic.Collective]
  flops: float
  accessed: float
  peak: compiled.Device | None
  refusal: str

  @property
  def total(self) -> float:
    """Bytes of all kinds."""
    return sum(self.memory.values())

  @property
  def fits(self) -> bool:
    """Whether the peak is within the chip's memory."""
    return not self.refusal and self.total <= self.room

  @property
  def sent_bytes(self) -> float:
    """Bytes that each chip sends in a step."""
    return sum(collective.sent_bytes for collective in self.sent)

  def rates(self) -> dict[str, tuple[float, float]]:
    """By what takes time: how much of it, and the peak rate per second."""
    if self.peak is None:
      return {}
    return {
      'compute': (self.flops, self.peak.flops),
      'memory': (self.accessed, self.peak.bandwidth),
      'links': (self.sent_bytes, self.peak.links),
    }

  def seconds(self) -> dict[str, float]:
    """The least time of a step by what takes it; nothing if not known."""
    return {name: much / rate for name, (much, rate) in self.rates().items()}


def report(
  experiment: config_lib.Experiment, devices: Sequence[jax.Device]
) -> Report:
  """Compiles the step of a config, and says what it takes.

  Args:
    experiment: The config.
    devices: All there are; without a mesh in the config the first is taken.

  Returns:
    The report.

  Raises:
    UserError: As `shapes.step`.
  """
  state, batch = shapes.step(experiment, devices)
  mesh = experiment.mesh or sections.MeshConfig()
  if experiment.mesh is None:
    state, batch = compiled.on_device(devices[0], (state, batch))
  program = compiled.compile_for(step_lib.train_step, state, batch)
  kinds: dict[str, float] = dict(bytes_by_kind(state, batch))
  moved, taken = hlo.parse(program.text), dict(program.memory)
  # Tiles of a chip are filled up, and what is not used is left out.
  kinds['padding of these'] = taken.pop('arguments') - sum(kinds.values())
  peak = compiled.DEVICES.get(devices[0].device_kind)
  size, length = batch.tokens.shape
  return Report(
    step=(
      f'{state.method.name}: {size} rows of {length} tokens,'
      f' {experiment.memory.num_slots} slots'
    ),
    device=devices[0].device_kind,
    mesh={axis: getattr(mesh, axis) for axis in layout_lib.AXES},
    memory=kinds | taken,
    room=peak.memory if peak else compiled.room(devices[0]),
    sent=traffic.collectives(moved, mesh.data * mesh.fsdp * mesh.memory),
    # Devices along `memory` see the same tokens, and do the same with them.
    flops=flops.matmul_flops_of_device(
      mesh.data * mesh.fsdp, step_lib.train_step, state, batch
    ),
    accessed=traffic.accessed_bytes(moved),
    peak=peak,
    refusal=program.refusal,
  )


def bytes_by_kind(
  state: state_lib.TrainState,
  batch: batches.Batch,
) -> dict[str, int]:
  """Bytes on each chip of what a step takes, from shapes with shardings."""
  values, subkeys, rest = nnx.split_state(
    state.params, memory.MemoryValue, memory.MemorySubkeys, ...
  )
  numbers = (state.step, state.skipped, state.skipped_in_a_row)
  kinds = {
    'value table': values,
    'sub-keys': subkeys,
    'other weights': rest,
    'optimizer state': state.opt_state,
    'document frequencies': state.background,
    'what the method adds': (state.extras, numbers),
    'batch': batch,
  }
  return {kind: compiled.bytes_on_chip(tree) for kind, tree in kinds.items()}


def main(argv: list[str]) -> int:
  """The program; returns 1 if the step does not fit."""
  invocation = command_line.parse(argv, _FLAGS)
  experiment = shapes.experiment_of(invocation.config)
  topology = invocation.flags['topology']
  devices = compiled.tpu(topology) if topology else jax.devices()
  if topology:
    _check_all_are_used(experiment, topology, devices)
  model_lib.check(experiment, devices)
  found = report(experiment, devices)
  print('\n'.join(lines(found)))
  return 0 if found.fits else 1


def lines(found: Report) -> list[str]:
  """A report as text."""
  chips = ' x '.join(f'{axis} {size}' for axis, size in found.mesh.items())
  told = [
    found.step,
    f'on {found.device}: {chips}',
    '',
    'bytes on each chip',
    *(_row(k, n / 1e6, 'MB') for k, n in found.memory.items()),
    _row('all', found.total / 1e6, 'MB'),
    _row('there are', found.room / 1e6, 'MB'),
  ]
  if found.refusal:
    return [*told, '', f'it does not fit: {found.refusal}']
  told += ['', 'sent by each chip in a step']
  for kind in sorted({collective.kind for collective in found.sent}):
    of_kind = [c for c in found.sent if c.kind == kind]
    count = sum(c.times for c in of_kind)
    sent = sum(c.sent_bytes for c in of_kind)
    told.append(_row(f'{kind}, {count} times', sent / 1e6, 'MB'))
  told += [
    _row('all', found.sent_bytes / 1e6, 'MB'),
    '',
    'a step on each chip',
    _row('operations', found.flops / 1e12, 'T'),
    _row('memory read and written', found.accessed / 1e6, 'MB'),
  ]
  seconds = found.seconds()
  for name, (_, rate) in found.rates().items():
    label = f'{name}, at {rate / 1e12:.4g} T/s'
    told.append(_row(label, seconds[name] * 1e3, 'ms'))
  if seconds:
    bound = max(seconds, key=lambda name: seconds[name])
    told.append(
      f'  estimated {seconds[bound] * 1e3:.3g} ms at least, bound by {bound}'
    )
  verdict = 'it fits' if found.fits else 'it does not fit'
  return [*told, '', f'{verdict}: {found.total / found.room:.0%} of the memory']


def _row(name: str, value: float, unit: str) -> str:
  return f'  {name:<32}{value:12.3f} {unit}'


def _check_all_are_used(
  experiment: config_lib.Experiment,
  topology: str,
  devices: Sequence[jax.Device],
) -> None:
  """Raises a UserError for a mesh that does not take all chips of a TPU."""
  mesh = experiment.mesh or sections.MeshConfig()
  taken = mesh.data * mesh.fsdp * mesh.memory
  if taken == len(devices):
    return
  replicas = _most_replicas(experiment, devices)
  hint = (
    f'for one, --config.mesh.data={replicas}'
    f' --config.mesh.memory={len(devices) // replicas}'
    if replicas
    else 'no other mesh divides its batches and its table'
  )
  raise schema.UserError(
    f'config.mesh takes {taken} of the {len(devices)} chips of'
    f' --topology={topology}: {hint}'
  )


def _most_replicas(
  experiment: config_lib.Experiment, devices: Sequence[jax.Device]
) -> int:
  """Along `data`, with the others along `memory`; 0 if no such mesh is one."""
  mesh = experiment.mesh or sections.MeshConfig()
  for replicas in range(len(devices), 0, -1):
    parts, rest = divmod(len(devices), replicas)
    if rest:
      continue
    try:
      wanted = dataclasses.replace(mesh, data=replicas, fsdp=1, memory=parts)
      tried = dataclasses.replace(experiment, mesh=wanted)
      model_lib.check(tried, devices)
    except ValueError:
      continue
    return replicas
  return 0


if __name__ == '__main__':
  sys.exit(program.run(main))
