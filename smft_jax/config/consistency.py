"""Checks that the sections of a config do not contradict each other."""

from __future__ import annotations

from typing import Any

from smft_jax import schema
from smft_jax.config import sections

# An `experiment.Experiment`; that file imports this one.
Experiment = Any


def check(experiment: Experiment) -> None:
  """Checks a whole config.

  Raises:
    UserError: Two sections contradict each other; the line names both.
  """
  _check_sizes(experiment)
  _check_storage(experiment)
  _check_quorum(experiment)
  if experiment.base.kind == 'fitted':
    _check_fitted(experiment)
  elif not experiment.memory.value_dim:
    raise schema.UserError('config.memory.value_dim is missing')
  if experiment.mesh is not None:
    _check_batches(experiment, experiment.mesh.data * experiment.mesh.fsdp)
  if experiment.stream is not None:
    _check_stream(experiment, experiment.stream)


def _check_stream(
  experiment: Experiment, stream: sections.StreamConfig
) -> None:
  """Checks that there is a way to learn, and something to learn into."""
  method = experiment.method
  if method is None:
    raise schema.UserError(
      'config.method is missing, and config.stream needs it'
    )
  if not experiment.has_memory:
    raise schema.UserError(
      'config.model.memory_layers is empty, so the stream has no memory to'
      ' learn into'
    )
  replayed = getattr(method, 'replay_fraction', 0)
  if replayed and stream.batch_size < 2:
    raise schema.UserError(
      f'config.method.replay_fraction = {replayed} needs a'
      ' config.stream.batch_size of at least 2, one row of the document and'
      f' one to replay, not {stream.batch_size}'
    )
  num_slots = experiment.memory.num_slots
  if method.ranks_slots and method.t > num_slots:
    raise schema.UserError(
      f'config.method.t = {method.t} is more than the'
      f' {num_slots} slots of config.memory.num_slots'
    )
  if method.needs_background and not experiment.background:
    other = ", or config.method.ranking = 'tf'"
    raise schema.UserError(
      'config.method needs document frequencies: give config.background'
      f'{other if method.ranks_slots else ""}'
    )


def _check_sizes(experiment: Experiment) -> None:
  """Checks that the tokenizer has one source and the memory is there."""
  tokenizer = getattr(experiment.data, 'tokenizer', '')
  knows_the_world = getattr(experiment.data, 'general', False)
  if experiment.base.path and tokenizer:
    raise schema.UserError(
      f'config.data.tokenizer = {tokenizer!r} is for a base made'
      ' from scratch; the weights of config.base.path come with their own'
    )
  if knows_the_world and not experiment.base.path:
    raise schema.UserError(
      'config.base.path is missing: the background of config.data is for'
      ' pretrained weights; give a Hugging Face folder or a GGUF file'
    )
  if experiment.has_memory:
    return
  for name in ('base.path', 'background', 'mesh'):
    section, _, key = name.partition('.')
    value = getattr(experiment, section)
    if getattr(value, key) if key else value:
      raise schema.UserError(
        'config.model.memory_layers is empty, so the model has no memory, and'
        f' config.{name} cannot be used'
      )


def _check_storage(experiment: Experiment) -> None:
  """Checks that nothing trains which is stored in bfloat16."""
  dtype, method = experiment.model.param_dtype, experiment.method
  if dtype == 'float32':
    return
  trained = ''
  if not experiment.base.path:
    trained = 'a base made from scratch'
  elif method and not method.keeps_weights:
    trained = f'config.method.name = {method.name!r}'
  if trained:
    raise schema.UserError(
      f'config.model.param_dtype = {dtype!r} is for weights'
      f" that stay what they are; {trained} trains them: take 'float32', as"
      ' small steps do not move a bfloat16'
    )


def _check_quorum(experiment: Experiment) -> None:
  """Checks that tokens can reach a quorum, or nothing would be learned."""
  quorum, method = experiment.memory.quorum, experiment.method
  if not quorum:
    return
  if experiment.base.kind != 'fitted':
    raise schema.UserError(
      f'config.memory.quorum = {quorum} is for a memory that is'
      " fitted (config.base.kind = 'fitted'); leave it out"
    )
  if experiment.stream is None or method is None or not method.only_values:
    return
  if not method.marks_lessons:
    raise schema.UserError(
      f'config.memory.quorum = {quorum} needs a method that marks'
      " what it teaches: config.method.name = 'sparse_memory' with"
      " config.method.select = 'document'; or set the quorum to 0"
    )


def _check_fitted(experiment: Experiment) -> None:
  """Checks that keys can be fitted to a background."""
  if experiment.background is None:
    raise schema.UserError(
      'config.background is missing: the memory is fitted to its texts'
    )
  if experiment.memory.gated or not experiment.memory.qk_norm:
    raise schema.UserError(
      'config.memory.gated must be False and qk_norm True for a memory that'
      ' is fitted'
    )
  if experiment.model.memory_placement != 'beside':
    raise schema.UserError(
      "config.model.memory_placement must be 'beside' for a memory that is"
      f' fitted, not {experiment.model.memory_placement!r}'
    )


def _check_batches(experiment: Experiment, replicas: int) -> None:
  sections_of = ('base', 'background', 'stream', 'evaluation')
  for name, field in (
    *((name, 'batch_size') for name in sections_of),
    ('stream', 'micro_batch_size'),
  ):
    size = getattr(getattr(experiment, name), field, None)
    if size and size % replicas:
      raise schema.UserError(
        f'config.{name}.{field} = {size} must be a multiple of the'
        f' {replicas} replicas of config.mesh.data times config.mesh.fsdp'
      )
