"""Hugging Face checkpoints: logits of `transformers`, bits out and back."""

import dataclasses
import json
import shutil

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from smft_jax import hf
from smft_jax import memory
from smft_jax import retrofit
from smft_jax import schema
from smft_jax.hf import tensors as hf_tensors
from smft_jax.models import transformer
from smft_jax.sharded import layout as layout_lib
from tests.support import decoders
from tests.support import hf_folders

pytestmark = pytest.mark.usefixtures('quick_compilation')


def logits_of(model, tokens):
  return np.asarray(decoders.logits_of(model, tokens), np.float32)


def expected_of(name):
  with np.load(hf_folders.FOLDER / name / 'logits.npz') as arrays:
    return dict(arrays)


def tensors_of(folder):
  """All tensors of a checkpoint by name, as the library reads them."""
  found = {}
  for file in sorted(folder.glob('*.safetensors')):
    found |= safetensors.numpy.load_file(file)
  return found


def assert_same_tensors(found, expected):
  assert found.keys() == expected.keys()
  for name, tensor in expected.items():
    assert found[name].dtype == tensor.dtype
    assert found[name].shape == tensor.shape
    assert found[name].tobytes() == tensor.tobytes()


@pytest.mark.parametrize('name', hf_folders.NAMES)
def test_logits_are_those_of_transformers(name):
  expected = expected_of(name)
  tokens = jnp.asarray(expected['tokens'], jnp.int32)
  assert tokens.shape == (2, 120)
  assert expected['float32'].std() > 0.5
  logits = logits_of(hf.load_model(hf_folders.FOLDER / name), tokens)
  np.testing.assert_allclose(logits, expected['float32'], rtol=0, atol=1e-5)


def test_float16_files_are_read_exactly(tmp_path):
  shutil.copytree(hf_folders.FOLDER / 'llama', tmp_path / 'half')
  half = {
    name: tensor.astype(np.float16)
    for name, tensor in tensors_of(hf_folders.FOLDER / 'llama').items()
  }
  safetensors.numpy.save_file(half, tmp_path / 'half' / hf_tensors.MODEL)
  embedding = hf.load_model(tmp_path / 'half').embedding[...]
  stored = half['model.embed_tokens.weight']
  np.testing.assert_array_equal(embedding, stored.astype(np.float32))


def test_bfloat16_logits_are_as_near_as_those_of_transformers():
  expected = expected_of('llama_bf16')
  tokens = jnp.asarray(expected['tokens'], jnp.int32)
  model = hf.load_model(hf_folders.FOLDER / 'llama_bf16', dtype=jnp.bfloat16)
  assert {x.dtype for x in jax.tree.leaves(nnx.state(model))} == {
    jnp.dtype(jnp.bfloat16)
  }

  def error(logits):
    return np.sqrt(np.mean((logits - expected['float32']) ** 2))

  theirs = error(expected['bfloat16'])
  assert theirs > 1e-3
  assert error(logits_of(model, tokens)) < 1.1 * theirs


@pytest.mark.parametrize('name', hf_folders.NAMES)
def test_out_and_back_is_the_same_in_every_bit(name, tmp_path):
  dtype = jnp.bfloat16 if name == 'llama_bf16' else jnp.float32
  model = hf.load_model(hf_folders.FOLDER / name, dtype)
  hf.save_model(model, tmp_path / 'a' / 'b')
  again = hf.load_model(tmp_path / 'a' / 'b', dtype)
  assert again.config == model.config
  assert hf_folders.bits_of(again) == hf_folders.bits_of(model)
  original = tensors_of(hf_folders.FOLDER / name)
  shards = list((hf_folders.FOLDER / name).glob('*.safetensors'))
  assert len(shards) == (2 if name == 'llama_3' else 1)
  assert_same_tensors(tensors_of(tmp_path / 'a' / 'b'), original)
  names = {file.name for file in (tmp_path / 'a' / 'b').iterdir()}
  assert names == {'config.json', 'model.safetensors'}


@pytest.mark.parametrize('placement', ['replace', 'beside'])
def test_a_memory_goes_into_a_second_file_and_comes_back(placement, tmp_path):
  model = hf_folders.memory_model(placement)
  hf.save_model(model, tmp_path)
  again = hf.load_model(tmp_path)
  assert again.config == model.config
  assert hf_folders.bits_of(again) == hf_folders.bits_of(model)
  memory_names = safetensors.numpy.load_file(tmp_path / 'memory.safetensors')
  names = {'table.values', 'model.layers.0.mlp.memory.subkeys'}
  assert names < memory_names.keys()


def retrofitted(folder, placement, paths, **changes):
  """Weights of a folder, with memory that is taught something."""
  model = hf.load_model(folder)
  config = memory.MemoryConfig(
    **{
      'model_dim': model.config.model_dim,
      'num_slots': 25,
      'num_heads': 2,
      'k': 3,
      'key_dim': 4,
      **changes,
    }
  )
  return retrofit.add_memory(
    model, config, paths, placement=placement, rngs=nnx.Rngs(3)
  )


@pytest.mark.parametrize(
  ('placement', 'paths', 'changes'),
  [
    ('beside', ['blocks/1/mlp'], {'gated': False, 'quorum': 0.1}),
    ('beside', ['blocks/0/mlp', 'blocks/1/mlp'], {'count_carrier': True}),
    ('replace', ['blocks/0/mlp'], {'value_dim': 6}),
  ],
)
def test_what_retrofit_adds_comes_back(placement, paths, changes, tmp_path):
  folder = hf_folders.FOLDER / 'llama'
  model = retrofitted(folder, placement, paths, **changes)
  if 'quorum' in changes:
    lessons = model.blocks[1].mlp.memory.lessons
    lessons[...] = lessons[...].at[::2].set(4)
  hf.save_model(model, tmp_path, source=folder)
  again = hf.load_model(tmp_path)
  tokens = decoders.tokens_of(2, 7)
  expected = logits_of(model, tokens)
  np.testing.assert_array_equal(logits_of(again, tokens), expected)
  assert np.any(logits_of(hf.load_model(folder), tokens) != expected) == (
    'count_carrier' not in changes  # whose gates are shut
  )
  hf.save_model(again, tmp_path / 'again', source=folder)
  for name in ('decoder.safetensors', 'memory.safetensors'):
    assert_same_tensors(
      safetensors.numpy.load_file(tmp_path / 'again' / name),
      safetensors.numpy.load_file(tmp_path / name),
    )


def test_layers_that_differ_are_refused(tmp_path):
  model = retrofitted(hf_folders.FOLDER / 'llama', 'beside', ['blocks/0/mlp'])
  config = dataclasses.replace(model.blocks[0].mlp.memory.config, k=2)
  model = retrofit.add_memory(model, config, ['blocks/1/mlp'], rngs=nnx.Rngs(0))
  with pytest.raises(schema.UserError, match='0/mlp/memory and blocks/1/mlp'):
    hf.save_model(model, tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_memory_does_not_get_lost_in_silence(tmp_path):
  hf.save_model(hf_folders.memory_model('replace'), tmp_path)
  (tmp_path / 'memory.safetensors').unlink()
  with pytest.raises(schema.UserError, match=r'y.safetensors is missing'):
    hf.load_model(tmp_path)


def on_mesh(model):
  """Shapes of its Variables, with their places on eight devices."""
  layout = layout_lib.make_layout(
    layout_lib.make_mesh(data=2, fsdp=2, memory=2)
  )
  shapes = nnx.state(model)
  places = memory.shardings_of(shapes, layout)
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    shapes,
    places,
  )


def even_model():
  mem = dataclasses.replace(decoders.MEMORY, num_slots=64)
  return decoders.make_model(memory=mem, memory_layers=(1,))


def test_every_device_gets_its_part_and_no_more(tmp_path, monkeypatch):
  model = even_model()
  hf.save_model(model, tmp_path)
  like = on_mesh(model)
  read = []
  original = hf_tensors.Place.read

  def record(self, stored, index):
    part = original(self, stored, index)
    read.append(part.size)
    return part

  monkeypatch.setattr(hf_tensors.Place, 'read', record)
  params = hf.load_params(tmp_path, like)
  # Every part once, though two replicas and more hold it.
  assert sum(read) == sum(x.size for x in jax.tree.leaves(nnx.state(model)))
  assert tuple(params['pool'].sharding.spec) == ('memory', None)
  jax.tree.map(
    lambda x, l: np.testing.assert_equal(x.sharding, l.sharding), params, like
  )
  jax.tree.map(np.testing.assert_array_equal, params, nnx.state(model))


def test_a_checkpoint_without_memory_leaves_a_fresh_one(tmp_path):
  model = even_model()
  plain = decoders.make_model(seed=1)
  hf.save_model(plain, tmp_path)
  params = hf.load_params(tmp_path, nnx.state(model))
  before = dict(nnx.to_flat_state(nnx.state(model)))
  read = dict(nnx.to_flat_state(nnx.state(plain)))
  for path, variable in nnx.to_flat_state(params):
    expected = before[path] if path not in read else read[path]
    np.testing.assert_array_equal(variable[...], expected[...])


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # not ours to keep free of them
@pytest.mark.parametrize('name', hf_folders.NAMES)
def test_transformers_loads_what_is_written(name, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  model = hf.load_model(hf_folders.FOLDER / name)
  hf.save_model(model, tmp_path)
  theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path, dtype=torch.float32, output_loading_info=True
  )
  assert not any(info.values()), info
  tokens = expected_of('llama')['tokens'] % model.config.vocab_size
  with torch.no_grad():
    expected = theirs(torch.tensor(tokens)).logits.numpy()
  logits = logits_of(model, jnp.asarray(tokens, jnp.int32))
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_the_tokenizer_and_other_settings_come_along(tmp_path):
  source = tmp_path / 'source'
  shutil.copytree(hf_folders.FOLDER / 'llama_3', source)
  tokenizer = b'{"any": "bytes \xc3\xa9"}\r\n'
  (source / 'tokenizer.json').write_bytes(tokenizer)
  model = hf.load_model(source)
  hf.save_model(model, tmp_path / 'out', source=source)
  assert (tmp_path / 'out' / 'tokenizer.json').read_bytes() == tokenizer
  assert hf.load_config(tmp_path / 'out') == model.config
  settings = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert settings['max_position_embeddings'] == 512
  assert settings['torch_dtype'] == 'float32'
  assert not {'dtype', 'rope_parameters'} & settings.keys()
  with pytest.raises(
    schema.UserError, match='of another model, with'
  ) as caught:
    hf.save_model(model, tmp_path / 'no', source=hf_folders.FOLDER / 'qwen2')
  assert 'model.qkv_bias = True, not False' in str(caught.value)
  assert not (tmp_path / 'no').exists()


def test_the_source_does_not_decide_how_a_model_is_stored(tmp_path):
  source = hf_folders.FOLDER / 'llama'
  config = dataclasses.replace(
    hf.load_config(source), param_dtype='bfloat16', remat=True
  )
  model = transformer.Transformer(config, rngs=nnx.Rngs(0))
  hf.save_model(model, tmp_path, source=source)
  settings = json.loads((tmp_path / 'config.json').read_text())
  assert settings['torch_dtype'] == 'bfloat16'


def test_what_chooses_slots_is_float32_in_a_bfloat16_model(tmp_path):
  model = hf_folders.memory_model('beside')
  hf.save_model(model, tmp_path)
  again = hf.load_model(tmp_path, jnp.bfloat16)
  assert again.blocks[0].attention.query.weight.dtype == jnp.bfloat16
  [layer] = [block.memory for block in again.blocks if block.memory][:1]
  [whole] = [block.memory for block in model.blocks if block.memory][:1]
  x = jnp.ones((2, model.config.model_dim))
  assert layer.query.dtype == layer.subkeys.dtype == jnp.float32
  np.testing.assert_array_equal(layer.search(x)[0], whole.search(x)[0])
