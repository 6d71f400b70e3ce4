"""--print_config: every setting, its value and its meaning."""

import ast
import dataclasses

import pytest

from smft_jax import methods
from smft_jax import train
from smft_jax.config import describe
from smft_jax.config import experiment as config_lib
from smft_jax.runtime import program
from tests.support import configs
from tests.support import tiny_run


def sections_of(section):
  """A section and all below it."""
  yield section
  for field in dataclasses.fields(section):
    value = getattr(section, field.name)
    if dataclasses.is_dataclass(value):
      yield from sections_of(value)


DATA = [
  {'kind': 'world', 'num_known': 13},
  {'kind': 'facts', 'data_dir': 'x'},
  *(
    {'kind': kind, 'data_dir': 'x', 'documents_file': 'y'}
    for kind in ('squad', 'jsonl', 'simpleqa')
  ),
]
SCALING = {'factor': 8, 'low_freq_factor': 1, 'high_freq_factor': 4}
SCALING['original_max_position_embeddings'] = 32


@pytest.mark.parametrize(
  'changes',
  [
    *({'data': data} for data in DATA),
    *({'method': {'name': name}} for name in methods.METHODS),
    {'mesh': {}, 'model__rope_scaling': SCALING},
  ],
)
def test_every_setting_has_a_meaning(changes):
  changes.setdefault('method', {})
  experiment = config_lib.from_config_dict(
    configs.make(**changes, memory__num_slots=625)
  )
  for section in sections_of(experiment):
    names = {field.name for field in dataclasses.fields(section)}
    found = describe.meanings(type(section))
    assert names <= found.keys(), f'{type(section)}: {names - found.keys()}'
    assert all(found.values())


def test_a_line_has_the_value_the_meaning_and_the_default():
  @dataclasses.dataclass
  class Section:
    """A section.

    Attributes:
      size: How large
        it is. Only the first sentence is printed.
      name: A name.

    Raises:
      nothing: At all.
    """

    size: int = 3
    name: str = 'a'

  assert describe.describe(Section(size=5), 'config.x').splitlines() == [
    'config.x.size = 5  # How large it is. Default: 3.',
    "config.x.name = 'a'  # A name.",
  ]
  assert describe.meanings(Section).keys() == {'size', 'name'}


def test_the_program_prints_the_config_after_overrides(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  file = tiny_run.write_config(tmp_path)
  argv = [f'--config={file}', '--print_config', '--config.method.t=5']
  with pytest.raises(SystemExit) as left:
    program.run(train.main, argv)
  assert left.value.code == 0
  out = capsys.readouterr().out
  settings = dict(
    line.split('  # ')[0].split(' = ', 1)
    for line in out.splitlines()
    if line.startswith('config.')
  )
  assert settings['config.method.t'] == '5'
  for name, text in settings.items():
    ast.literal_eval(text)
    assert f'{name} = {text}  # ' in out
  assert [path.name for path in tmp_path.iterdir()] == ['tiny.py']


def test_a_bad_override_is_still_one_line(tmp_path, capsys):
  file = tiny_run.write_config(tmp_path)
  argv = [f'--config={file}', '--print_config', '--config.method.t=50']
  assert program.run(train.main, argv) == 2
  out, err = capsys.readouterr()
  assert (out, err.count('\n')) == ('', 1)
  assert 'config.method.t = 50' in err
