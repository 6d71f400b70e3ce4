"""GGUF files that cannot be read: one line, before a tensor is read."""

import sys

import numpy as np
import pytest

from smft_jax import hf
from smft_jax import schema
from smft_jax.hf import gguf_tensors
from tests.support import gguf_files
from tests.support import hf_folders

UP = 'blk.1.ffn_up.weight'


def refused(path, match, monkeypatch):
  def read(*unused):
    raise AssertionError('read before all was checked')

  monkeypatch.setattr(gguf_tensors._Rows, '__getitem__', read)
  with pytest.raises(schema.UserError, match=match) as caught:
    hf.load_model(path)
  assert '\n' not in str(caught.value)


def change(**entries):
  """Returns a function that sets metadata; __ stands for a dot."""

  def apply(metadata, tensors):
    metadata.update({k.replace('__', '.'): v for k, v in entries.items()})

  return apply


def put(name, tensor):
  return lambda metadata, tensors: tensors.update({name: tensor})


MISTAKES = {
  'another architecture': (
    change(general__architecture='gemma3'),
    "general.architecture = 'gemma3' is not supported; expected llama or qwen2"
    ' or qwen3',
  ),
  'no sizes': (
    lambda metadata, _: metadata.pop('llama.block_count'),
    'llama.block_count is missing in its metadata',
  ),
  'a size of another type': (
    change(llama__embedding_length='16'),
    "llama.embedding_length must be a whole number, not '16'",
  ),
  'sizes by block': (
    change(llama__attention__head_count_kv=[2, 4]),
    r'llama.attention.head_count_kv must be a whole number, not \[2, 4\]',
  ),
  'sizes that do not fit': (
    change(llama__attention__head_count_kv=3),
    'model.gguf: num_',
  ),
  'experts': (change(llama__expert_count=8), 'expert_count = 8 is not'),
  'a window': (
    change(llama__attention__sliding_window=16),
    'sliding_window = 16 is not',
  ),
  'partial rotary positions': (
    change(llama__rope__dimension_count=2),
    'llama.rope.dimension_count = 2 is not supported; expected 4',
  ),
  'a factor without a type': (
    change(llama__rope__scaling__factor=2.0),
    'llama.rope.scaling.factor = 2.0 is not supported; expected 1',
  ),
  'a factor by its old name': (
    change(llama__rope__scale_linear=4.0),
    'llama.rope.scale_linear = 4.0 is not supported; expected 1',
  ),
  'another scaling': (
    change(llama__rope__scaling__type='yarn'),
    "llama.rope.scaling.type = 'yarn' is not supported; expected 'none'",
  ),
  'one of several files': (
    change(split__count=3),
    'is one of 3 parts; join them into one file first',
  ),
  'no embedding': (
    lambda _, tensors: tensors.pop('token_embd.weight'),
    'token_embd.weight is missing',
  ),
  'a missing tensor': (
    lambda _, tensors: tensors.pop(UP),
    rf'model.gguf: {UP} is missing; expected a tensor of shape \(23, 16\)',
  ),
  'a wrong shape': (
    put(UP, np.zeros((16, 23), np.float32)),
    rf'{UP} has shape \(16, 23\); expected \(23, 16\)',
  ),
  'an unknown tensor': (
    put('blk.1.attn_q.bias', np.zeros(16, np.float32)),
    'blk.1.attn_q.bias is not in the model that its metadata describes',
  ),
  'whole numbers': (
    put(UP, np.zeros((23, 16), np.int32)),
    f'{UP} is quantised as I32, which the gguf library cannot read',
  ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_model_that_is_not_supported(mistake, tmp_path, monkeypatch):
  spoil, match = MISTAKES[mistake]
  metadata, tensors = gguf_files.contents_of(hf_folders.FOLDER / 'llama')
  spoil(metadata, tensors)
  file = gguf_files.write(tmp_path / 'model.gguf', metadata, tensors)
  refused(file, match, monkeypatch)


def test_frequencies_that_are_not_those_of_llama_3(tmp_path):
  metadata, tensors = gguf_files.contents_of(hf_folders.FOLDER / 'llama')
  tensors['rope_freqs.weight'] = np.array([1, 2], np.float32)
  file = gguf_files.write(tmp_path / 'model.gguf', metadata, tensors)
  with pytest.raises(schema.UserError, match='in another way than'):
    hf.load_config(file)


@pytest.fixture
def file(tmp_path):
  contents = gguf_files.contents_of(hf_folders.FOLDER / 'llama')
  return gguf_files.write(tmp_path / 'model.gguf', *contents)


@pytest.mark.parametrize('part', [0.0, 0.01, 0.1, 0.2, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut(part, file, monkeypatch):
  whole = file.read_bytes()
  file.write_bytes(whole[: int(part * len(whole))])
  match = 'no GGUF file' if part == 0 else 'is truncated or damaged: .*; exp'
  refused(file, match, monkeypatch)


@pytest.mark.parametrize(
  ('at', 'byte', 'match'),
  [
    (0, b'X', 'is no GGUF file; expected one, or a Hugging Face folder'),
    (4, b'\x63', 'is truncated or damaged: .*version 99'),
    (16, b'\xff', 'is truncated or damaged'),  # number of entries
    (24, b'\xff', 'is truncated or damaged'),  # length of a key
  ],
)
def test_a_file_that_is_damaged(at, byte, match, file, monkeypatch):
  with file.open('r+b') as opened:
    opened.seek(at)
    opened.write(byte)
  refused(file, match, monkeypatch)


def test_a_type_that_the_library_does_not_read(file, monkeypatch):
  original = gguf_files.gguf.quants.dequantize

  def dequantize(data, kind):
    if kind == gguf_files.TYPES.F32:
      raise NotImplementedError
    return original(data, kind)

  monkeypatch.setattr(gguf_files.gguf.quants, 'dequantize', dequantize)
  gguf_tensors._is_readable.cache_clear()
  refused(file, 'is quantised as F32, which the gguf', monkeypatch)


def test_no_file_and_files_of_something_else(file, tmp_path, monkeypatch):
  refused(tmp_path / 'modle.gguf', 'did you mean .*/model.gguf', monkeypatch)
  refused(tmp_path, 'config.json is missing.*mean .*/model.gguf', monkeypatch)
  other = tmp_path / 'model.safetensors'
  other.write_bytes(b'anything')
  refused(other, 'model.safetensors is no GGUF file', monkeypatch)


def test_without_the_library(file, monkeypatch):
  monkeypatch.setitem(sys.modules, 'gguf', None)
  refused(file, r'pip install "smft_jax\[gguf\]"', monkeypatch)
