"""A run on the weights of a GGUF file, and its export."""

import pytest

from smft_jax import export
from smft_jax import hf
from smft_jax.data import tokenizers
from smft_jax.data.world import world
from smft_jax.models import layers
from smft_jax.runs import model as model_lib
from smft_jax.runtime import program
from tests.support import gguf_files
from tests.support import hf_folders
from tests.support import tiny_run
from tests.support import train_runs

SIZES = {
  'num_layers': 2,
  'model_dim': 14,
  'num_heads': 2,
  'num_kv_heads': 1,
  'head_dim': 6,
  'ffn_dim': 19,
}

pytestmark = pytest.mark.usefixtures('quick_runs')


@pytest.fixture(scope='module')
def root(tmp_path_factory, quick_runs):
  """A folder with a GGUF, and the config of a run that teaches it."""
  folder = tmp_path_factory.mktemp('gguf')
  task = world.make_task(world.WorldConfig(**tiny_run.CONFIG['data'], seed=0))
  tokenizer = tokenizers.train_byte_level_bpe(task.vocabulary_texts(), 270)
  config = layers.TransformerConfig(vocab_size=271, **SIZES)
  hf_folders.save_random(config, folder / 'weights')
  metadata, tensors = gguf_files.contents_of(folder / 'weights')
  metadata |= gguf_files.tokenizer_entries(tokenizer)
  gguf_files.write(folder / 'model.gguf', metadata, tensors)
  tiny_run.write_config(
    folder,
    **{f'model__{name}': None for name in SIZES},
    model__memory_layers=(1,),
    base__path=str(folder / 'model.gguf'),
    base__max_length=97,
    data__num_new=1,
  )
  return folder


def test_a_gguf_is_healed_taught_and_exported(root):
  assert train_runs.run(root, 'run') == 0
  assert train_runs.results_of(root / 'run')['slots_updated'] > 0
  out = root / 'out'
  argv = [f'--workdir={root}/run', f'--out={out}']
  assert program.run(export.main, argv) == 0
  given, found = hf.load_config(root / 'model.gguf'), hf.load_config(out)
  assert found.memory_layers == (1,)
  assert (found.num_layers, found.vocab_size) == (2, 271)
  assert found.rope_theta == given.rope_theta
  text = 'Ada was born in 1815.'
  ids = hf.load_tokenizer(root / 'model.gguf').encode(text)
  assert hf.load_tokenizer(out).encode(text) == ids


def test_a_base_is_known_by_the_content_of_the_file(root, tmp_path):
  file = root / 'model.gguf'
  data = file.read_bytes()
  copy = tmp_path / 'copy.gguf'
  copy.write_bytes(data)
  assert model_lib.digest(str(copy)) == model_lib.digest(str(file))
  copy.write_bytes(data[:-1] + b'\x01')
  assert model_lib.digest(str(copy)) != model_lib.digest(str(file))


def cut(file, metadata, tensors):
  gguf_files.write(file, metadata, tensors)
  file.write_bytes(file.read_bytes()[:-100])


def other(entries):
  """Returns a function that writes a file with other metadata."""
  return lambda file, metadata, tensors: gguf_files.write(
    file, metadata | entries, tensors
  )


MANY = tokenizers.train_byte_level_bpe(
  ['the quick brown fox jumps over'] * 2, 280
)
MISTAKES = {
  'truncated': (cut, 'bad.gguf is truncated or damaged'),
  'another architecture': (
    other({'general.architecture': 'gemma3'}),
    "general.architecture = 'gemma3' is not supported",
  ),
  'a missing tensor': (
    lambda file, metadata, tensors: gguf_files.write(
      file,
      metadata,
      {k: v for k, v in tensors.items() if 'blk.1.ffn_down' not in k},
    ),
    'bad.gguf: blk.1.ffn_down.weight is missing; expected a tensor of shape',
  ),
  'another tokenizer': (
    other({'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'tekken'}),
    "tokenizer.ggml.pre = 'tekken' is not supported",
  ),
  'too many tokens': (
    other(gguf_files.tokenizer_entries(MANY)),
    'bad.gguf: its tokenizer has ids up to 280, but the model has vocab_size',
  ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line(mistake, root, capsys):
  write, match = MISTAKES[mistake]
  metadata, tensors = gguf_files.contents_of(root / 'weights')
  write(root / 'bad.gguf', metadata, tensors)
  path = f'--config.base.path={root}/bad.gguf'
  assert match in train_runs.refused(capsys, root, 'new', path)
