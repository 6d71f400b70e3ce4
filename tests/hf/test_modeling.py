"""Models with memory in `transformers`: our logits and our answers."""

import json
import os
import pathlib

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from smft_jax import hf
from smft_jax import memory
from smft_jax.hf import memory_file
from tests.hf import make_memory_fixtures as fixtures
from tests.support import by_transformers
from tests.support import decoders
from tests.support import hf_folders

pytestmark = pytest.mark.usefixtures('quick_compilation')

PROMPTS = (
  'Question: In which city did Gustav Ferrara come into the world? Answer:',
  'Question: Where did Emil Herrera study? Answer:',
  'Question: What is the largest planet? Answer:',
  'The history of the town begins in',
)


def run(model, tokens, mask, count):
  """Logits and answers, as `transformers` is asked for them."""
  tokens = jnp.asarray(tokens, jnp.int32)
  logits = np.asarray(decoders.logits_of(model, tokens, mask))
  return logits, np.asarray(decoders.decode(model, tokens, mask, count, -1))


def relative_error(found, expected, mask):
  difference = np.abs(found - expected)[mask]
  return difference.max() / np.abs(expected[mask]).max()


def without_values(model):
  """The model with an empty table."""

  def clear(_, variable):
    if not isinstance(variable, memory.MemoryValue):
      return variable
    return variable.replace(jnp.zeros_like(variable.get_value()))

  graphdef, state = nnx.split(model)
  return nnx.merge(graphdef, nnx.map_state(clear, state))


def tensors_of(data):
  """Dtype, shape and bytes of each tensor, bfloat16 included."""
  return dict(safetensors.deserialize(data))


@pytest.fixture(params=fixtures.NAMES)
def folder(request):
  return fixtures.FOLDER / request.param


@pytest.fixture
def frozen(folder):
  with np.load(folder / 'logits.npz') as arrays:
    return dict(arrays)


def test_we_compute_what_pytorch_computed(folder, frozen):
  # If the modelling file has changed, make the folders anew.
  assert str(frozen['code']) == fixtures.code_digest()
  model, mask = hf.load_model(folder), frozen['mask']
  count = frozen['answers'].shape[1]
  logits, answers = run(model, frozen['tokens'], mask, count)
  assert relative_error(logits, frozen['logits'], mask) < 1e-5
  np.testing.assert_array_equal(answers, frozen['answers'])
  # The memory changes logits and answers, so that the lines above test it.
  plain, other = run(without_values(model), frozen['tokens'], mask, count)
  assert relative_error(plain, frozen['logits'], mask) > 0.1
  assert np.any(other != answers)


def test_we_write_what_pytorch_read(folder, tmp_path):
  hf.save_model(hf.load_model(folder), tmp_path)
  names = {file.name for file in tmp_path.iterdir()}
  kept = {file.name for file in folder.iterdir()}
  assert names - kept == {'modeling_smft.py'}
  for name in names - {'modeling_smft.py'}:
    is_json = name.endswith('.json')
    read = json.loads if is_json else tensors_of
    found, expected = (
      read((place / name).read_bytes()) for place in (tmp_path, folder)
    )
    assert found == expected, name


def test_code_in_a_folder_is_neither_run_nor_carried(tmp_path):
  source = tmp_path / 'source'
  hf.save_model(hf_folders.memory_model('beside'), source)
  (source / 'modeling_smft.py').write_text('raise SystemExit(3)\n')
  settings = json.loads((source / 'config.json').read_text())
  settings['auto_map']['AutoConfig'] = 'configuration_theirs.Config'
  (source / 'config.json').write_text(json.dumps(settings))
  hf.save_model(hf.load_model(source), tmp_path / 'out', source=source)
  code = (tmp_path / 'out' / 'modeling_smft.py').read_bytes()
  assert code == memory_file.CODE.read_bytes()
  settings = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert settings['auto_map'] == {
    'AutoModelForCausalLM': 'modeling_smft.Qwen2WithMemory'
  }
  plain = decoders.make_model(num_layers=1, qkv_bias=True, tie_embeddings=False)
  hf.save_model(plain, tmp_path / 'plain', source=source)
  settings = json.loads((tmp_path / 'plain' / 'config.json').read_text())
  assert not {'auto_map', 'smft_memory'} & settings.keys()
  assert settings['architectures'] == ['Qwen2ForCausalLM']


@pytest.fixture
def other_python():
  if by_transformers.interpreter() is None:
    pytest.skip('SMFT_TORCH_PYTHON names no interpreter with transformers')


@pytest.mark.slow
@pytest.mark.usefixtures('other_python')
@pytest.mark.parametrize('name', fixtures.NAMES)
def test_transformers_runs_a_memory_without_this_project(name, tmp_path):
  model = fixtures.make(name)
  tokens, mask = fixtures.prompts(model.config.vocab_size)
  hf.save_model(model, tmp_path / 'out')
  theirs = by_transformers.run(
    tmp_path / 'out', tmp_path, tokens, mask, fixtures.COUNT
  )
  logits, answers = run(model, tokens, mask, fixtures.COUNT)
  assert relative_error(logits, theirs['logits'], mask) < 1e-5
  np.testing.assert_array_equal(theirs['answers'], answers)
  np.testing.assert_array_equal(theirs['without_cache'], answers)
  # What transformers saves comes back.
  again = hf.load_model(tmp_path / 'again')
  assert hf_folders.bits_of(again) == hf_folders.bits_of(model)


@pytest.mark.slow
@pytest.mark.usefixtures('other_python')
def test_a_real_export_gives_the_same_answers(tmp_path):
  if 'SMFT_TEST_EXPORT' not in os.environ:
    pytest.skip('SMFT_TEST_EXPORT names no exported folder')
  folder = pathlib.Path(os.environ['SMFT_TEST_EXPORT'])
  model, tokenizer = hf.load_model(folder), hf.load_tokenizer(folder)
  ids = [[*tokenizer.beginning, *tokenizer.encode(text)] for text in PROMPTS]
  width, rows = max(map(len, ids)), len(ids)
  tokens, mask = np.zeros((rows, width), int), np.zeros((rows, width), bool)
  for row, own in enumerate(ids):
    tokens[row, width - len(own) :], mask[row, width - len(own) :] = own, True
  theirs = by_transformers.run(folder, tmp_path, tokens, mask, 12)
  logits, answers = run(model, tokens, mask, 12)
  error = relative_error(logits, theirs['logits'], mask)
  same = np.all(answers == theirs['answers'], axis=1)
  print(f'relative error {error:.1e}; {sum(same)} of {rows} answers equal')
  assert error < 1e-4
  assert np.all(same)
  np.testing.assert_array_equal(theirs['without_cache'], answers)
