"""Paths with `~` and variables, in programs and functions."""

import json
import re
import shutil

import pytest

from smft_jax import hf
from smft_jax import schema
from smft_jax.config import command_line
from smft_jax.config import file as config_file
from smft_jax.data import tokenizers
from smft_jax.data.sources import problems
from smft_jax.data.sources import sources
from smft_jax.lesson import __main__ as lesson_program
from smft_jax.lesson import file as lesson_file
from smft_jax.store import paths
from smft_jax.training import background
from tests.support import hf_folders
from tests.support import lessons
from tests.support import tiny_run


@pytest.fixture(params=['~/{}', '$PLACE/{}', '${{PLACE}}/{}'])
def spell(request, tmp_path, monkeypatch):
  """Writes a name in the temporary folder as a person may."""
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('PLACE', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  yield request.param.format
  assert not [p.name for p in tmp_path.iterdir() if p.name[0] in '~$']


def test_checkpoints_and_tokenizers(spell, tmp_path):
  model = hf_folders.memory_model('beside')
  hf.save_model(model, spell('out'), source=None)
  assert (tmp_path / 'out' / 'memory.safetensors').exists()
  again = hf.load_model(spell('out'))
  assert hf_folders.bits_of(again) == hf_folders.bits_of(model)
  hf.check(spell('out'))
  tokenizers.train_word_level(['Fog in Porto']).write(tmp_path / 'out')
  assert hf.load_tokenizer(spell('out')).encode('Fog')
  hf.save_model(again, spell('copy'), source=spell('out'))
  assert (tmp_path / 'copy' / 'tokenizer.json').exists()


def test_lessons(spell, tmp_path):
  lesson_file.write(spell('a.safetensors'), lessons.make([3, 5]))
  assert (tmp_path / 'a.safetensors').exists()
  assert len(lesson_file.read(spell('a.safetensors')).slots) == 2
  lesson_file.write(tmp_path / 'b.safetensors', lessons.make([7], seed=2))
  merged = f'--out={spell("c.safetensors")}'
  lesson_program.main(
    ['merge', spell('a.safetensors'), spell('b.safetensors'), merged]
  )
  assert len(lesson_file.read(tmp_path / 'c.safetensors').slots) == 3


def test_data_backgrounds_and_runs(spell, tmp_path):
  (tmp_path / 'notes.jsonl').write_text(json.dumps({'text': 'Fog.'}))
  (tmp_path / 'page.md').write_text('Rain.')
  reader = sources.Reader(problems.Problems('refuse'))
  assert reader.texts(spell('notes.jsonl'))[0].text == 'Fog.'
  assert reader.texts(spell('page.md'))[0].text == 'Rain.'
  background.save(spell('counts.npz'), background.empty(5), {'a': 1})
  assert len(background.read(spell('counts.npz'))[0][0]) == 5
  tiny_run.write_config(tmp_path)
  assert config_file.load(spell('tiny.py')).seed == 3
  invocation = command_line.parse(
    [f'--config={spell("tiny.py")}', f'--workdir={spell("run")}']
  )
  assert invocation.workdir == tmp_path / 'run'


def test_what_is_not_known_stays():
  assert str(paths.expand('$NO_SUCH/a')) == '$NO_SUCH/a'
  assert str(paths.expand('~no_such_user/a')) == '~no_such_user/a'


POINTER = (
  'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 268\n'
)


@pytest.mark.parametrize(
  'name',
  ['a.txt', 'a.jsonl', 'a.csv', 'a.parquet', 'a.gguf', 'tokenizer.json']
  + ['model.safetensors'],
)
def test_a_pointer_of_git_lfs_is_not_taken_for_the_file(tmp_path, name):
  folder = tmp_path / 'model'
  shutil.copytree(hf_folders.FOLDER / 'llama', folder)
  tokenizers.train_word_level(['Ada']).write(folder)
  (folder / name).write_text(POINTER)
  if name == 'tokenizer.json':
    read, what = hf.load_tokenizer, folder
  elif name == 'model.safetensors':
    read, what = hf.load_model, folder
  elif name == 'a.gguf':
    read, what = hf.load_model, folder / name
  else:
    reader = sources.Reader(problems.Problems('skip'))
    read, what = reader.texts, str(folder / name)
  said = f'{folder / name} is only a pointer of Git LFS; get the file itself'
  with pytest.raises(schema.UserError, match=re.escape(said)):
    read(what)
