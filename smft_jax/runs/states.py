"""The training states of a run: the first, the saved, the last."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import memory
from smft_jax import methods
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import stream as stream_lib
from smft_jax.runs import background_cache
from smft_jax.runs import base as base_lib
from smft_jax.runs import resume
from smft_jax.runtime import preemption
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib


def count_background(
  experiment: config_lib.Experiment, base: base_lib.Base
) -> method_lib.Background:
  """Reads or counts the background statistics of an experiment."""
  return background_cache.find_or_count(
    experiment.background,
    base,
    max_length=experiment.base.max_length,
    seed=experiment.seed,
  )


# What the methods that train nothing but values change.
_OWN = (memory.MemoryValue, memory.SlotLessons)


def first_state(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  *,
  copies: bool = True,
) -> state_lib.TrainState:
  """Returns the state before the first document.

  Args:
    experiment: The run's config.
    base: The model to start from.
    copies: Whether the state has its own arrays, which steps may donate; else
      it shares those of the base, see `take_over`.
  """
  assert experiment.method is not None
  method = methods.make(experiment.method)
  graphdef, params, extras = _prepared(
    base, method, experiment.base.max_length, experiment.seed
  )
  if copies:
    params, extras = jax.tree.map(jnp.copy, (params, extras))
  state = state_lib.init(
    nnx.merge(graphdef, params),
    method,
    count_background(experiment, base)._replace(accesses=None),
    extras,
  )
  if base.layout is None:
    # The sharding that steps return, or the second one would compile again.
    state = jax.device_put(state, state_lib.value_table(params).sharding)
  return state


def take_over(state: state_lib.TrainState) -> state_lib.TrainState:
  """Makes steps possible on a state that shares the arrays of its base.

  Only values are copied. The first step takes the other arrays from the base,
  which `given_back` returns to it.

  Args:
    state: A first state without `copies`, of a method that trains values only.
  """
  own, shared = nnx.split_state(state.params, _OWN, ...)
  own, extras = jax.tree.map(jnp.copy, (own, state.extras))
  return dataclasses.replace(
    state, params=nnx.merge_state(own, shared), extras=extras
  )


def given_back(
  base: base_lib.Base, state: state_lib.TrainState
) -> base_lib.Base:
  """Returns the base of a state that took it over."""
  own = nnx.filter_state(base.params, _OWN)
  _, shared = nnx.split_state(state.params, _OWN, ...)
  return dataclasses.replace(base, params=nnx.merge_state(own, shared))


def last_state(
  experiment: config_lib.Experiment, base: base_lib.Base, workdir: pathlib.Path
) -> state_lib.TrainState:
  """Returns the newest saved state of a run, finished or stopped.

  Args:
    experiment: The run's config.
    base: The model it started from.
    workdir: Its folder.

  Returns:
    The state.

  Raises:
    ValueError: If there is none, or it is of another run.
  """
  state, folder = first_state(experiment, base), workdir / 'checkpoints'
  found = checkpoints_of(experiment, base, state, workdir).restore(state)
  if found is None:
    raise schema.UserError(
      f'{folder} holds no checkpoint: the run has not saved one yet'
    )
  return found[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoints:
  """The checkpoints of a run: `resume`, with the run's arguments.

  Attributes:
    folder: Their folder.
    owner: As in `checkpoint.save`.
    base_table: As in `resume.save`.
  """

  folder: pathlib.Path
  owner: dict[str, Any]
  base_table: jax.Array | None

  def save(self, state: state_lib.TrainState, notes: dict[str, Any]) -> None:
    """Saves a state."""
    resume.save(self.folder, state, self.owner, notes, self.base_table)

  def restore(
    self, state: state_lib.TrainState
  ) -> tuple[state_lib.TrainState, dict[str, Any]] | None:
    """Returns the newest state and its notes; None if there is none."""
    return resume.restore(self.folder, state, self.owner, self.base_table)


def checkpoints_of(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  state: state_lib.TrainState,
  workdir: pathlib.Path,
) -> Checkpoints:
  """Returns the checkpoints of a run; `state` is its first state."""
  assert experiment.method is not None
  only_values = experiment.method.only_values
  return Checkpoints(
    folder=workdir / 'checkpoints',
    owner={
      'config': config_lib.compared(experiment),
      'base model': base.fingerprint,
      'background': resume.background_identity(state.background),
    },
    base_table=state_lib.value_table(base.params) if only_values else None,
  )


@functools.lru_cache(maxsize=1)
def _prepared(
  base: base_lib.Base, method: method_lib.Method, max_length: int, seed: int
):
  """Adds the method's modules to the model, and runs its `begin`.

  Cached; runs of a sweep that differ only in rates share the result.
  """
  model = nnx.merge(base.graphdef, base.params)
  if method.add_modules is not None:
    model = method.add_modules(model, nnx.Rngs(seed))
  graphdef, params = nnx.split(model)
  extras: method_lib.Extras = {}
  if method.begin is not None:
    texts = stream_lib.Batches(
      rows=base_lib.pretraining_rows(base, max_length),
      batch_size=32,
      seed=seed,
      pad_id=base.tokenizer.pad_id,
    )
    found = map(texts.batch, itertools.count())
    extras = method.begin(graphdef, params, preemption.interruptible(found))
  return graphdef, params, extras
