"""Settings of Hugging Face checkpoints."""

import json

from flax import nnx
import jax.numpy as jnp
import pytest

from smft_jax import hf
from smft_jax import schema
from smft_jax.hf import tensors as hf_tensors
from smft_jax.models import transformer
from tests.support import hf_folders

# Of published checkpoints: what config.json says but for the number of layers,
# how many tensors a layer has, and shapes of some.
PUBLISHED = {
  'SmolLM2-135M': (
    {
      'model_type': 'llama',
      'hidden_act': 'silu',
      'hidden_size': 576,
      'intermediate_size': 1536,
      'is_llama_config': True,
      'mlp_bias': False,
      'attention_bias': False,
      'num_attention_heads': 9,
      'num_hidden_layers': 2,
      'num_key_value_heads': 3,
      'rms_norm_eps': 1e-05,
      'rope_interleaved': False,
      'rope_scaling': None,
      'rope_theta': 100000,
      'tie_word_embeddings': True,
      'torch_dtype': 'bfloat16',
      'vocab_size': 49152,
    },
    9,
    {'k_proj': (192, 576), 'down_proj': (576, 1536)},
  ),
  'Qwen2.5-0.5B': (
    {
      'model_type': 'qwen2',
      'hidden_act': 'silu',
      'hidden_size': 896,
      'intermediate_size': 4864,
      'max_window_layers': 24,
      'num_attention_heads': 14,
      'num_hidden_layers': 2,
      'num_key_value_heads': 2,
      'rms_norm_eps': 1e-06,
      'rope_theta': 1000000.0,
      'sliding_window': 32768,
      'tie_word_embeddings': True,
      'use_sliding_window': False,
      'vocab_size': 151936,
    },
    12,
    {'k_proj': (128, 896), 'o_proj': (896, 896)},
  ),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_published_layout_is_known(name, tmp_path):
  settings, count, shapes = PUBLISHED[name]
  (tmp_path / 'config.json').write_text(json.dumps(settings))
  config = hf.load_config(tmp_path)
  assert config.rope_theta == settings['rope_theta']
  model = nnx.eval_shape(
    lambda: transformer.Transformer(config, rngs=nnx.Rngs(0))
  )
  places = hf_tensors.places(nnx.state(model)).values()
  stored = {place.name: place.stored_shape for place in places}
  assert len(stored) == 2 + 2 * count
  assert 'lm_head.weight' not in stored
  for part, shape in shapes.items():
    [found] = {s for n, s in stored.items() if n.endswith(f'.{part}.weight')}
    assert found == shape


@pytest.mark.parametrize('name', hf_folders.NAMES)
def test_old_names_of_settings_say_the_same(name, tmp_path):
  settings = json.loads((hf_folders.FOLDER / name / 'config.json').read_text())
  rope = settings.pop('rope_parameters')
  settings['torch_dtype'] = settings.pop('dtype')
  settings['rope_theta'] = rope.pop('rope_theta')
  is_scaled = rope['rope_type'] == 'llama3'
  settings['rope_scaling'] = rope if is_scaled else None
  (tmp_path / 'config.json').write_text(json.dumps(settings))
  assert hf.load_config(tmp_path) == hf.load_config(hf_folders.FOLDER / name)
  assert (hf.load_config(tmp_path).rope_scaling is not None) == is_scaled


@pytest.mark.parametrize('dtype', ['int8', jnp.int32, bool])
def test_a_dtype_that_is_none_to_compute_in(dtype):
  with pytest.raises(schema.UserError, match='is no dtype to compute in: give'):
    hf.load_model(hf_folders.FOLDER / 'llama', dtype)
