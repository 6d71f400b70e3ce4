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
from smft_jax.config import consistency
from smft_jax.config import sections
from smft_jax.models import layers

if typing.TYPE_CHECKING:
  from smft_jax.data import documents
  from smft_jax.data import edits
  from smft_jax.data import facts
  from smft_jax.data import people
  from smft_jax.data import text
  from smft_jax.data.world import world

  DataConfig = (
    world.WorldConfig
    | people.PeopleConfig
    | documents.DocumentsConfig
    | facts.FactsConfig
    | edits.EditsConfig
    | text.TextConfig
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
  'edits': ('smft_jax.data.edits', 'EditsConfig'),
  'text': ('smft_jax.data.text', 'TextConfig'),
}

_BASES = {
  'trained': sections.BaseConfig,
  'fitted': sections.FittedBaseConfig,
}

# Settings that do not change what a run computes, or its rounding alone.
NOT_COMPARED = (
  'config.background.counts',
  'config.base.cache_dir',
  'config.model.remat',
  'config.stream.checkpoint_every',
  'config.stream.micro_batch_size',
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
    schema.at_least(1, self, 'max_skipped')
    consistency.check(self)

  @property
  def has_memory(self) -> bool:
    """Whether the base has memory layers."""
    return bool(self.model.memory_layers) or self.base.kind == 'fitted'


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
  plain = to_plain(config)
  # First, as sections repeat it.
  seed = plain.get('seed') if isinstance(plain, dict) else None
  if isinstance(seed, int) and not 0 <= seed < 2**32:
    raise schema.UserError(
      f'config.seed = {seed} must be at least 0 and below {2**32}'
    )
  return schema.build(plain, Experiment, 'config')


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
