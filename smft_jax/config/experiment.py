"""What a run does, as frozen dataclasses, and the door that checks it.

A config file builds a `ml_collections.ConfigDict`; `from_config_dict` turns it
once into an `Experiment`. Behind that door nothing sees a ConfigDict: sections
are plain frozen dataclasses, so a typing mistake cannot travel.

To add a setting, add a field: its name, type and default are then known here,
on the command line (`smft_jax.config.command_line`) and in `config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import importlib
import json
import typing
from typing import Any, Literal

from ml_collections import config_dict

from smft_jax import memory as memory_lib
from smft_jax import schema
from smft_jax.models import layers

if typing.TYPE_CHECKING:
  from smft_jax.data import documents
  from smft_jax.data import facts
  from smft_jax.data.world import world

  DataConfig = world.WorldConfig | documents.DocumentsConfig | facts.FactsConfig
else:
  DataConfig = Any
MethodConfig = Any  # the `Config` of a file in `smft_jax.methods`

_DATA_KINDS = {
  'world': ('smft_jax.data.world.world', 'WorldConfig'),
  'squad': ('smft_jax.data.documents', 'DocumentsConfig'),
  'jsonl': ('smft_jax.data.documents', 'DocumentsConfig'),
  'simpleqa': ('smft_jax.data.documents', 'DocumentsConfig'),
  'facts': ('smft_jax.data.facts', 'FactsConfig'),
}

UserError = schema.UserError

# Settings that do not change what a run computes: where things lie, how often
# it is saved, when it gives up.
NOT_COMPARED = (
  'config.base.cache_dir',
  'config.stream.checkpoint_every',
  'config.max_skipped',
  'config.mesh',
)

# Methods that leave alone what lies below the memory layer.
_REUSING_HIDDEN = ('sparse_memory', 'values_only')


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseConfig:
  """How the base model is pretrained. It is cached and made again on change.

  With a `path` the base is healed instead: weights that were trained without
  memory are loaded, get memory layers, and only these train.
  """

  path: str = ''  # a Hugging Face folder: config, tokenizer, safetensors
  steps: int
  batch_size: int
  learning_rate: float
  value_learning_rate: float
  weight_decay: float = 0.0
  warmup_steps: int = 0
  max_length: int
  packed: bool = False  # short texts share rows of max_length
  checkpoint_every: int = 500
  cache_dir: str = ''  # '' means ~/.cache/smft_jax

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'steps', 'batch_size', 'checkpoint_every')
    schema.at_least(2, self, 'max_length')
    schema.at_least(0, self, 'weight_decay', 'warmup_steps')
    schema.positive(self, 'learning_rate', 'value_learning_rate')


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackgroundConfig:
  """The background corpus, over which document frequencies are counted."""

  num_batches: int
  batch_size: int
  document: Literal['sequence', 'batch'] = 'sequence'
  # 'pretraining', 'stream' (the documents to learn) or a text set of the task.
  corpus: str = 'pretraining'

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'num_batches', 'batch_size')


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
  """The target stream: each document is seen once, in order."""

  steps_per_document: int
  batch_size: int
  context_weight: float = 1.0
  answer_weight: float = 1.0
  max_documents: int | None = None  # None streams all of them
  # Most tokens in a row; longer texts are split. None: config.base.max_length.
  max_length: int | None = None
  # Compute what lies below the memory once per document: faster where steps see
  # a row again, for the memory of a document's hidden states.
  reuse_hidden: bool = False
  # Documents between checkpoints, beside those before each evaluation.
  checkpoint_every: int | None = None

  def __post_init__(self) -> None:
    schema.at_least(
      1,
      self,
      'steps_per_document',
      'batch_size',
      'max_documents',
      'checkpoint_every',
    )
    schema.at_least(2, self, 'max_length')
    schema.at_least(0, self, 'context_weight', 'answer_weight')
    if not self.context_weight and not self.answer_weight:
      raise schema.UserError(
        'context_weight and answer_weight are both 0, so nothing would be'
        ' learned'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
  """What is measured, and how often along the stream."""

  every_documents: int
  batch_size: int
  max_entries: int | None = None  # per evaluation set; None takes all
  max_answer_tokens: int = 16
  metric: Literal['recall', 'f1', 'nll'] = 'recall'  # of question sets
  text_metric: Literal['nll', 'perplexity'] = 'nll'  # of text sets

  def __post_init__(self) -> None:
    schema.at_least(
      1,
      self,
      'every_documents',
      'batch_size',
      'max_entries',
      'max_answer_tokens',
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """The devices of a run: see `smft_jax.sharded.layout`."""

  data: int = 1  # replicas, which split batches
  fsdp: int = 1  # replicas that also split the dense weights
  memory: int = 1  # parts of the value table and of the sub-keys
  split: Literal['rows', 'dims'] = 'rows'  # of the table
  subkeys: Literal['subkeys', 'heads'] = 'subkeys'

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'data', 'fsdp', 'memory')


def _choose_data(config: Mapping[str, Any], name: str) -> type:
  """The dataclass of one kind of data, which its own module owns."""
  values = config['data']
  if not isinstance(values, Mapping) or 'kind' not in values:
    kinds = ', '.join(map(repr, _DATA_KINDS))
    raise UserError(f'{name}.kind is missing; it can be {kinds}')
  kind = schema.one_of(f'{name}.kind', values['kind'], _DATA_KINDS)
  # Imported only here: a run needs one kind, and their imports are not light.
  module, section_name = _DATA_KINDS[kind]
  return getattr(importlib.import_module(module), section_name)


def _choose_model(config: Mapping[str, Any], name: str) -> type:
  """Options and sizes of a decoder; only options where it has weights."""
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
        ' configs/heal.py'
      )
  return layers.DecoderOptions


def _choose_method(config: Mapping[str, Any], name: str) -> type:
  """The settings of one method, which its own module owns."""
  values = config.get('method')
  methods = importlib.import_module('smft_jax.methods').METHODS
  given = isinstance(values, Mapping) and values.get('name')
  chosen = given or 'sparse_memory'
  return methods[schema.one_of(f'{name}.name', chosen, methods)].Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """Everything a run does.

  Without a `stream` the run makes and measures its base model, no more.

  Raises:
    UserError: where two sections contradict each other.
  """

  seed: int = 0
  data: DataConfig = dataclasses.field(
    metadata={'choose_section': _choose_data, 'choose_by': 'kind'}
  )
  model: layers.DecoderSizes | layers.DecoderOptions = dataclasses.field(
    metadata={'choose_section': _choose_model}
  )
  memory: memory_lib.MemorySizes
  base: BaseConfig
  background: BackgroundConfig | None = None
  stream: StreamConfig | None = None
  method: MethodConfig | None = dataclasses.field(
    default=None,
    metadata={'choose_section': _choose_method, 'choose_by': 'name'},
  )
  evaluation: EvaluationConfig
  mesh: MeshConfig | None = None  # None takes one device
  # Steps in a row without a finite loss and gradient at which a run stops.
  max_skipped: int = 10

  def __post_init__(self) -> None:
    schema.at_least(0, self, 'seed')
    schema.at_least(1, self, 'max_skipped')
    self._check_sizes()
    if self.mesh is not None:
      self._check_batches(self.mesh.data * self.mesh.fsdp)
    if self.stream is None:
      return
    if self.method is None:
      raise schema.UserError(
        'config.method is missing, and config.stream needs it'
      )
    if not self.model.memory_layers:
      raise schema.UserError(
        'config.model.memory_layers is empty, so the stream has no memory to'
        ' learn into'
      )
    if getattr(self.method, 't', 0) > self.memory.num_slots:
      raise schema.UserError(
        f'config.method.t = {self.method.t} is more than the'
        f' {self.memory.num_slots} slots of config.memory.num_slots'
      )
    if getattr(self.method, 'needs_background', False) and not self.background:
      raise schema.UserError(
        f'config.method.ranking = {self.method.ranking!r} needs document'
        ' frequencies: give config.background, or use config.method.ranking ='
        " 'tf'"
      )
    if self.stream.reuse_hidden:
      self._check_reuse()

  def _check_sizes(self) -> None:
    """Checks that the tokenizer has one source and the memory is there."""
    tokenizer = getattr(self.data, 'tokenizer', '')
    if self.base.path and tokenizer:
      raise schema.UserError(
        f'config.data.tokenizer = {tokenizer!r} is for a base made'
        ' from scratch; the weights of config.base.path come with their own'
      )
    if self.model.memory_layers:
      return
    for name in ('base.path', 'background', 'mesh'):
      section, _, key = name.partition('.')
      value = getattr(self, section)
      if getattr(value, key) if key else value:
        raise schema.UserError(
          'config.model.memory_layers is empty, so the model has no memory, and'
          f' config.{name} cannot be used'
        )

  def _check_batches(self, replicas: int) -> None:
    for name in ('base', 'background', 'stream', 'evaluation'):
      size = getattr(getattr(self, name), 'batch_size', replicas)
      if size % replicas:
        raise schema.UserError(
          f'config.{name}.batch_size = {size} must be a multiple of the'
          f' {replicas} replicas of config.mesh.data times config.mesh.fsdp'
        )

  def _check_reuse(self) -> None:
    assert self.method is not None
    if self.method.name not in _REUSING_HIDDEN:
      raise schema.UserError(
        f'config.method.name = {self.method.name!r} changes what lies below'
        ' the memory layer, so config.stream.reuse_hidden must be False'
      )
    if getattr(self.method, 'replay_fraction', 0.0):
      raise schema.UserError(
        'config.method.replay_fraction brings texts from outside the document,'
        ' so config.stream.reuse_hidden must be False'
      )


def from_config_dict(
  config: Mapping[str, Any] | config_dict.ConfigDict,
) -> Experiment:
  """Checks a config and freezes it.

  Args:
    config: a ConfigDict, or nested plain dicts such as `to_dict` returns.

  Returns:
    The experiment. A float without a fraction (1e3) is taken where a whole
    number is asked for, a whole number where a float is.

  Raises:
    UserError: for a key that is unknown, missing, of a wrong type or of an
      impossible value. The message is one line and names the key in full, with
      the nearest known one.

  Example:
    >>> try:
    ...   from_config_dict({'modle': {}})
    ... except UserError as error:
    ...   print(error)
    unknown key config.modle; did you mean config.model?
  """
  return schema.build(to_plain(config), Experiment, 'config')


def to_plain(config: Any) -> Any:
  """Nested plain dicts in place of a ConfigDict and its sections.

  A placeholder without its required value becomes `schema.REQUIRED`.
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
  """The whole config, defaults included, as JSON knows it.

  `from_config_dict(to_dict(experiment)) == experiment`.
  """
  # One trip through JSON, so that it equals what config.json will be read as.
  return json.loads(json.dumps(dataclasses.asdict(experiment)))


def compared(experiment: Experiment) -> dict[str, Any]:
  """The settings that change what a run computes, as `to_dict` has them."""
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
  """Names the settings in which two runs differ, of those that count.

  Args:
    theirs: what `to_dict` returned.
    ours: the same.
  """
  return [
    line
    for line in schema.differences(theirs, ours)
    if not line.startswith(NOT_COMPARED)
  ]
