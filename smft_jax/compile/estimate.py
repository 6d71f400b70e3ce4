"""Estimates what a training step needs of each device.

The least time of a step is the largest of three, each at the peak rate of the
device (`compiled.DEVICES`): the operations of its matrix products, the bytes
that it reads and writes in its memory, and the bytes that it sends over all its
links. The last two are read off the compiled program (`traffic`). Chip hours of
a run are those of its steps at an assumed share of the peak (`UTILISATION`).
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import math

from flax import nnx
import jax

from smft_jax import flops
from smft_jax import memory
from smft_jax.compile import compiled
from smft_jax.compile import hlo
from smft_jax.compile import shapes
from smft_jax.compile import traffic
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.data import batches
from smft_jax.sharded import layout as layout_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

# Share of the peak rate of what bounds a step. Assumed, not measured: published
# runs of large decoders reach 0.35 to 0.6.
UTILISATION = 0.4
# Learned in a run, where the config does not limit them.
_DOCUMENTS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """What a step needs of each device.

  Attributes:
    step: A line on the step: method, batch and slots.
    run: What the steps of a run do, such as 'pretraining'.
    num_steps: Steps of that run.
    tokens: In the batch of a step, if no row has padding.
    device: Kind of device.
    mesh: Sizes of the mesh by axis.
    memory: Bytes by kind; their sum is the peak.
    capacity: Bytes of memory of the device.
    sent: The collectives.
    flops: Operations of the matrix products.
    accessed: Bytes of memory read and written.
    peak: Peak rates of the device; None if unknown.
    refusal: Why the compiler refused the step, or ''.
  """

  step: str
  run: str
  num_steps: int
  tokens: int
  device: str
  mesh: dict[str, int]
  memory: dict[str, float]
  capacity: float
  sent: list[traffic.Collective]
  flops: float
  accessed: float
  peak: compiled.Device | None
  refusal: str

  @property
  def total(self) -> float:
    """Peak memory in bytes."""
    return sum(self.memory.values())

  @property
  def fits(self) -> bool:
    """Whether the peak is within the memory of the device."""
    return not self.refusal and self.total <= self.capacity

  @property
  def sent_bytes(self) -> float:
    """Bytes sent in a step."""
    return sum(collective.sent_bytes for collective in self.sent)

  def rates(self) -> dict[str, tuple[float, float]]:
    """Returns by resource the amount needed and the peak rate per second."""
    if self.peak is None:
      return {}
    return {
      'compute': (self.flops, self.peak.flops),
      'memory': (self.accessed, self.peak.bandwidth),
      'links': (self.sent_bytes, self.peak.links),
    }

  def seconds(self) -> dict[str, float]:
    """Returns the least seconds of a step by resource; empty if unknown."""
    return {
      name: amount / rate for name, (amount, rate) in self.rates().items()
    }

  def device_hours(self) -> float | None:
    """Returns the hours of a run's steps, of all devices; None if unknown."""
    seconds = self.seconds()
    if not seconds:
      return None
    num_devices = math.prod(self.mesh.values())
    step_s = max(seconds.values()) / UTILISATION
    return self.num_steps * step_s * num_devices / 3600


def estimate(
  experiment: config_lib.Experiment, devices: Sequence[jax.Device]
) -> Estimate:
  """Compiles the step of a config, and measures what it needs.

  Args:
    experiment: The config.
    devices: All devices; without a mesh in the config the first is used.

  Raises:
    UserError: As in `shapes.step`.
  """
  state, batch = shapes.step(experiment, devices)
  mesh = experiment.mesh or sections.MeshConfig()
  if experiment.mesh is None:
    state, batch = compiled.on_device(devices[0], (state, batch))
  stream = experiment.stream
  static = {'micro_batch_size': stream.micro_batch_size if stream else None}
  program = compiled.compile_for(step_lib.train_step, state, batch, **static)
  arguments: dict[str, float] = dict(bytes_by_kind(state, batch))
  # A program that was refused has no text.
  parsed, others = hlo.parse(program.text), dict(program.memory)
  # Arrays are padded to tiles, and unused ones left out.
  padding = others.pop('arguments') - sum(arguments.values())
  peak = compiled.DEVICES.get(devices[0].device_kind)
  size, length = batch.tokens.shape
  run, num_steps = _run(experiment)
  num_devices = mesh.data * mesh.fsdp * mesh.memory
  return Estimate(
    step=(
      f'{state.method.name}: {size} rows of {length} tokens,'
      f' {experiment.memory.num_slots} slots'
    ),
    run=run,
    num_steps=num_steps,
    tokens=size * length,
    device=devices[0].device_kind,
    mesh={axis: getattr(mesh, axis) for axis in layout_lib.AXES},
    memory=arguments | {'padding of these': padding} | others,
    capacity=peak.memory if peak else compiled.free_memory(devices[0]),
    sent=traffic.collectives(parsed, num_devices) if program.text else [],
    # Devices along `memory` repeat the products of the same tokens.
    flops=flops.matmul_flops_of_device(
      mesh.data * mesh.fsdp,
      functools.partial(step_lib.train_step, **static),
      state,
      batch,
    ),
    accessed=traffic.accessed_bytes(parsed) if program.text else 0.0,
    peak=peak,
    refusal=program.refusal,
  )


def _run(experiment: config_lib.Experiment) -> tuple[str, int]:
  """Returns what the steps of a run do, and their number."""
  stream = experiment.stream
  if stream is None:
    assert isinstance(experiment.base, sections.BaseConfig)
    return experiment.base.doing, experiment.base.steps
  documents = stream.max_documents or _DOCUMENTS
  steps = documents * stream.steps_per_document
  return f'learning {documents} documents', steps


def bytes_by_kind(
  state: state_lib.TrainState, batch: batches.Batch
) -> dict[str, int]:
  """Returns the bytes on each device of a step's arguments.

  Args:
    state: Shapes with shardings.
    batch: Shapes with shardings.
  """
  values, subkeys, rest = nnx.split_state(
    state.params, memory.MemoryValue, memory.MemorySubkeys, ...
  )
  counters = (state.step, state.skipped, state.skipped_in_a_row)
  kinds = {
    'value table': values,
    'sub-keys': subkeys,
    'other weights': rest,
    'optimizer state': state.opt_state,
    'document frequencies': state.background,
    "the method's arrays": (state.extras, counters),
    'batch': batch,
  }
  return {kind: compiled.bytes_per_device(tree) for kind, tree in kinds.items()}


def lines(estimated: Estimate) -> list[str]:
  """Returns an estimate as lines of text."""
  mesh = ' x '.join(f'{axis} {size}' for axis, size in estimated.mesh.items())
  text = [
    estimated.step,
    f'on {estimated.device}: {mesh}',
    '',
    'memory of each device',
    *(_row(k, n / 1e6, 'MB') for k, n in estimated.memory.items()),
    _row('total', estimated.total / 1e6, 'MB'),
    _row('available', estimated.capacity / 1e6, 'MB'),
  ]
  if estimated.refusal:
    return [*text, '', f'it does not fit: {estimated.refusal}']
  text += ['', 'sent by each device in a step']
  for kind in sorted({collective.kind for collective in estimated.sent}):
    same_kind = [c for c in estimated.sent if c.kind == kind]
    count = sum(c.times for c in same_kind)
    sent = sum(c.sent_bytes for c in same_kind)
    text.append(_row(f'{kind}, {count} times', sent / 1e6, 'MB'))
  text += [
    _row('total', estimated.sent_bytes / 1e6, 'MB'),
    '',
    'a step on each device',
    _row('operations', estimated.flops / 1e12, 'T'),
    _row('memory read and written', estimated.accessed / 1e6, 'MB'),
  ]
  seconds = estimated.seconds()
  for name, (_, rate) in estimated.rates().items():
    label = f'{name}, at {rate / 1e12:.4g} T/s'
    text.append(_row(label, seconds[name] * 1e3, 'ms'))
  if seconds:
    bound = max(seconds, key=lambda name: seconds[name])
    text.append(
      f'  estimated {seconds[bound] * 1e3:.3g} ms at least, bound by {bound}'
    )
  text += [
    '',
    f'{estimated.run}, {estimated.num_steps} steps, without measuring',
    _row('tokens', estimated.num_steps * estimated.tokens / 1e6, 'M'),
  ]
  hours = estimated.device_hours()
  if hours is not None:
    label = f'chip hours, at {UTILISATION:.0%} of the peak'
    text.append(_row(label, hours, 'h, an estimate'))
  verdict = 'it fits' if estimated.fits else 'it does not fit'
  share = estimated.total / estimated.capacity
  return [*text, '', f'{verdict}: {share:.0%} of the memory']


def _row(name: str, value: float, unit: str) -> str:
  return f'  {name:<32}{value:12.3f} {unit}'
