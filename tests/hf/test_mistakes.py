"""Checkpoints that cannot be read or written: one line, nothing half done."""

import json
import pathlib
import shutil

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from smft_jax import hf
from smft_jax import schema
from smft_jax.hf import files as hf_files
from tests.support import decoders
from tests.support import hf_folders

FIRST = 'model-00001-of-00002.safetensors'
SHARD = 'model-00002-of-00002.safetensors'
UP = 'model.layers.1.mlp.up_proj.weight'


@pytest.fixture
def folder(tmp_path):
  """A copy of a checkpoint of two shards."""
  shutil.copytree(hf_folders.FOLDER / 'llama_3', tmp_path / 'model')
  return tmp_path / 'model'


def refused(folder, match, monkeypatch):
  """Loads the folder, which must fail before a tensor is read."""

  def load(*unused):
    raise AssertionError('read before all was checked')

  monkeypatch.setattr(hf_files, 'load', load)
  with pytest.raises(schema.UserError, match=match) as caught:
    hf.load_model(folder)
  assert '\n' not in str(caught.value)


def change_tensors(folder, change, file=SHARD):
  tensors = safetensors.numpy.load_file(folder / file)
  change(tensors)
  safetensors.numpy.save_file(tensors, folder / file)


def in_index(folder, name, file):
  path = folder / hf_files.INDEX
  index = json.loads(path.read_text())
  index['weight_map'].pop(name, None)
  if file is not None:
    index['weight_map'][name] = file
  path.write_text(json.dumps(index))


def remove_tensor_everywhere(folder):
  change_tensors(folder, lambda tensors: tensors.pop(UP))
  in_index(folder, UP, None)


def change_up(change):
  """Returns a function that replaces UP by what `change` makes of it."""
  return lambda folder: change_tensors(
    folder, lambda tensors: tensors.update({UP: change(tensors[UP])})
  )


def add(name, array):
  def change(folder):
    change_tensors(folder, lambda tensors: tensors.update({name: array}))
    in_index(folder, name, SHARD)

  return change


def in_both(folder):
  tensors = safetensors.numpy.load_file(folder / SHARD)
  change_tensors(folder, lambda t: t.update({UP: tensors[UP]}), FIRST)


def cut(folder, size):
  (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:size])


WHERE = rf'model/{SHARD}'


@pytest.mark.parametrize(
  ('damage', 'match'),
  [
    (
      lambda folder: cut(folder, -7),
      rf'{WHERE} is truncated or damaged: .*; expected a complete',
    ),
    (lambda folder: cut(folder, 0), rf'{WHERE} is truncated or damaged'),
    (lambda folder: (folder / SHARD).unlink(), rf'{WHERE} is missing'),
    (
      lambda folder: change_tensors(folder, lambda tensors: tensors.pop(UP)),
      rf'{WHERE}: {UP} is missing, but is in .*index.json',
    ),
    (
      remove_tensor_everywhere,
      rf'{hf_files.INDEX}: {UP} is missing; .* of shape \(23, 16\)',
    ),
    *(
      (
        change_up(lambda array, name=name: array.astype(name)),
        rf'{WHERE}: {UP} is {short}; expected F32 or BF16 or F16',
      )
      for name, short in (('float64', 'F64'), ('int32', 'I32'))
    ),
    (
      change_up(lambda array: np.ascontiguousarray(array.T)),
      rf'{WHERE}: {UP} has shape \(16, 23\); expected \(23, 16\)',
    ),
    *(
      (
        add(name, np.ones(shape, np.float32)),
        rf'{WHERE}: {name} is not in the model',
      )
      for name, shape in (
        ('model.layers.1.self_attn.q_proj.bias', 32),
        ('model.layers.2.mlp.up_proj.weight', 2),
      )
    ),
    (in_both, rf'{WHERE}: {UP} is also in {FIRST}'),
    (
      lambda folder: in_index(folder, UP, '../model.safetensors'),
      r'index.json is damaged; expected a weight_map',
    ),
    (
      lambda folder: (folder / hf_files.INDEX).write_text('{"weight_map": []}'),
      r'index.json is damaged; expected a weight_map',
    ),
    (
      lambda folder: (folder / hf_files.INDEX).unlink(),
      r'has neither model.safetensors nor .*index.json',
    ),
  ],
)
def test_damaged_weights_are_named(folder, damage, match, monkeypatch):
  damage(folder)
  refused(folder, match, monkeypatch)


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'base_model.model.'])
def test_names_with_a_prefix_are_told(folder, prefix, monkeypatch):
  def rename(tensors):
    for name in list(tensors):
      tensors[prefix + name] = tensors.pop(name)

  for file in (FIRST, SHARD):
    change_tensors(folder, rename, file)
  index = json.loads((folder / hf_files.INDEX).read_text())
  index['weight_map'] = {
    prefix + name: file for name, file in index['weight_map'].items()
  }
  (folder / hf_files.INDEX).write_text(json.dumps(index))
  said = rf'proj.weight is missing; .*, but there is {prefix}model.layers'
  refused(folder, said, monkeypatch)


def test_an_adapter_is_told(tmp_path, monkeypatch):
  (tmp_path / 'adapter_config.json').write_text('{"peft_type": "LORA"}')
  refused(tmp_path, r'no Hugging Face checkpoint, but an adapter', monkeypatch)


def test_what_config_and_embeddings_tell_already_may_be_there(folder):
  expected = hf_folders.bits_of(hf.load_model(folder))
  index = json.loads((folder / hf_files.INDEX).read_text())
  file = folder / index['weight_map']['model.embed_tokens.weight']
  table = safetensors.numpy.load_file(file)['model.embed_tokens.weight']
  add('lm_head.weight', table)(folder)
  frequencies = np.ones(4, np.float16)
  add('model.layers.0.self_attn.rotary_emb.inv_freq', frequencies)(folder)
  assert hf_folders.bits_of(hf.load_model(folder)) == expected


WINDOW = {'use_sliding_window': True}
YARN = {'rope_type': 'yarn', 'factor': 4.0, 'rope_theta': 1e4}
LLAMA_3 = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 4.0,
  'high_freq_factor': 1.0,
  'original_max_position_embeddings': 32,
}


@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    (
      {'model_type': 'mistral'},
      r"model_type = 'mistral' is not .*; expected 'llama' or 'qwen2' or",
    ),
    ({'model_type': None}, r'model_type = None is not supported'),
    (
      {'model_type': 'qwen3_moe', 'num_experts': 8},
      r'num_experts = 8 is not supported; expected no experts',
    ),
    ({'num_local_experts': 8}, r'num_local_experts = 8 is not supported'),
    (
      {'hidden_act': 'gelu'},
      r"hidden_act = 'gelu' is not supported; expected 'silu'",
    ),
    ({'attention_bias': True}, r'attention_bias = True .* expected False'),
    ({'mlp_bias': True}, r'mlp_bias = True is not supported; expected False'),
    ({'sliding_window': 32}, r'sliding_window = 32 .* expected none in use'),
    (
      {'model_type': 'qwen2', 'max_window_layers': 1} | WINDOW,
      r'sliding_window = None is not supported; expected none in use',
    ),
    (
      {'layer_types': ['full_attention', 'sliding_attention']},
      r"layer_types = 'sliding_attention' .* expected 'full_attention'",
    ),
    ({'quantization_config': {'bits': 4}}, r'quantization_config = .*bits'),
    (
      {'rope_scaling': {'type': 'linear', 'factor': 2.0}},
      r"rope_scaling.rope_type = 'linear' is not supported",
    ),
    ({'rope_parameters': 3}, r'rope_parameters must be a section, not 3'),
    *(
      ({'rope_parameters': rope}, rf'rope_parameters.{match}')
      for rope, match in (
        (YARN, r"rope_type = 'yarn' .* expected 'default' or 'llama3'"),
        (
          {'partial_rotary_factor': 0.5},
          r'partial_rotary_factor = 0.5 .* expected 1.0',
        ),
        (
          {'full_attention': {}},
          r"full_attention is not .* rope_type = 'default'",
        ),
        (LLAMA_3, r'high_freq_factor must be above'),
        (
          {'rope_type': 'llama3', 'factor': 8.0},
          r'low_freq_factor is missing',
        ),
      )
    ),
    ({'model_type': []}, r'model_type = \[\] is not supported'),
    ({'layer_types': True}, r'layer_types = True is not supported'),
    ({'layer_types': {'a': 1}}, r'layer_types must be a list'),
    ({'hidden_size': None}, r'hidden_size is missing'),
    ({'hidden_size': 'big'}, r"hidden_size must be a whole number, not 'big'"),
    ({'num_attention_heads': 3}, r'num_kv_heads must divide num_heads = 3'),
    ({'num_attention_heads': 0}, r'num_heads must be at least 1'),
    ({'tie_word_embeddings': 1}, r'tie_word_embeddings must be True or False'),
  ],
)
def test_unsupported_settings_are_named(folder, changes, match, monkeypatch):
  settings = json.loads((folder / 'config.json').read_text()) | changes
  (folder / 'config.json').write_text(json.dumps(settings))
  refused(folder, rf'model/config.json: {match}', monkeypatch)


@pytest.mark.parametrize(
  'unused',
  [
    {'sliding_window': 32},
    {'max_window_layers': 2} | WINDOW,
    {'layer_types': ['full_attention'] * 2} | WINDOW,
  ],
)
def test_a_window_that_no_layer_uses_is_none(tmp_path, unused):
  settings = json.loads((hf_folders.FOLDER / 'qwen2/config.json').read_text())
  del settings['layer_types']
  (tmp_path / 'config.json').write_text(json.dumps(settings | unused))
  assert hf.load_config(tmp_path) == hf.load_config(hf_folders.FOLDER / 'qwen2')


def test_a_window_in_words_is_refused(tmp_path):
  settings = json.loads((hf_folders.FOLDER / 'qwen2/config.json').read_text())
  settings |= {'layer_types': None, 'use_sliding_window': True}
  settings |= {'sliding_window': 4, 'max_window_layers': 'all'}
  (tmp_path / 'config.json').write_text(json.dumps(settings))
  match = 'max_window_layers must be a whole number'
  with pytest.raises(schema.UserError, match=match):
    hf.load_config(tmp_path)


def test_no_folder_no_config_no_json(folder, monkeypatch):
  match = r'does not exist; did you mean .*/model\?'
  refused(folder.parent / 'modle', match, monkeypatch)
  for text, match in (
    ('{"model_type": ', 'is no JSON: '),
    ('[]', 'must hold an object'),
  ):
    (folder / 'config.json').write_text(text)
    refused(folder, f'config.json {match}', monkeypatch)
  (folder / 'config.json').unlink()
  refused(folder, r'config.json is missing, so .* is no Hugging', monkeypatch)


@pytest.mark.parametrize('shares_table', [True, False])
@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    ({'layer': 1}, r'unknown key smft_memory.layer; did you mean .*layers'),
    ({'layers': [2]}, r'2'),
    ({'layers': []}, r'fit the model'),
    ({'placement': 'under'}, r"smft_memory.placement .*'under'"),
    ({'sizes': {'num_slots': 7}}, r'smft_memory.sizes.num_slots must be a squ'),
    ({'sizes': {'num_slots': 9, 'k': 2}}, r'index.json: .* is missing'),
    (
      {'sizes': {'num_slots': 9, 'k': 2, 'gated': False, 'value_dim': 3}},
      r'value_dim must be 16',
    ),
  ],
)
def test_a_memory_that_does_not_fit(
  folder, changes, match, shares_table, monkeypatch
):
  path = folder / 'config.json'
  described = {
    'layers': [0],
    'placement': 'beside',
    'shares_table': shares_table,
    'sizes': {'num_slots': 9, 'k': 2},
  }
  settings = json.loads(path.read_text())
  settings['smft_memory'] = described | changes
  path.write_text(json.dumps(settings))
  refused(folder, match, monkeypatch)
  settings['smft_memory'] = 'much'
  path.write_text(json.dumps(settings))
  refused(folder, r'config.json: .*smft_memory', monkeypatch)


def contents(folder):
  return {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def test_nothing_is_written_over_or_left_unfinished(tmp_path, monkeypatch):
  model = hf_folders.memory_model('replace')
  hf.save_model(model, tmp_path / 'a')
  before = contents(tmp_path)
  with pytest.raises(schema.UserError, match=r'a/config.json already exists'):
    hf.save_model(model, tmp_path / 'a')
  save_file = safetensors.numpy.save_file

  def full(tensors, file, metadata):
    save_file(tensors, file, metadata)
    if pathlib.Path(file).name == 'memory.safetensors':
      raise OSError(28, 'No space left on device', str(file))

  monkeypatch.setattr(safetensors.numpy, 'save_file', full)
  with pytest.raises(
    schema.UserError, match=r'b cannot be written: .*No space left'
  ):
    hf.save_model(model, tmp_path / 'b')
  assert contents(tmp_path) == before


def test_a_model_that_no_checkpoint_can_hold(tmp_path):
  more = decoders.make_model()
  more.blocks[0].mlp.adapter = nnx.Param(jnp.ones(3))
  for model, match in (
    (
      decoders.make_model(qkv_bias=True, qk_norm=True),
      'qkv_bias and qk_norm are both',
    ),
    (more, r'blocks.0.mlp.adapter has no place in a Hugging'),
    (
      decoders.make_model(param_dtype=jnp.float8_e5m2),
      r'model of float8_e5m2 cannot',
    ),
  ):
    with pytest.raises(schema.UserError, match=match):
      hf.save_model(model, tmp_path / 'a')
  assert not (tmp_path / 'a').exists()
