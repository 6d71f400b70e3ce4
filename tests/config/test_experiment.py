"""A config is checked whole, at the door, in one line per mistake."""

import dataclasses
import json
import typing

import jax.numpy as jnp
from ml_collections import config_dict
import pytest

from smft_jax import methods
from smft_jax import ranking
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from smft_jax.data.world import world
from smft_jax.evaluation import scores
from smft_jax.methods import sparse_memory
from smft_jax.models import layers
from tests.support import configs


def message(**changes):
  with pytest.raises(schema.UserError) as error:
    config_lib.from_config_dict(configs.make(**changes))
  assert '\n' not in str(error.value)
  return str(error.value)


def test_sections_become_frozen_dataclasses():
  experiment = config_lib.from_config_dict(
    config_dict.ConfigDict(configs.CONFIG)
  )
  assert experiment.seed == 3
  assert experiment.data == world.WorldConfig(num_known=13)
  assert experiment.model.memory_layers == (2,)
  assert experiment.method.learning_rate == 31.0
  assert isinstance(experiment.method.learning_rate, float)
  with pytest.raises(dataclasses.FrozenInstanceError):
    experiment.method.t = 5


@pytest.mark.parametrize(
  'data', [configs.CONFIG['data'], {'kind': 'squad', 'data_dir': 'x'}]
)
def test_to_dict_is_json_and_leads_back(data):
  experiment = config_lib.from_config_dict(configs.make(data=data))
  resolved = config_lib.to_dict(experiment)
  assert resolved['data']['kind'] == data['kind'] == experiment.data.kind
  assert resolved['model']['memory_layers'] == [2]
  again = json.loads(json.dumps(resolved))
  assert again == resolved
  assert config_lib.from_config_dict(again) == experiment


def test_sizes_are_the_configs_or_the_weights():
  assert message(model__ffn_dim=None) == 'config.model.ffn_dim is missing'
  said = message(base__path='weights')
  assert said.startswith('config.model.num_layers = 3 is for a base made from')
  sizes = configs.CONFIG['model'].keys() - {'memory_layers'}
  without = dict.fromkeys(f'model__{name}' for name in sizes)
  changes = {**without, 'base__path': 'weights'}
  experiment = config_lib.from_config_dict(configs.make(**changes))
  assert type(experiment.model) is layers.DecoderOptions
  again = config_lib.from_config_dict(config_lib.to_dict(experiment))
  assert again == experiment
  said = message(**changes, model__memory_layers=(), stream=None)
  assert said.endswith('no memory, and config.base.path cannot be used')
  data = {'kind': 'squad', 'data_dir': 'x', 'tokenizer': 'y'}
  assert "config.data.tokenizer = 'y' is for" in message(**changes, data=data)


def test_without_a_stream_only_the_base_is_asked_for():
  config = config_dict.ConfigDict(
    configs.make(stream=None, method=None, background=None)
  )
  config.stream = config_dict.placeholder(dict)
  experiment = config_lib.from_config_dict(config)
  assert experiment.stream is experiment.background is None


@pytest.mark.parametrize(
  ('changes', 'parts'),
  [
    *(
      ({'method': method}, parts)
      for method, parts in (
        ({'name': 'loar'}, ['config.method.name', "'lora'?"]),
        ({'name': 'full', 't': 3}, ['config.method.t']),
        ({'name': 'full', 'learning_rate': 0}, ['config.method.learning_rate']),
        ({'name': 'replay', 'replay_fraction': 1}, ['method.replay_fraction']),
        ({'name': 'replay', 'replay_fraction': 0}, ["'full'"]),
      )
    ),
    ({'metod': {}}, ['config.metod', 'did you mean config.method?']),
    (
      {'method__learning_rte': 3.0},
      ['did you mean config.method.learning_rate'],
    ),
    ({'method__num_slots': 3}, ['did you mean config.memory.num_slots?']),
    ({'model__zzzz': 3}, ['unknown key config.model.zzzz', 'num_layers']),
    ({'data__num_knwn': 3}, ['did you mean config.data.num_known?']),
    ({'data__kind': 'wrld'}, ['config.data.kind', "did you mean 'world'?"]),
    ({'data__kind': None}, ['config.data.kind is missing', "'squad'"]),
    ({'data': 3}, ['config.data']),
    ({'model': 3}, ['config.model is a section', 'config.model.dtype']),
    ({'memory': None}, ['config.memory is missing']),
    ({'memory__value_dim': None}, ['config.memory.value_dim is missing']),
    ({'memory__k': 14}, ['config.memory.k must be at most', '= 13, got 14']),
    ({'method__t': '7'}, ['config.method.t must be a whole number', "'7'"]),
    ({'method__t': 7.5}, ['config.method.t must be a whole number', '7.5']),
    ({'method__t': True}, ['config.method.t must be a whole number', 'True']),
    ({'method__t': 0}, ['config.method.t must be at least 1, not 0']),
    ({'method__learning_rate': float('nan')}, ['config.method.learning_rate']),
    ({'method__learning_rate': -1}, ['config.method.learning_rate', 'above 0']),
    ({'model__qkv_bias': 1}, ['config.model.qkv_bias must be True or False']),
    ({'base__cache_dir': 1}, ['config.base.cache_dir must be text']),
    ({'method__ranking': 'tfidf'}, ["did you mean 'tf_idf'?"]),
    ({'method__update': 'sparse'}, ["'rows', 'dense'"]),
    ({'model__memory_layers': (1, 3)}, ['model.memory_layers', '0 to 2']),
    ({'model__memory_layers': 'all'}, ['config.model.memory_layers', 'list']),
    ({'model__num_kv_heads': 3}, ['config.model.num_kv_heads must divide']),
    ({'model__dtype': 'bf16'}, ['config.model.dtype', "'bfloat16'?"]),
    (
      {'model__param_dtype': 'bfloat16'},
      ['config.model.param_dtype', 'a base made from scratch', "'float32'"],
    ),
    ({'method__t': 170}, ['config.method.t = 170', '169']),
    (
      {'method__replay_fraction': 0.5, 'stream__batch_size': 1},
      ['config.method.replay_fraction = 0.5', 'config.stream.batch_size'],
    ),
    ({'background': None}, ['config.method.ranking', 'config.background']),
    ({'method': None}, ['config.method is missing']),
    ({'data__paraphrases': 1000}, ['config.data.paraphrases must be']),
    (
      {'stream__context_weight': 0, 'stream__answer_weight': 0},
      ['config.stream.context_weight'],
    ),
  ],
)
def test_a_mistake_is_one_line_that_names_the_nearest_right_thing(
  changes, parts
):
  said = message(**changes)
  assert [part for part in parts if part not in said] == []


def test_whole_floats_and_single_layers_are_understood():
  experiment = config_lib.from_config_dict(
    configs.make(method__t=1e1, model__memory_layers=1)
  )
  assert (experiment.method.t, experiment.model.memory_layers) == (10, (1,))
  assert isinstance(experiment.method.t, int)


def test_names_in_the_config_are_those_of_the_library():
  keys = schema.keys(config_lib.Experiment, 'config')
  optimizers = typing.get_args(keys['config.method.optimizer'])
  assert set(optimizers) == set(sparse_memory.OPTIMIZERS)
  for name in (*ranking.RANKINGS, 'random'):
    assert sparse_memory.Config(ranking=name).ranking == name
  for key in ('metric', 'text_metric'):
    for metric in typing.get_args(keys[f'config.evaluation.{key}']):
      assert scores.relative_drop(metric, 1.0, 1.0) == 0


@pytest.mark.parametrize('name', [*ranking.RANKINGS, 'random'])
def test_a_ranking_that_reads_frequencies_needs_a_background(name):
  reads = name not in {*ranking.WITHOUT_BACKGROUND, 'random'}
  assert sparse_memory.Config(ranking=name).needs_background == reads
  if name == 'random':
    return
  few, many = (
    ranking.RANKINGS[name](jnp.ones(2), jnp.array([df, 5.0]), 9)
    for df in (0.0, 5.0)
  )
  assert bool(jnp.any(few != many)) == reads


@pytest.mark.parametrize('name', methods.METHODS)
def test_every_method_can_be_chosen_and_its_settings_survive_json(name):
  method = {'name': name} | ({'t': 17} if name == 'sparse_memory' else {})
  experiment = config_lib.from_config_dict(configs.make(method=method))
  assert type(experiment.method) is methods.METHODS[name].Config
  assert experiment.method.name == name
  again = config_lib.from_config_dict(config_lib.to_dict(experiment))
  assert again == experiment


def test_another_method_starts_from_its_own_defaults():
  config = config_dict.ConfigDict(configs.make())
  config_file.override(config, 'config.method.name', 'sparse_memory')
  assert config.method.t == 17
  config_file.override(config, 'config.method.name', 'lora')
  config_file.override(config, 'config.method.rank', '3')
  assert config.method.to_dict() == {'name': 'lora', 'rank': 3}
  with pytest.raises(schema.UserError, match=r'unknown key config\.method\.t'):
    config_file.override(config, 'config.method.t', '5')


def test_settings_that_change_no_result_are_not_compared():
  def compared(**changes):
    made = config_lib.from_config_dict(configs.make(**changes))
    return config_lib.compared(made)

  same = compared(stream__checkpoint_every=1, max_skipped=3, tensorboard=True)
  assert same == compared()
  assert compared(seed=1) != compared()


@pytest.mark.parametrize('seed', [-1, 2**32, 10**20])
def test_a_seed_that_no_generator_takes(seed):
  assert message(seed=seed) == (
    f'config.seed = {seed} must be at least 0 and below 4294967296'
  )
  made = config_lib.from_config_dict(configs.make(seed=2**32 - 1))
  assert made.seed == 2**32 - 1


def test_a_block_is_named_once():
  assert 'memory_layers = (2, 2) names a block twice' in message(
    model__memory_layers=(2, 2)
  )
