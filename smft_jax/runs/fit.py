"""Fits the memory of a pretrained model to the background, once."""

from __future__ import annotations

from collections.abc import Iterator
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


def fit(
  experiment: config_lib.Experiment,
  folder: pathlib.Path,
  task: task_lib.Task,
  tokenizer: tokenizers.Tokenizer,
  graphdef: nnx.GraphDef,
  like: nnx.State,
) -> nnx.State:
  """Loads weights, and fits the keys of their memory.

  Args:
    experiment: The run's config, with a fitted base.
    folder: The base's folder.
    task: The data.
    tokenizer: The base's.
    graphdef: The model.
    like: Shapes and shardings of its Variables.

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
  return nnx.state(fitted)


def _load(path: str, like: nnx.State) -> nnx.State:
  """Loads weights; what no file holds is zero."""

  def fill(leaf: Any) -> jax.Array:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
      return leaf
    return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)

  return jax.tree.map(fill, hf.load_params(path, like))
