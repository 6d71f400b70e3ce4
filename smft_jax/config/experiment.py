"""Turns a config file's ConfigDict into frozen dataclasses, and checks it.

`from_config_dict` is called once, at the start of a program; nothing after it
sees a ConfigDict. To add a setting, add a field and describe it under
`Attributes`: the command line, `--print_config` and config.json follow.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import importlib
import json
import typing
from typing import Any

from ml_collections import config_dict

from smft_jax import memory as memory_lib
from smft_jax import schema
from smft_jax.config import sections
from smft_jax.models import layers

if typing.TYPE_CHECKING:
  from smft_jax.data import documents
  from smft_jax.data import facts
  from smft_jax.data import people
  from smft_jax.data.world import world

  DataConfig = (
    world.WorldConfig
    | people.PeopleConfig
    | documents.DocumentsConfig
    | facts.FactsConfig
  )
else:
  DataConfig = Any
MethodConfig = Any  # the `Config` of a file in `smft_jax.methods`

_DATA_KINDS = {
  'world': ('smft_jax.data.world.world', 'WorldConfig'),
  'people': ('smft_jax.data.people', 'PeopleConfig'),
  'squad': ('smft_jax.data.documents', 'DocumentsConfig'),
  'jsonl': ('smft_jax.data.documents', 'DocumentsConfig'),
  'simpleqa': ('smft_jax.data.documents', 'DocumentsConfig'),
  'facts': ('smft_jax.data.facts', 'FactsConfig'),
}

_BASES = {
  'trained': sections.BaseConfig,
  'fitted': sections.FittedBaseConfig,
}

# Settings that do not change what a run computes.
NOT_COMPARED = (
  'config.base.cache_dir',
  'config.stream.checkpoint_every',
  'config.max_skipped',
  'config.mesh',
  'config.tensorboard',
)


def _choose_data(config: Mapping[str, Any], name: str) -> type:
  """Returns the dataclass of one kind of data."""
  values = config['data']
  if not isinstance(values, Mapping) or 'kind' not in values:
    kinds = ', '.join(map(repr, _DATA_KINDS))
    raise schema.UserError(f'{name}.kind is missing; it can be {kinds}')
  kind = schema.one_of(f'{name}.kind', values['kind'], _DATA_KINDS)
  # A run needs one kind, and their imports are heavy.
  module, section_name = _DATA_KINDS[kind]
  return getattr(importlib.import_module(module), section_name)


def _choose_model(config: Mapping[str, Any], name: str) -> type:
  """Returns the decoder's dataclass: without sizes if weights bring them."""
  base, model = config.get('base'), config.get('model')
  if not (isinstance(base, Mapping) and base.get('path')):
    return layers.DecoderSizes
  options = {f.name for f in dataclasses.fields(layers.DecoderOptions)}
  for field in dataclasses.fields(layers.DecoderSizes):
    key = field.name
    if isinstance(model, Mapping) and key in model and key not in options:
      raise schema.UserError(
        f'{name}.{key} = {model[key]} is for a base made from scratch, and'
        ' those of config.base.path have their own: leave it out, as in'
        ' configs/docqa.py:world,hf'
      )
  return layers.DecoderOptions


def _choose_base(config: Mapping[str, Any], name: str) -> type:
  """Returns the dataclass of one kind of base."""
  values = config.get('base')
  kind = isinstance(values, Mapping) and values.get('kind')
  return _BASES[schema.one_of(f'{name}.kind', kind or 'trained', _BASES)]


def _choose_method(config: Mapping[str, Any], name: str) -> type:
  """Returns the Config of one method."""
  values = config.get('method')
  methods = importlib.import_module('smft_jax.methods').METHODS
  given = isinstance(values, Mapping) and values.get('name')
  chosen = given or 'sparse_memory'
  return methods[schema.one_of(f'{name}.name', chosen, methods)].Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """Everything a run does.

  Attributes:
    seed: Seed of all random draws.
    data: The texts, questions and documents.
    model: The decoder, and the blocks that have memory.
    memory: The memory layers' value table and search.
    base: How the base model is made: pretrained, healed or fitted.
    background: The background corpus; None counts none.
    stream: The documents to learn; None only makes and measures the base.
    method: How to finetune on the stream.
    evaluation: What to measure, and how often.
    mesh: Use of many devices; None takes one.
    max_skipped: Steps in a row without a finite loss and gradient after which a
      run stops.
    tensorboard: Also write metrics.jsonl as TensorBoard files, in
      WORKDIR/tensorboard.

  Raises:
    UserError: If two sections contradict each other.
  """

  seed: int = 0
  data: DataConfig = dataclasses.field(
    metadata={'choose_section': _choose_data, 'choose_by': 'kind'}
  )
  model: layers.DecoderSizes | layers.DecoderOptions = dataclasses.field(
    metadata={'choose_section': _choose_model}
  )
  memory: memory_lib.MemorySizes
  base: sections.BaseConfig | sections.FittedBaseConfig = dataclasses.field(
    metadata={'choose_section': _choose_base, 'choose_by': 'kind'}
  )
  background: sections.BackgroundConfig | None = None
  stream: sections.StreamConfig | None = None
  method: MethodConfig | None = dataclasses.field(
    default=None,
    metadata={'choose_section': _choose_method, 'choose_by': 'name'},
  )
  evaluation: sections.EvaluationConfig
  mesh: sections.MeshConfig | None = None
  max_skipped: int = 10
  tensorboard: bool = False

  def __post_init__(self) -> None:
    schema.at_least(0, self, 'seed')
    schema.at_least(1, self, 'max_skipped')
    self._check_sizes()
    self._check_storage()
    self._check_quorum()
    if self.base.kind == 'fitted':
      self._check_fitted()
    elif not self.memory.value_dim:
      raise schema.UserError('config.memory.value_dim is missing')
    if self.mesh is not None:
      self._check_batches(self.mesh.data * self.mesh.fsdp)
    if self.stream is None:
      return
    if self.method is None:
      raise schema.UserError(
        'config.method is missing, and config.stream needs it'
      )
    if not self.has_memory:
      raise schema.UserError(
        'config.model.memory_layers is empty, so the stream has no memory to'
        ' learn into'
      )
    replayed = getattr(self.method, 'replay_fraction', 0)
    if replayed and self.stream.batch_size < 2:
      raise schema.UserError(
        f'config.method.replay_fraction = {replayed} needs a'
        ' config.stream.batch_size of at least 2, one row of the document and'
        f' one to replay, not {self.stream.batch_size}'
      )
    if self.method.ranks_slots and self.method.t > self.memory.num_slots:
      raise schema.UserError(
        f'config.method.t = {self.method.t} is more than the'
        f' {self.memory.num_slots} slots of config.memory.num_slots'
      )
    if self.method.needs_background and not self.background:
      other = ", or config.method.ranking = 'tf'"
      raise schema.UserError(
        'config.method needs document frequencies: give config.background'
        f'{other if self.method.ranks_slots else ""}'
      )

  @property
  def has_memory(self) -> bool:
    """Whether the base has memory layers."""
    return bool(self.model.memory_layers) or self.base.kind == 'fitted'

  def _check_sizes(self) -> None:
    """Checks that the tokenizer has one source and the memory is there."""
    tokenizer = getattr(self.data, 'tokenizer', '')
    knows_the_world = self.data.kind == 'people' or getattr(
      self.data, 'general', False
    )
    if self.base.path and tokenizer:
      raise schema.UserError(
        f'config.data.tokenizer = {tokenizer!r} is for a base made'
        ' from scratch; the weights of config.base.path come with their own'
      )
    if knows_the_world and not self.base.path:
      raise schema.UserError(
        'config.base.path is missing: the background of config.data is for'
        ' pretrained weights; give a Hugging Face folder or a GGUF file'
      )
    if self.has_memory:
      return
    for name in ('base.path', 'background', 'mesh'):
      section, _, key = name.partition('.')
      value = getattr(self, section)
      if getattr(value, key) if key else value:
        raise schema.UserError(
          'config.model.memory_layers is empty, so the model has no memory, and'
          f' config.{name} cannot be used'
        )

  def _check_storage(self) -> None:
    """Checks that nothing trains which is stored in bfloat16."""
    if self.model.param_dtype == 'float32':
      return
    method = self.method
    trained = ''
    if not self.base.path:
      trained = 'a base made from scratch'
    elif method and not method.keeps_weights:
      trained = f'config.method.name = {method.name!r}'
    if trained:
      raise schema.UserError(
        f'config.model.param_dtype = {self.model.param_dtype!r} is for weights'
        f" that stay what they are; {trained} trains them: take 'float32', as"
        ' small steps do not move a bfloat16'
      )

  def _check_quorum(self) -> None:
    """Checks that tokens can reach a quorum, or nothing would be learned."""
    if not self.memory.quorum:
      return
    if self.base.kind != 'fitted':
      raise schema.UserError(
        f'config.memory.quorum = {self.memory.quorum} is for a memory that is'
        " fitted (config.base.kind = 'fitted'); leave it out"
      )
    method = self.method
    if self.stream is None or method is None or not method.only_values:
      return
    if not method.marks_lessons:
      raise schema.UserError(
        f'config.memory.quorum = {self.memory.quorum} needs a method that marks'
        " what it teaches: config.method.name = 'sparse_memory' with"
        " config.method.select = 'document'; or set the quorum to 0"
      )

  def _check_fitted(self) -> None:
    """Checks that keys can be fitted to a background."""
    if self.background is None:
      raise schema.UserError(
        'config.background is missing: the memory is fitted to its texts'
      )
    if self.memory.gated or not self.memory.qk_norm:
      raise schema.UserError(
        'config.memory.gated must be False and qk_norm True for a memory that'
        ' is fitted'
      )
    if self.model.memory_placement != 'beside':
      raise schema.UserError(
        "config.model.memory_placement must be 'beside' for a memory that is"
        f' fitted, not {self.model.memory_placement!r}'
      )

  def _check_batches(self, replicas: int) -> None:
    sections_of = ('base', 'background', 'stream', 'evaluation')
    for name, field in (
      *((name, 'batch_size') for name in sections_of),
      ('stream', 'micro_batch_size'),
    ):
      size = getattr(getattr(self, name), field, None)
      if size and size % replicas:
        raise schema.UserError(
          f'config.{name}.{field} = {size} must be a multiple of the'
          f' {replicas} replicas of config.mesh.data times config.mesh.fsdp'
        )


def from_config_dict(
  config: Mapping[str, Any] | config_dict.ConfigDict,
) -> Experiment:
  """Checks a config and freezes it.

  Args:
    config: A ConfigDict, or nested dicts as `to_dict` returns them.

  Returns:
    The experiment. Whole floats (1e3) are accepted as integers, and integers
    as floats.

  Raises:
    UserError: For a key that is unknown, missing, of the wrong type or has an
      impossible value. One line, with the key in full and the nearest known
      key.

  Example:
    >>> try:
    ...   from_config_dict({'modle': {}})
    ... except schema.UserError as error:
    ...   print(error)
    unknown key config.modle; did you mean config.model?
  """
  return schema.build(to_plain(config), Experiment, 'config')


def to_plain(config: Any) -> Any:
  """Returns a ConfigDict and its sections as nested dicts.

  A placeholder whose required value is missing becomes `schema.REQUIRED`.
  """
  if not isinstance(config, (Mapping, config_dict.ConfigDict)):
    return config
  plain = {}
  for key in config:
    try:
      plain[key] = to_plain(config[key])
    except config_dict.RequiredValueError:
      plain[key] = schema.REQUIRED
  return plain


def to_dict(experiment: Experiment) -> dict[str, Any]:
  """Returns the whole config, defaults included, as JSON holds it.

  `from_config_dict(to_dict(experiment)) == experiment`.
  """
  return json.loads(json.dumps(dataclasses.asdict(experiment)))


def compared(experiment: Experiment) -> dict[str, Any]:
  """Returns `to_dict` without the settings that do not change a result."""
  config = to_dict(experiment)
  for name in NOT_COMPARED:
    *sections, key = name.split('.')[1:]
    section = config
    for part in sections:
      section = section.get(part) or {}
    section.pop(key, None)
  return config


def differences(
  theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> list[str]:
  """Names the settings in which two runs differ, if they change a result.

  Args:
    theirs: A config, from `to_dict`.
    ours: Another one.
  """
  return [
    line
    for line in schema.differences(theirs, ours)
    if not line.startswith(NOT_COMPARED)
  ]
