"""The decoder that a config describes, and how it lies on a mesh."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools

import jax

from smft_jax import config as config_lib
from smft_jax import hf
from smft_jax import layers
from smft_jax import memory
from smft_jax import processes
from smft_jax import sharding


def check(
  experiment: config_lib.Experiment,
  devices: Sequence[jax.Device] | None = None,
) -> None:
  """Checks that the model can be built, on these devices or on all.

  Raises:
    UserError: If it cannot.
  """
  try:
    config_of(experiment, 2, devices)
  except ValueError as error:
    raise config_lib.UserError(
      f'config.model, config.memory or config.mesh does not fit: {error}'
    ) from error


def config_of(
  experiment: config_lib.Experiment,
  vocab_size: int,
  devices: Sequence[jax.Device] | None = None,
) -> layers.TransformerConfig:
  """The decoder that the config describes, on these devices or on all.

  Args:
    experiment: The config.
    vocab_size: Of the tokenizer; weights that are loaded have one of their own.
    devices: Those of a mesh.
  """
  chosen = dataclasses.asdict(experiment.model)
  layout = _layout(experiment, devices)
  if experiment.base.path:
    weights = hf.load_config(experiment.base.path)
    model_dim = weights.model_dim
    names = config_lib.CHOSEN_WITH_WEIGHTS
    make = functools.partial(
      dataclasses.replace, weights, **{name: chosen[name] for name in names}
    )
  else:
    model_dim = chosen['model_dim']
    make = functools.partial(
      layers.TransformerConfig, vocab_size=vocab_size, **chosen
    )
  if not chosen['memory_layers']:
    return make()
  return make(
    memory=memory.MemoryConfig(
      model_dim=model_dim,
      dtype=chosen['dtype'],
      layout=layout,
      **dataclasses.asdict(experiment.memory),
    )
  )


def _layout(
  experiment: config_lib.Experiment, devices: Sequence[jax.Device] | None
) -> sharding.Layout | None:
  """How the model lies on the mesh that the config asks for."""
  wanted = experiment.mesh
  if processes.count() > 1:
    _check_all_are_used(wanted, jax.device_count())
  if wanted is None:
    return None
  mesh = sharding.make_mesh(
    wanted.data, wanted.fsdp, wanted.memory, devices=devices
  )
  return sharding.make_layout(mesh, wanted.split, wanted.subkeys)


def _check_all_are_used(
  wanted: config_lib.MeshConfig | None, devices: int
) -> None:
  """Raises a UserError if a process would have nothing to do."""
  taken = wanted.data * wanted.fsdp * wanted.memory if wanted else 1
  if taken != devices:
    raise config_lib.UserError(
      f'config.mesh takes {taken} of the {devices} devices of'
      f' {processes.count()} processes, which must take all: for one,'
      f' --config.mesh.data={devices}'
    )
