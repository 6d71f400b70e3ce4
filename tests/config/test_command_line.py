"""Command lines are understood, or refused in one line."""

import pathlib

import pytest

from smft_jax import schema
from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from tests.support import configs

DOCQA = '--config=configs/docqa.py'

SOURCE = f"""
from ml_collections import config_dict

VARIANTS = ('', 'squad')

def get_config(variant=''):
  config = config_dict.ConfigDict({configs.CONFIG!r})
  config.method.t = 23 if variant else 17
  config.evaluation.batch_size = config.base.get_ref('batch_size')
  return config
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """A working folder with configs/docqa.py in it."""
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'docqa.py').write_text(SOURCE)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def refusal(*argv, flags=None):
  with pytest.raises(schema.UserError) as error:
    config_lib.from_config_dict(command_line.parse(argv, flags).config)
  assert '\n' not in str(error.value)
  assert len(str(error.value)) < 500
  return str(error.value)


def parsed(*argv):
  return config_lib.from_config_dict(command_line.parse(argv).config)


def test_config_and_overrides():
  experiment = parsed(
    DOCQA,
    '--config.method.t=1e1',
    '--config.method.learning_rate',
    '7',
    '--config.memory.qk_norm=false',
    '--config.model.qkv_bias',
    '--config.model.memory_layers=(0, 2)',
    '--config.stream.max_documents=3',
    '--config.data.num_new=5',
    '--config.mesh=none',
    '--config.base.batch_size=7e0',
  )
  method, model = experiment.method, experiment.model
  assert (method.t, method.learning_rate) == (10, 7.0)
  assert experiment.memory.qk_norm is False
  assert model.qkv_bias is True
  assert model.memory_layers == (0, 2)
  assert experiment.stream.max_documents == 3
  assert experiment.data.num_new == 5
  assert experiment.mesh is None
  assert experiment.base.batch_size == 7
  assert experiment.evaluation.batch_size == 7  # refers to that of the base


def test_the_kind_of_data_can_be_overridden(folder):
  path = folder / 'configs' / 'docqa.py'
  path.write_text(SOURCE.replace("'num_known': 13", "'seed': 13"))
  experiment = parsed(
    f'--config={path}', '--config.data.kind=squad', '--config.data.data_dir=x'
  )
  assert (experiment.data.data_dir, experiment.data.seed) == ('x', 13)


def test_variant_reaches_get_config():
  assert parsed(f'{DOCQA}:squad').method.t == 23


@pytest.mark.parametrize(
  ('argv', 'workdir'),
  [
    ([DOCQA], 'runs/docqa'),
    (
      [f'{DOCQA}:squad', '--config.seed=1', '--config.method.t=9'],
      'runs/docqa-squad,method.t=9,seed=1',
    ),
    ([DOCQA, '--workdir=here/there'], 'here/there'),
  ],
)
def test_workdir_is_named_after_config_and_overrides(argv, workdir):
  assert command_line.parse(argv).workdir == pathlib.Path(workdir)


def test_long_names_of_workdirs_are_cut_and_stay_apart():
  rate = f'--config.method.learning_rate=1.{"0" * 300}'
  long, other = (
    command_line.parse([DOCQA, text]).workdir.name
    for text in (rate, f'{rate}1')
  )
  assert len(long) < 140
  assert long != other


def test_flags_of_a_program():
  flags = {
    'fast': command_line.Flag(default=False, help='less of everything'),
    'count': command_line.Flag(default=3, help='how many'),
    'note': command_line.Flag(default='', help='for the record'),
  }
  argv = ['--fast', DOCQA, '--count=1e1']
  invocation = command_line.parse(argv, flags)
  assert invocation.flags == {'fast': True, 'count': 10, 'note': ''}
  assert '--count must be a whole number' in refusal('--count=x', flags=flags)


@pytest.mark.parametrize(
  ('argv', 'parts'),
  [
    ([], ['--config=FILE.py is missing', 'configs/docqa.py']),
    (['--config'], ['--config needs a value']),
    (['--config=configs/docqaa.py'], ['did you mean configs/docqa.py?']),
    (['--config=configs/docqa'], ['did you mean configs/docqa.py?']),
    (['--config=confgs/docqa.py'], ['folder confgs', 'did you mean configs?']),
    (['--config=configs'], ['configs is a folder', 'configs/docqa.py']),
    (['--config=configs/docqa.py:squd'], ["did you mean 'squad'?"]),
    (['configs/docqa.py'], ['did you mean --config=configs/docqa.py?']),
    (['config.seed=3'], ['did you mean --config.seed=3?']),
    (['workdir=x'], ['did you mean --workdir=x?']),
    (['hello'], ["'hello' is no flag"]),
    (['x' * 999], ["'xxx", 'xxx... is no flag']),
    ([f'--config.method.name={"x" * 999}'], ['xxx... is not known; it can be']),
    ([f'--config.method.t=1{"0" * 400}'], ['a number that a float can hold']),
    (
      [f'--config.method.learning_rate=1{"0" * 400}'],
      ['learning_rate must be a number that a float can hold, not 1000'],
    ),
    (['--confg=configs/docqa.py'], ['did you mean --config?']),
    (['--wrkdir=x'], ['did you mean --workdir?']),
    (['--learning_rate=3'], ['did you mean --config.method.learning_rate?']),
    (['--method.t=3'], ['did you mean --config.method.t?']),
    (['--config.metod.t=3'], ['did you mean config.method.t?']),
    (['--config.method.tt=3'], ['did you mean config.method.t?']),
    (['--config.method.t=many'], ['config.method.t', "'many'"]),
    (['--config.method.t=1.5'], ['config.method.t', '1.5']),
    (['--config.model.qkv_bias=maybe'], ['True or False', "'maybe'"]),
    (['--config.seed=[1'], ['config.seed', '[1']),
    (
      ['--config.model.memory_layers=last'],
      ["memory_layers must be a list, such as ('last',), not 'last'"],
    ),
    (['--config.data.kind=jsonll'], ["did you mean 'jsonl'?"]),
    (['--config.model=3'], ['config.model is a section']),
  ],
)
def test_a_mistake_is_one_line_that_names_the_nearest_right_thing(argv, parts):
  has_config = any('.py' in a or a == '--config' for a in argv)
  if argv and not has_config and argv != ['--config=configs']:
    argv = [DOCQA, *argv]
  said = refusal(*argv)
  assert [part for part in parts if part not in said] == []


def test_a_value_that_must_be_given_can_be_given(folder):
  (folder / 'configs' / 'own.py').write_text(f"""
from ml_collections import config_dict

def get_config():
  config = config_dict.ConfigDict({configs.make(data=None)!r})
  config.data = config_dict.ConfigDict({{
    'kind': 'squad', 'data_dir': config_dict.required_placeholder(str)}})
  return config
""")
  wanted = 'config.data.data_dir must be given: --config.data.data_dir=...'
  assert refusal('--config=configs/own.py') == wanted
  given = parsed('--config=configs/own.py', '--config.data.data_dir=there')
  assert given.data.data_dir == 'there'


@pytest.mark.parametrize(
  ('source', 'parts'),
  [
    ('x = ', ['does not run', 'SyntaxError']),
    ('\nimport nothing_like_it', ['ModuleNotFoundError', '(line 2)']),
    ('x = 3', ['has no get_config()']),
    ('get_config = lambda: 3', ['must return a ConfigDict', 'int']),
    ('def get_config():\n  return 1 / 0', ['ZeroDivisionError', '(line 2)']),
    ('def get_config(variant): pass', ['needs a variant']),
  ],
)
def test_config_files_that_are_none(folder, source, parts):
  (folder / 'configs' / 'bad.py').write_text(source)
  said = refusal('--config=configs/bad.py')
  parts = ['configs/bad.py', *parts]
  assert [part for part in parts if part not in said] == []


def test_a_variant_where_there_is_none(folder):
  (folder / 'configs' / 'bad.py').write_text('def get_config(): pass')
  assert 'has no variants' in refusal('--config=configs/bad.py:small')


def test_an_edited_file_is_read_anew(folder):
  path = folder / 'configs' / 'docqa.py'
  for seed in (4, 5):
    path.write_text(SOURCE.replace("'seed': 3", f"'seed': {seed}"))
    assert config_file.load(str(path)).seed == seed
  assert not (folder / 'configs' / '__pycache__').exists()


def test_help_lists_flags_and_configs(capsys):
  flags = {'fast': command_line.Flag(default=False, help='less of everything')}
  with pytest.raises(SystemExit) as left:
    command_line.parse(['--help'], flags)
  assert left.value.code == 0
  out = capsys.readouterr().out
  assert 'less of everything' in out
  assert 'configs/docqa.py' in out
