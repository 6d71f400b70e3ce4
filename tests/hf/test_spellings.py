"""Checkpoints saved in other ways: the same model, bit for bit."""

import json
import shutil
import stat

import numpy as np
import pytest
import safetensors.numpy
import tokenizers as tokenizers_lib

from smft_jax import hf
from smft_jax import schema
from smft_jax.data import tokenizers
from tests.support import hf_folders

TABLE = 'model.embed_tokens.weight'


@pytest.fixture(params=['qwen2', 'llama'])
def folder(request, tmp_path):
  """A copy of a tied and of an untied checkpoint, each in one file."""
  shutil.copytree(hf_folders.FOLDER / request.param, tmp_path / 'model')
  return tmp_path / 'model'


def rewrite(folder, change):
  file = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(file)
  safetensors.numpy.save_file(change(tensors), file)


def set_in_config(folder, **changes):
  file = folder / 'config.json'
  file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def without_prefix(tensors):
  return {k.removeprefix('model.'): v for k, v in tensors.items()}


def under_the_name_of_the_head(tensors):
  if 'lm_head.weight' in tensors:
    pytest.skip('the head is a table of its own')
  tensors['lm_head.weight'] = tensors.pop(TABLE)
  return tensors


def with_tables_of_positions(tensors):
  added = {
    f'model.rotary_emb.{name}': np.ones(4, np.float32)
    for name in ('inv_freq', 'original_inv_freq', 'cos_cached', 'sin_cached')
  }
  return tensors | added


@pytest.mark.parametrize(
  'change',
  [
    without_prefix,
    under_the_name_of_the_head,
    with_tables_of_positions,
    lambda tensors: without_prefix(with_tables_of_positions(tensors)),
  ],
)
def test_other_names_of_the_same_tensors(folder, change):
  expected = hf_folders.bits_of(hf.load_model(folder))
  rewrite(folder, change)
  hf.check(folder)
  assert hf_folders.bits_of(hf.load_model(folder)) == expected


def test_a_factor_of_one_scales_nothing(folder):
  expected = hf.load_config(folder)
  rope = {'rope_type': 'default', 'factor': 1.0}
  set_in_config(folder, rope_parameters=None, rope_scaling=rope)
  assert hf.load_config(folder) == expected
  set_in_config(folder, rope_scaling=rope | {'factor': 2.0})
  with pytest.raises(schema.UserError, match=r'rope_scaling\.factor is not'):
    hf.load_config(folder)


def test_a_tied_head_that_differs_is_told_as_that(folder):
  set_in_config(folder, tie_word_embeddings=True)
  rewrite(folder, lambda tensors: tensors | {'lm_head.weight': -tensors[TABLE]})
  with pytest.raises(
    schema.UserError,
    match=rf'lm_head\.weight differs from {TABLE}, but the two are one by'
    r' config\.json, which lacks tie_word_embeddings = false$',
  ):
    hf.load_model(folder)


@pytest.mark.parametrize('number', [np.nan, -np.inf])
def test_a_number_that_is_not_finite_is_told_with_its_tensor(folder, number):
  name = 'model.layers.0.self_attn.o_proj.weight'

  def damage(tensors):
    tensors[name] = tensors[name].copy()
    tensors[name][1, 2] = number
    return tensors

  rewrite(folder, damage)
  with pytest.raises(
    schema.UserError,
    match=rf'model\.safetensors: {name} has a number that is not finite',
  ):
    hf.load_model(folder)


def test_saved_files_can_be_read_by_whom_the_umask_lets(folder, tmp_path):
  out = tmp_path / 'out'
  hf.save_model(hf_folders.memory_model('beside'), out)
  plain = tmp_path / 'plain'
  plain.write_text('')
  wanted = stat.S_IMODE(plain.stat().st_mode)
  assert wanted & 0o077
  modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in out.iterdir()}
  assert 'memory.safetensors' in modes
  assert set(modes.values()) == {wanted}


def test_padding_that_the_model_has_no_row_for_is_not_used(folder):
  made = tokenizers.train_word_level(['Fog in Porto'])
  made.inner.add_special_tokens([tokenizers_lib.AddedToken('<pad>')])
  made.write(folder)
  file = folder / 'tokenizer_config.json'
  names = json.loads(file.read_text()) | {'pad_token': '<pad>'}
  file.write_text(json.dumps(names))
  pad_id = made.inner.token_to_id('<pad>')
  for rows, pad in ((pad_id + 1, '<pad>'), (pad_id, tokenizers.EOS)):
    set_in_config(folder, vocab_size=rows)
    assert hf.load_tokenizer(folder).pad == pad


def test_a_number_that_the_dtype_cannot_hold_is_told_with_its_tensor(folder):
  name = 'model.layers.0.self_attn.o_proj.weight'
  rewrite(folder, lambda t: t | {name: np.full_like(t[name], 1e6)})
  hf.load_model(folder)
  with pytest.raises(
    schema.UserError, match=rf'{name} has a number that float16 cannot hold'
  ):
    hf.load_model(folder, dtype=np.float16)
