"""Compiles the training step of a config for devices that need not be there.

  python -m smft_jax.compile --config=configs/paper_1b.py --topology=v5e:16x16 \
      --config.mesh.data=32 --config.mesh.memory=8

It prints what a step takes of each chip: bytes by kind, what is sent, how long
it takes at least; and exits with code 1 if it does not fit. The step is that of
`smft_jax.train` on the stream, compiled from shapes: no weights are made and no
data is read. Without `--topology` it compiles for the devices at hand. For a
TPU it needs libtpu, and no TPU.

The estimated time of a step is the largest of three, each at the chip's peak:
operations of its matrix products, bytes of its memory read and written (as XLA
counts them, a loop once), bytes sent over its links. A step takes longer.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
import sys
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from ml_collections import config_dict

from smft_jax import base as base_lib
from smft_jax import cli
from smft_jax import compiled
from smft_jax import config as config_lib
from smft_jax import flops
from smft_jax import memory
from smft_jax import method as method_lib
from smft_jax import methods
from smft_jax import traffic
from smft_jax import train_step
from smft_jax import transformer
from smft_jax.data import batches
from smft_jax.data import tokenizers
from smft_jax.data import world

_FLAGS = {
  'topology': cli.Flag(
    default='', help='a TPU such as v5e:16x16 or v5p:4x4x4; none: at hand'
  ),
  'length': cli.Flag(
    default=0, help='tokens in a row; default config.base.max_length'
  ),
}


def state_shapes(
  experiment: config_lib.Experiment,
  vocab_size: int,
  devices: Sequence[jax.Device] | None = None,
) -> train_step.TrainState:
  """The state of a step, in shapes: it takes neither time nor memory.

  Args:
    experiment: The config, with a `stream` and a `method`.
    vocab_size: T.
    devices: Those of the config's mesh; None takes those at hand.

  Returns:
    The state, its arrays `jax.ShapeDtypeStruct`s; with shardings if the config
    has a mesh.
  """
  assert experiment.method is not None
  method = methods.METHODS[experiment.method.name].make(experiment.method)
  config = base_lib.transformer_config(experiment, vocab_size, devices)

  def build():
    model = transformer.Transformer(config, rngs=nnx.Rngs(0))
    if method.add_modules is not None:
      model = method.add_modules(model, nnx.Rngs(0))
    background = method_lib.Background(
      jnp.zeros(experiment.memory.num_slots), jnp.zeros(())
    )
    return train_step.init_state(model, method, background)

  return train_step.lay_out(
    jax.eval_shape(build),
    lambda x, sharding: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding
    ),
  )


def batch_shapes(
  state: train_step.TrainState, batch_size: int, length: int
) -> batches.Batch:
  """A batch [B, L] without padding in shapes, laid out as a step takes it."""
  layout = train_step.layout_of(state)
  placed = None
  if layout is not None:
    placed = layout.sharding(layout.batch((batch_size, length)))

  def shape(dtype):
    return jax.ShapeDtypeStruct((batch_size, length), dtype, sharding=placed)

  return batches.Batch(shape(jnp.int32), shape(jnp.bool_), shape(jnp.float32))


def bytes_by_kind(
  state: train_step.TrainState, batch: batches.Batch
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """What a step takes of each chip.

  Attributes:
    device: Name of the kind of chip.
    num_devices: How many there are in the mesh.
    memory: Bytes by kind; together the peak.
    room: Bytes a chip has.
    sent: The collectives.
    flops: Operations of the matrix products on each chip.
    accessed: Bytes of memory read and written, or 0 if XLA does not say.
    peak: The chip's peak rates; None where they are not known.
    refusal: Why the compiler refused, or ''.
  """

  device: str
  num_devices: int
  memory: dict[str, float]
  room: float
  sent: list[traffic.Collective]
  flops: float
  accessed: float
  peak: compiled.Device | None
  refusal: str

  @property
  def fits(self) -> bool:
    """Whether the peak is within the chip's memory."""
    return not self.refusal and sum(self.memory.values()) <= self.room

  @property
  def sent_bytes(self) -> float:
    """Bytes that each chip sends in a step."""
    return sum(collective.sent_bytes for collective in self.sent)

  def seconds(self) -> dict[str, float]:
    """The least time of a step by what takes it; nothing if not known."""
    if self.peak is None:
      return {}
    return {
      'compute': self.flops / self.peak.flops,
      'memory': self.accessed / self.peak.bandwidth,
      'links': self.sent_bytes / self.peak.links,
    }


def report(
  experiment: config_lib.Experiment,
  vocab_size: int,
  length: int,
  devices: Sequence[jax.Device],
) -> Report:
  """Compiles the step of a config, and says what it takes.

  Args:
    experiment: The config, with a `stream` and a `method`.
    vocab_size: T.
    length: L, tokens in a row.
    devices: All there are; without a mesh in the config the first is taken.

  Returns:
    The report.
  """
  assert experiment.stream is not None
  state = state_shapes(experiment, vocab_size, devices)
  batch = batch_shapes(state, experiment.stream.batch_size, length)
  replicas = num_devices = 1
  if experiment.mesh is None:
    state, batch = compiled.on_device(devices[0], (state, batch))
  else:
    replicas = experiment.mesh.data * experiment.mesh.fsdp
    num_devices = replicas * experiment.mesh.memory
  program = compiled.compile_for(train_step.train_step, state, batch)
  kinds: dict[str, float] = dict(bytes_by_kind(state, batch))
  taken = dict(program.memory)
  # Tiles of a chip are filled up, and what is not used is left out.
  kinds['padding of these'] = taken.pop('arguments') - sum(kinds.values())
  peak = compiled.DEVICES.get(devices[0].device_kind)
  total = flops.matmul_flops(train_step.train_step, state, batch)
  return Report(
    device=devices[0].device_kind,
    num_devices=num_devices,
    memory=kinds | taken,
    room=peak.memory if peak else compiled.room(devices[0]),
    sent=traffic.collectives(program.text, num_devices),
    # Devices along `memory` see the same tokens, and do the same with them.
    flops=total / replicas,
    accessed=program.cost.get('bytes accessed', 0.0),
    peak=peak,
    refusal=program.refusal,
  )


def main(argv: list[str]) -> int:
  """The program; returns 1 if the step does not fit."""
  invocation = cli.parse(argv, _FLAGS)
  experiment = _experiment(invocation.config)
  topology = invocation.flags['topology']
  devices = compiled.tpu(topology) if topology else jax.devices()
  _check_mesh(experiment, topology, len(devices))
  try:
    base_lib.transformer_config(experiment, 2, devices)
  except ValueError as error:
    raise config_lib.UserError(
      f'config.model, config.memory or config.mesh does not fit: {error}'
    ) from error
  length = invocation.flags['length'] or experiment.base.max_length
  found = report(experiment, _vocab_size(experiment), length, devices)
  print('\n'.join(lines(found, experiment, length)))
  return 0 if found.fits else 1


def lines(
  found: Report, experiment: config_lib.Experiment, length: int
) -> list[str]:
  """A report as text."""
  assert experiment.stream is not None
  assert experiment.method is not None
  wanted = experiment.mesh or config_lib.MeshConfig()
  total = sum(found.memory.values())
  told = [
    f'{experiment.method.name}: {experiment.stream.batch_size} rows of'
    f' {length} tokens, {experiment.memory.num_slots} slots',
    f'{found.num_devices} x {found.device}: data {wanted.data}, fsdp'
    f' {wanted.fsdp}, memory {wanted.memory} ({wanted.split})',
    '',
    'bytes on each chip',
    *(_row(k, n / 1e9, 'GB') for k, n in found.memory.items()),
    _row('all', total / 1e9, 'GB'),
    _row('there are', found.room / 1e9, 'GB'),
  ]
  if found.refusal:
    return [*told, '', f'it does not fit: {found.refusal}']
  told += ['', 'sent by each chip in a step']
  kinds = sorted({collective.kind for collective in found.sent})
  for kind in kinds:
    of_kind = [c for c in found.sent if c.kind == kind]
    count = sum(c.times for c in of_kind)
    sent = sum(c.sent_bytes for c in of_kind)
    told.append(_row(f'{kind}, {count} times', sent / 1e6, 'MB'))
  told += [
    _row('all', found.sent_bytes / 1e6, 'MB'),
    '',
    'a step on each chip',
    _row('operations', found.flops / 1e12, 'T'),
    _row('memory read and written', found.accessed / 1e9, 'GB'),
  ]
  seconds = found.seconds()
  if seconds:
    told += [_row(f'least for {k}', s * 1e3, 'ms') for k, s in seconds.items()]
    bound = max(seconds, key=lambda name: seconds[name])
    told.append(
      f'  estimated {max(seconds.values()) * 1e3:.3g} ms, bound by {bound}'
    )
  verdict = 'it fits' if found.fits else 'it does not fit'
  return [*told, '', f'{verdict}: {total / found.room:.0%} of the memory']


def _row(name: str, value: float, unit: str) -> str:
  return f'  {name:<32}{value:12.3f} {unit}'


def _experiment(config: config_dict.ConfigDict) -> config_lib.Experiment:
  """The config, with a name in place of data that it would read."""
  for key in config.get('data', {}):
    try:
      config.data[key]
    except config_dict.RequiredValueError:
      config.data[key] = 'unread'
  experiment = config_lib.from_config_dict(config)
  if experiment.stream is None:
    raise config_lib.UserError(
      'config.stream is missing: there is no step to compile'
    )
  return experiment


def _check_mesh(
  experiment: config_lib.Experiment, topology: str, devices: int
) -> None:
  """Checks that a mesh takes all chips of a TPU."""
  wanted = experiment.mesh
  taken = wanted.data * wanted.fsdp * wanted.memory if wanted else 1
  if not topology or taken == devices:
    return
  assert experiment.stream is not None
  data = math.gcd(devices, experiment.stream.batch_size)
  raise config_lib.UserError(
    f'config.mesh takes {taken} of the {devices} chips of'
    f' --topology={topology}: for one, --config.mesh.data={data}'
    f' --config.mesh.memory={devices // data}'
  )


def _vocab_size(experiment: config_lib.Experiment) -> int:
  settings: Any = experiment.data
  if settings.kind != 'world':
    return settings.tokenizer_vocab_size
  texts = world.make_task(settings).vocabulary_texts()
  return tokenizers.train_word_level(texts).vocab_size


if __name__ == '__main__':
  sys.exit(cli.run(main))
