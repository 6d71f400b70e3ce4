"""Compiles the training step of a config, for devices present or not.

  python -m smft_jax.compile --config=configs/paper_1b.py --topology=v5e:16x16 \
      --config.mesh.data=8 --config.mesh.memory=32

It prints what a step needs of each device: bytes by kind, bytes sent, and the
least time; and of a run its tokens and chip hours (`estimate`). It exits with
code 1 if the step does not fit. The step is that of `smft_jax.train` on the
stream, or of pretraining for a config without a stream. It is compiled from
shapes: no weights are made, and only the embedded world is read; rows of other
data have the longest length that the config allows. Without `--topology` it
compiles for the devices of this machine. For a TPU it needs libtpu
(`pip install -e ".[tpu]"`), but no TPU.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import sys

import jax

from smft_jax import schema
from smft_jax.compile import compiled
from smft_jax.compile import estimate as estimate_lib
from smft_jax.compile import shapes
from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.runs import model as model_lib
from smft_jax.runtime import program

_ABOUT = 'Estimates what a training step needs of devices that are absent.'
_FLAGS = {
  'topology': command_line.Flag(
    default='',
    help='a TPU such as v5e:16x16 or v5p:4x4x4; default: this machine',
  ),
}


def main(argv: list[str]) -> int:
  """Runs the program; returns 1 if the step does not fit."""
  invocation = command_line.parse(argv, _FLAGS, _ABOUT)
  experiment = shapes.parse_experiment(invocation.config)
  topology = invocation.flags['topology']
  devices = compiled.tpu(topology) if topology else jax.devices()
  if topology:
    _check_mesh_is_whole(experiment, topology, devices)
  model_lib.check(experiment, devices)
  found = estimate_lib.estimate(experiment, devices)
  print('\n'.join(estimate_lib.lines(found)))
  return 0 if found.fits else 1


def _check_mesh_is_whole(
  experiment: config_lib.Experiment,
  topology: str,
  devices: Sequence[jax.Device],
) -> None:
  """Raises a UserError for a mesh that leaves out chips of the topology."""
  mesh = experiment.mesh or sections.MeshConfig()
  used = mesh.data * mesh.fsdp * mesh.memory
  if used == len(devices):
    return
  replicas = _most_replicas(experiment, devices)
  hint = (
    f'for one, --config.mesh.data={replicas}'
    f' --config.mesh.memory={len(devices) // replicas}'
    if replicas
    else 'no other mesh divides its batches and its table'
  )
  raise schema.UserError(
    f'config.mesh takes {used} of the {len(devices)} chips of'
    f' --topology={topology}: {hint}'
  )


def _most_replicas(
  experiment: config_lib.Experiment, devices: Sequence[jax.Device]
) -> int:
  """Returns the largest valid `data`, with the rest in `memory`; 0 if none."""
  mesh = experiment.mesh or sections.MeshConfig()
  for replicas in range(len(devices), 0, -1):
    parts, rest = divmod(len(devices), replicas)
    if rest:
      continue
    try:
      tried = dataclasses.replace(mesh, data=replicas, fsdp=1, memory=parts)
      model_lib.check(dataclasses.replace(experiment, mesh=tried), devices)
    except ValueError:
      continue
    return replicas
  return 0


if __name__ == '__main__':
  sys.exit(program.run(main))
