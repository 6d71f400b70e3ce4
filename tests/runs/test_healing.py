"""From a folder of weights to a healed base, by the program."""

import dataclasses

from flax import nnx
import jax
import numpy as np
import pytest

from smft_jax import hf
from smft_jax import memory
from smft_jax import schema
from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.data import tokenizers
from smft_jax.data.world import world
from smft_jax.models import build
from smft_jax.models import layers
from smft_jax.runs import base as base_lib
from smft_jax.runs import base_cache
from smft_jax.runs import model as model_lib
from smft_jax.runs import pretrain
from smft_jax.store import checkpoint
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
WITHOUT_SIZES = {f'model__{name}': None for name in SIZES}


pytestmark = pytest.mark.usefixtures('quick_runs')


def save_weights(folder, vocab_size, tokenizer):
  """A random decoder without memory, as others publish one."""
  config = layers.TransformerConfig(vocab_size=vocab_size, **SIZES)
  hf_folders.save_random(config, folder)
  (folder / 'tokenizer.json').write_text(tokenizer.inner.to_str())


@pytest.fixture(scope='module')
def tokenizer():
  task = world.make_task(world.WorldConfig(**tiny_run.CONFIG['data'], seed=0))
  return tokenizers.train_word_level(task.vocabulary_texts())


@pytest.fixture(scope='module')
def root(tmp_path_factory, tokenizer, quick_runs):
  """A folder with the weights, and the run `healed` that healed them."""
  folder = tmp_path_factory.mktemp('healing')
  # Embeddings are often padded: more rows than there are tokens.
  save_weights(folder / 'weights', tokenizer.vocab_size + 3, tokenizer)
  write_config(folder, method=None, stream=None)
  assert train_runs.run(folder, 'healed') == 0
  return folder


def write_config(folder, **changes):
  changes = {
    **WITHOUT_SIZES,
    'model__memory_layers': (1,),
    'model__memory_placement': 'beside',
    'base__path': str(folder / 'weights'),
    'background__batch_size': 64,
    **changes,
  }
  return tiny_run.write_config(folder, **changes)


def experiment_of(folder, *more):
  argv = [f'--config={folder}/tiny.py', *more]
  return config_lib.from_config_dict(command_line.parse(argv).config)


@pytest.fixture(scope='module')
def healed(root):
  """The cached parameters, and the model they belong to."""
  config = model_lib.config_of(experiment_of(root), vocab_size=0)
  graphdef, params = build.make(config, 3)
  [folder] = root.glob('cache/base-world-*/params')
  return graphdef, checkpoint.restore_newest(folder, params)[1], config


def test_before_healing_all_logits_are_those_of_the_weights(root, healed):
  _, _, config = healed
  plain = hf.load_model(root / 'weights')
  graphdef, params = model_lib.before_healing(root / 'weights', config, 3)
  tokens = np.arange(20, dtype=np.int32).reshape(4, 5)
  expected = jax.jit(plain.__call__)(tokens)
  found = jax.jit(lambda p, t: nnx.merge(graphdef, p)(t))(params, tokens)
  np.testing.assert_array_equal(found, expected)


def test_healing_trains_the_memory_and_no_other_bit(root, healed):
  _, params, _ = healed
  old = dict(nnx.to_flat_state(nnx.state(hf.load_model(root / 'weights'))))
  new = nnx.to_flat_state(params)
  assert {p for p, v in new if not isinstance(v, memory.MemoryParam)} == {*old}
  for path, variable in new:
    if path in old:
      np.testing.assert_array_equal(variable[...], old[path][...])
  [gate] = [v[...] for p, v in new if p[-1] == 'output_gate']
  assert np.all(np.asarray(gate) != 0)


def test_results_tell_before_and_after_and_the_health_of_the_table(
  root, capsys
):
  results = train_runs.results_of(root / 'healed')
  assert results['method'] == 'healing'
  general = results['held_out']['general_text']
  # Five steps, and only of the memory: little, and not nothing.
  assert 0 < abs(general['after'] - general['before']) < 0.5
  health = results['memory_health']
  assert health['slots'] == 49
  assert health['usage'] == 1 - health['dead_slots'] / 49
  assert train_runs.run(root, 'healed') == 0  # finished: told again
  said = capsys.readouterr().out
  assert 'known before' in said
  assert 'memory: slots 49, read ' in said
  assert 'KL to uniform' in (root / 'healed/report.html').read_text()


def test_a_stream_goes_on_from_the_healed_base(root, monkeypatch):
  monkeypatch.setattr(pretrain, 'train', None)  # found, not made again
  write_config(root)
  assert train_runs.run(root, 'streamed', '--config.data.num_new=1') == 0
  results = train_runs.results_of(root / 'streamed')
  assert results['method'] == 'sparse_memory'
  assert results['slots_updated'] > 0
  assert results['memory_health']['slots'] == 49


def test_other_weights_make_another_base(root, tmp_path, tokenizer):
  experiment = experiment_of(root)
  task = base_lib.make_task(experiment)
  folder = base_cache.folder(experiment, task)
  moved = tmp_path / 'moved'
  (root / 'weights').rename(moved)
  there = [f'--config.base.path={moved}']
  try:
    assert base_cache.folder(experiment_of(root, *there), task) == folder
  finally:
    moved.rename(root / 'weights')
  save_weights(moved, tokenizer.vocab_size, tokenizer)
  other = base_cache.folder(experiment_of(root, *there), task)
  assert other != folder
  # The tokenizer, too, is copied into a base, with the template of its chats.
  (moved / 'chat_template.jinja').write_text('{{ messages[0].content }}')
  assert base_cache.folder(experiment_of(root, *there), task) != other


MISTAKES = {
  'no folder': (['--config.base.path={root}/weihgts'], 'weights'),
  'a folder of something else': (['--config.base.path={root}'], 'config.json'),
  'no such block': (['--config.model.memory_layers=2'], 'blocks are 0 to 1'),
  'no block': (['--config.model.memory_layers=()'], 'memory_layers is empty'),
  'sizes twice': (['--config.model.num_layers=2'], 'config.model.num_layers'),
  'options twice': (['--config.model.qk_norm=True'], 'config.model.qk_norm'),
  'other words': (
    ['--config.data.num_known=200', '--config.data.num_new=90'],
    'cannot spell',
  ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line(mistake, root, capsys):
  more, part = MISTAKES[mistake]
  more = [m.format(root=root) for m in more]
  assert part in train_runs.refused(capsys, root, 'new', *more)


def test_a_tokenizer_of_more_tokens_than_the_weights_is_refused(
  root, tmp_path, tokenizer, capsys
):
  fits, small = tmp_path / 'fits', tmp_path / 'small'
  save_weights(fits, tokenizer.vocab_size, tokenizer)
  model_lib.check_weights(
    fits, base_lib.make_task(experiment_of(root)), words=True
  )
  save_weights(small, tokenizer.vocab_size - 1, tokenizer)
  said = train_runs.refused(capsys, root, 'new', f'--config.base.path={small}')
  assert 'is the tokenizer of another vocabulary' in said


def test_a_chat_with_a_token_that_the_weights_lack_is_refused(
  root, tmp_path, tokenizer, capsys
):
  added = tokenizers.read(root / 'weights')
  added.inner.add_special_tokens(['<turn>'])
  template = '<turn>{{ messages[0].content }}<turn>'
  added = dataclasses.replace(added, chat_template=template)
  save_weights(tmp_path, tokenizer.vocab_size, added)
  added.write(tmp_path)
  more = [f'--config.base.path={tmp_path}']
  more.append('--config.evaluation.prompt_format=chat')
  assert train_runs.run(root, 'chat', *more) == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert "the token '<turn>' with the id" in said
  assert "take 'plain' or 'few_shot'" in said
  assert not (root / 'chat').exists()


def test_weights_with_memory_cannot_be_healed(
  root, healed, tmp_path, tokenizer
):
  graphdef, params, _ = healed
  hf.save_model(nnx.merge(graphdef, params), tmp_path / 'with')
  (tmp_path / 'with/tokenizer.json').write_text(tokenizer.inner.to_str())
  with pytest.raises(schema.UserError, match='has memory layers already'):
    model_lib.check_weights(
      tmp_path / 'with', base_lib.make_task(experiment_of(root)), words=True
    )
