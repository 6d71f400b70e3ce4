"""The arguments of a config's training step as shapes, without any arrays.

`jax.jit` lowers a step from these, for devices that need not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from ml_collections import config_dict
import numpy as np

from smft_jax import hf
from smft_jax import methods
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import packing
from smft_jax.data import prepared
from smft_jax.data import tokenizers
from smft_jax.data.world import world
from smft_jax.models import transformer
from smft_jax.runs import lesson_batches
from smft_jax.runs import model as model_lib
from smft_jax.runs import pretrain
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import paths
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib


def step(
  experiment: config_lib.Experiment,
  devices: Sequence[jax.Device] | None = None,
) -> tuple[state_lib.TrainState, batches.Batch]:
  """Returns the arguments of `step_lib.train_step` in a run of a config.

  The step is that on the stream, or without a stream that of pretraining.

  Args:
    experiment: The config.
    devices: Devices of its mesh; None takes those of this machine.

  Returns:
    State and batch, with `jax.ShapeDtypeStruct`s for arrays; with shardings if
    the config has a mesh. A run may reuse hidden states below the memory from
    an earlier step; this step computes them.

  Raises:
    UserError: If the method takes no steps.
  """
  vocab_size, length = vocab_size_and_length(experiment)
  found = state(experiment, vocab_size, devices)
  if found.method.update == 'none':
    raise schema.UserError(
      f'config.method.name = {found.method.name!r} takes no steps: there is'
      ' nothing to compile'
    )
  layout = state_lib.layout_of(found)
  return found, batch(experiment, length, layout)


def parse_experiment(config: config_dict.ConfigDict) -> config_lib.Experiment:
  """Parses a config, with a placeholder for data that must be named.

  Raises:
    UserError: As in `config.from_config_dict`, but not for missing data.
  """
  for key in config.get('data', {}):
    try:
      config.data[key]
    except config_dict.RequiredValueError:
      config.data[key] = 'unread'
  return config_lib.from_config_dict(config)


def vocab_size_and_length(experiment: config_lib.Experiment) -> tuple[int, int]:
  """Returns the size of the vocabulary and the length of a step's rows.

  For the embedded world both are those of a run. For other data, which is not
  read, they are the largest that the config allows: the size of
  `data.tokenizer` or of that of prepared rows, by default
  `data.tokenizer_vocab_size`; and
  `stream.max_length` or `base.max_length`.
  """
  settings: Any = experiment.data
  stream = experiment.stream
  longest = experiment.base.max_length
  replays = _replays(experiment)
  if settings.kind != 'world' or experiment.base.path:
    if stream is not None and stream.max_length:
      longest = max(stream.max_length, longest if replays else 0)
    if experiment.base.path:
      vocab_size = hf.load_config(experiment.base.path).vocab_size
      return vocab_size, batches.bucket_length(longest, 4)
    vocab_size = settings.tokenizer_vocab_size
    if settings.tokenizer:
      vocab_size = tokenizers.read(paths.expand(settings.tokenizer)).vocab_size
    elif prepared.is_folder(settings.running_text):
      vocab_size = prepared.read(settings.running_text).facts['vocab_size']
    return vocab_size, batches.bucket_length(longest, 4)
  task = world.make_task(settings)
  tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
  found = []
  if stream is not None:
    texts = lesson_batches.encode_documents(stream, task, tokenizer, longest)
    if stream.packed:
      texts = lesson_batches.pack(stream, texts, experiment.seed)
    found += texts
  if stream is None or replays:
    old = encoding.tokenize(task.pretraining, tokenizer, max_length=longest)
    if stream is None and _trained(experiment).packed:
      old = packing.pack(old, longest, experiment.seed)
    found.append(old)
  return tokenizer.vocab_size, lesson_batches.batch_length(found)


def _trained(experiment: config_lib.Experiment) -> sections.BaseConfig:
  """Returns the training of the base.

  Raises:
    UserError: If it takes none.
  """
  if not isinstance(experiment.base, sections.BaseConfig):
    raise schema.UserError(
      'config.stream is missing, and a base that is fitted takes no steps:'
      ' there is nothing to compile'
    )
  return experiment.base


def state(
  experiment: config_lib.Experiment,
  vocab_size: int,
  devices: Sequence[jax.Device] | None = None,
) -> state_lib.TrainState:
  """Returns the state before the first step, without making arrays.

  Args:
    experiment: As in `step`.
    vocab_size: Size of the vocabulary.
    devices: As in `step`.

  Returns:
    As in `step`.
  """
  config = model_lib.config_of(experiment, vocab_size, devices)
  if experiment.stream is None:
    method = pretrain.make_method(_trained(experiment))
  else:
    assert experiment.method is not None
    method = methods.make(experiment.method)

  def build() -> state_lib.TrainState:
    model: nnx.Module = transformer.Transformer(config, rngs=nnx.Rngs(0))
    if method.add_modules is not None:
      model = method.add_modules(model, nnx.Rngs(0))
    extras: method_lib.Extras = {}
    if method.begin is not None:
      graphdef, params = nnx.split(model)
      size = (32, experiment.base.max_length)
      seen = batches.Batch(
        np.zeros(size, np.int32), np.ones(size, bool), np.ones(size, np.float32)
      )
      extras |= method.begin(graphdef, params, itertools.repeat(seen))
    if method.begin_document is not None:
      extras |= method.begin_document(0, 1)
    background = method_lib.Background(
      jnp.zeros(experiment.memory.num_slots), jnp.zeros(())
    )
    return state_lib.init(model, method, background, extras)

  return state_lib.shard(
    jax.eval_shape(build),
    lambda x, placed: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed),
  )


def batch(
  experiment: config_lib.Experiment,
  length: int,
  layout: layout_lib.Layout | None,
) -> batches.Batch:
  """Returns a batch of a step, [B, L] without padding.

  Args:
    experiment: As in `step`.
    length: L.
    layout: How it is sharded; None for one device.

  Returns:
    As in `step`.
  """
  settings = experiment.stream or _trained(experiment)
  replays = _replays(experiment)
  packed = (experiment.stream or _trained(experiment)).packed
  shape = settings.batch_size, length
  return batches.Batch(
    tokens=_batch_shape(shape, jnp.int32, layout),
    mask=_batch_shape(shape, jnp.bool_, layout),
    loss_weights=_batch_shape(shape, jnp.float32, layout),
    ranked=_batch_shape(shape, jnp.bool_, layout) if replays else None,
    segments=_batch_shape(shape, jnp.int32, layout) if packed else None,
  )


def _replays(experiment: config_lib.Experiment) -> bool:
  """Returns whether batches of the stream hold pretraining text."""
  if experiment.method is None:
    return False
  return methods.make(experiment.method).replay_fraction > 0


def _batch_shape(shape, dtype, layout: layout_lib.Layout | None):
  """Returns a shape whose first dimension is the batch, with its sharding."""
  placed = None if layout is None else layout.sharding(layout.batch(shape))
  return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=placed)
