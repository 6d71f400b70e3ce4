"""Fits the memory of a pretrained model to the background, once.

The cache keeps the fitted keys; the weights stay in the file that they came
from, and the values are zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import hf
from smft_jax import memory
from smft_jax import retrofit
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.runs import corpus as corpus_lib
from smft_jax.runtime import preemption
from smft_jax.runtime import progress
from smft_jax.store import checkpoint


def restore(
  stored: pathlib.Path, path: str, like: nnx.State, owner: Mapping[str, Any]
) -> nnx.State | None:
  """Loads weights and their fitted keys.

  Args:
    stored: The folder of the keys.
    path: The weights.
    like: Shapes and shardings of the model's Variables.
    owner: As in `checkpoint.save`.

  Returns:
    The model's Variables; None if there are no keys.
  """
  found = checkpoint.restore_newest(stored, _keys(like), owner)
  return None if found is None else nnx.merge_state(_load(path, like), found[1])


def fit(
  experiment: config_lib.Experiment,
  folder: pathlib.Path,
  task: task_lib.Task,
  tokenizer: tokenizers.Tokenizer,
  graphdef: nnx.GraphDef,
  like: nnx.State,
  owner: Mapping[str, Any],
) -> nnx.State:
  """Loads weights, and fits and stores the keys of their memory.

  Args:
    experiment: The run's config, with a fitted base.
    folder: The base's folder.
    task: The data.
    tokenizer: The base's.
    graphdef: The model.
    like: Shapes and shardings of its Variables.
    owner: As in `checkpoint.save`.

  Returns:
    The model's Variables.

  Raises:
    UserError: If the background is too short.
  """
  settings = experiment.background
  assert settings is not None
  params = _load(experiment.base.path, like)
  batches = corpus_lib.batches(
    settings,
    folder,
    task,
    tokenizer,
    max_length=experiment.base.max_length,
    seed=experiment.seed,
    layout=memory.layout_of(nnx.merge(graphdef, params)),
  )

  def background() -> Iterator[retrofit.Arguments]:
    with progress.Progress('fit', settings.num_batches, 'batch') as bar:
      for step in range(settings.num_batches):
        batch = batches.batch(step)
        yield batch.tokens, batch.mask
        bar.update(step + 1, tokens=batches.num_tokens(step))
        preemption.check()

  try:
    fitted = retrofit.fit_keys(
      nnx.merge(graphdef, params),
      background(),
      mask_of=lambda arguments: arguments[1],
      seed=experiment.seed,
    )
  except ValueError as error:
    raise schema.UserError(f'config.background: {error}') from None
  params = nnx.state(fitted)
  checkpoint.save(folder / 'params', 0, _keys(params), owner=owner)
  return params


def _keys(params: nnx.State) -> nnx.State:
  """Returns what is fitted: all parameters of the memory but the values."""
  _, keys, _ = nnx.split_state(
    params, memory.MemoryValue, memory.MemoryParam, ...
  )
  return keys


def _load(path: str, like: nnx.State) -> nnx.State:
  """Loads weights; what no file holds is zero."""

  def fill(leaf: Any) -> jax.Array:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
      return leaf
    return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)

  return jax.tree.map(fill, hf.load_params(path, like))
