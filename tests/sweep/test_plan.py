"""Points are what the config file adds, or one line that says what is wrong."""

import dataclasses
import functools
import json

import pytest

from smft_jax import methods
from smft_jax import schema
from smft_jax.config import command_line
from smft_jax.config import file as config_file
from smft_jax.store import atomic
from smft_jax.sweep import plan as sweep_plan
from tests.support import repository
from tests.support import tiny_run


@pytest.fixture
def config(tmp_path):
  """A function that writes a config file with this sweep; gives its name."""

  def write(source, **changes):
    path = tiny_run.write_config(tmp_path, **changes)
    path.write_text(f'{path.read_text()}\n\n{source}')
    return str(path)

  return write


def points_of(file, *overrides):
  argv = [f'--config={file}', *overrides]
  return sweep_plan.expand(file, command_line.parse(argv).config)[0]


def refusal(file):
  with pytest.raises(schema.UserError) as error:
    points_of(file)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_points_are_the_config_with_their_overrides(config):
  file = config("""
def sweep(add):
  add('plain', {})
  add('fast', {'method.learning_rate': 9, 'seed': 5, 'background': None,
               'method.ranking': 'tf'}, method='tf', panels=('a', 'b'), x='9',
      tuned=7)
""")
  plain, fast = points_of(file)
  assert plain.experiment.method.learning_rate == 3.0
  assert (plain.index, plain.name, plain.overrides) == (0, 'plain', {})
  assert (plain.method, plain.panels) == ('sparse_memory', ('front',))
  assert (plain.x, plain.tuned) == (None, None)
  assert fast.index == 1
  assert fast.experiment == dataclasses.replace(
    plain.experiment,
    seed=5,
    background=None,
    method=dataclasses.replace(
      plain.experiment.method, learning_rate=9.0, ranking='tf'
    ),
  )
  assert (fast.method, fast.panels) == ('tf', ('a', 'b'))
  assert (fast.x, fast.tuned) == ('9', 7)


def test_another_method_starts_from_its_own_defaults(config):
  file = config("""
def sweep(add):
  add('lora', {'method.rank': 3, 'method.name': 'lora'})
  add('sparse', {'method.name': 'sparse_memory'})
""")
  lora, sparse = points_of(file)
  assert lora.experiment.method == type(lora.experiment.method)(rank=3)
  assert lora.method == 'lora'
  assert sparse.experiment.method.t == 7  # as the config file says


def test_the_command_line_comes_before_the_points(config):
  file = config("""
def sweep(add):
  add('plain', {})
  add('own', {'seed': 5})
  add('lora', {'method.name': 'lora'})
""")
  argv = ['--config.seed=8', '--config.method.t=2', '--config.model.head_dim=4']
  points = points_of(file, *argv)
  assert [p.experiment.seed for p in points] == [8, 5, 8]
  assert [getattr(p.experiment.method, 't', 0) for p in points] == [2, 2, 0]
  warnings = sweep_plan.ignored_flags(argv, config_file.load(file), points)
  assert len(warnings) == 2
  assert '--config.seed has no effect on 1 of 3 points' in warnings[0]
  assert '--config.method.t has no effect on 1 of 3 points' in warnings[1]


def test_references_follow_the_overrides_of_a_point(config):
  file = config("""
plain = get_config

def get_config():
  config = plain()
  config.data.seed = config.get_ref('seed')
  return config

def sweep(add):
  for seed in (0, 4):
    add(f'seed={seed}', {'seed': seed})
""")
  assert [p.experiment.data.seed for p in points_of(file)] == [0, 4]


@pytest.mark.parametrize(
  ('colon', 'names'), [('', ['a']), (':a', ['a']), (':b', ['b'])]
)
def test_a_variant_reaches_the_sweep(config, colon, names):
  file = config("""
VARIANTS = ('a', 'b')
plain = get_config

def get_config(variant='a'):
  return plain()

def sweep(add, variant='a'):
  add(variant, {})
""")
  assert [p.name for p in points_of(file + colon)] == names


def test_a_sweep_may_ignore_the_variant(config):
  file = config("""
plain = get_config
get_config = lambda variant: plain()
sweep = lambda add: add('one', {})
""")
  assert [p.name for p in points_of(f'{file}:any')] == ['one']


def test_the_plan_can_be_recorded(config, tmp_path):
  file = config("""
REPORT = dict(title='Rates', headline=('full', 'lora'))
sweep = lambda add: add('one', {'model.memory_layers': (0,)}, x=1)
""")
  points, report = sweep_plan.expand(file, config_file.load(file))
  atomic.write_json(tmp_path / 'a', sweep_plan.record(file, points, report))
  assert json.loads((tmp_path / 'a').read_text()) == {
    'config_file': file,
    'points': [
      {
        'index': 0,
        'name': 'one',
        'overrides': {'model.memory_layers': [0]},
        'method': 'sparse_memory',
        'panels': ['front'],
        'x': 1.0,
        'tuned': None,
      }
    ],
    'report': {'title': 'Rates', 'headline': ['full', 'lora']},
  }


@pytest.mark.parametrize(
  ('source', 'parts'),
  [
    ('', ['has no sweep(add)']),
    ('sweep = 3', ['has no sweep(add)']),
    ('def sweep(add): pass', ['adds no point']),
    ('def sweep(add, variant): pass', ['needs a variant']),
    ('def sweep(add):\n  1 / 0', ['sweep of', 'ZeroDivisionError', '(line']),
    ("sweep = lambda add: add('a', {}, panel=3)", ['TypeError', "'panel'"]),
    ("sweep = lambda add: [add('a', {}), add('a', {})]", ["named 'a'"]),
    ("sweep = lambda add: add('a/b', {})", ["'a/b'", 'a folder']),
    ("sweep = lambda add: add('..', {})", ["'..'", 'a folder']),
    ("sweep = lambda add: add('', {})", ["''", 'a folder']),
    ('sweep = lambda add: add(7, {})', ['point 7', 'a folder']),
    ("sweep = lambda add: add('a' * 201, {})", ['cannot be a folder']),
    ("sweep = lambda add: add('a', 3)", ["point 'a'", 'a dict such as']),
    (
      "sweep = lambda add: add('a', {}, panels='front')",
      ["point 'a': panels", 'a list'],
    ),
    ("sweep = lambda add: add('a', {}, x=[])", ["point 'a': x", 'a number']),
    (
      "sweep = lambda add: add('a', {}, tuned=1.5)",
      ["point 'a': tuned", 'a whole number'],
    ),
    (
      "sweep = lambda add: add('a', {'metod.t': 3})",
      ["point 'a'", 'config.metod.t', 'did you mean config.method.t?'],
    ),
    (
      "sweep = lambda add: add('a', {'method.name': 'lorra'})",
      ["point 'a'", 'config.method.name', "did you mean 'lora'?"],
    ),
    (
      "sweep = lambda add: add('a', {'method.name': 'lora', 'method.t': 3})",
      ["point 'a'", 'unknown key config.method.t'],
    ),
    (
      "sweep = lambda add: add('a', {'method.t': 50})",
      ["point 'a'", 'config.method.t = 50 is more than the 49 slots'],
    ),
    (
      "sweep = lambda add: add('a', {'method.t': 'many'})",
      ["point 'a'", 'config.method.t must be a whole number'],
    ),
    (
      "sweep = lambda add: add('a', {'stream': None})",
      ["point 'a'", 'config.stream is missing'],
    ),
    ("REPORT = 3\nsweep = lambda add: add('a', {})", ['REPORT', 'a dict']),
  ],
)
def test_a_mistake_is_one_line(config, source, parts):
  said = refusal(config(source))
  for part in parts:
    assert part in said


@pytest.mark.parametrize(
  ('overrides', 'part'),
  [
    ({'data.num_new': 0}, 'config.data.num_new'),
    ({'memory.num_slots': 50}, '49 and 64'),
    ({'background.corpus': 'pretrainin'}, "did you mean 'pretraining'?"),
  ],
)
def test_data_and_model_of_every_point_are_checked(config, overrides, part):
  file = config(f"""
def sweep(add):
  add('good', {{}})
  add('bad', {overrides})
""")
  with pytest.raises(schema.UserError, match=r"^point 'bad': ") as error:
    sweep_plan.make_tasks(points_of(file))
  assert part in str(error.value)


def test_points_that_share_work_are_run_together(config):
  file = config("""
def sweep(add):
  for rate in (1.0, 2.0):
    for seed in (2, 0):
      for t in (3, 5):
        overrides = {'seed': seed, 'method.t': t, 'method.learning_rate': rate}
        add(f'seed={seed},t={t},rate={rate:g}', overrides)
  add('short', {'seed': 2, 'method.t': 3, 'stream.max_documents': 1})
""")
  points = points_of(file)
  assert [p.name for p in sweep_plan.in_order(points)] == [
    'seed=2,t=3,rate=1',
    'seed=2,t=3,rate=2',
    'seed=2,t=5,rate=1',
    'seed=2,t=5,rate=2',
    'short',
    'seed=0,t=3,rate=1',
    'seed=0,t=3,rate=2',
    'seed=0,t=5,rate=1',
    'seed=0,t=5,rate=2',
  ]
  tasks = sweep_plan.make_tasks(points)
  assert list(tasks) == [sweep_plan.task_key(points[0])]


def test_states(config, tmp_path):
  (point,) = points_of(config("sweep = lambda add: add('a', {})"))
  assert sweep_plan.state_of(tmp_path, point) == 'to do'
  folder = sweep_plan.folder_of(tmp_path, point)
  folder.mkdir(parents=True)
  assert sweep_plan.state_of(tmp_path, point) == 'to do'
  (folder / 'error.txt').touch()
  assert sweep_plan.state_of(tmp_path, point) == 'failed'
  (folder / 'results.json').touch()
  assert sweep_plan.state_of(tmp_path, point) == 'done'


def test_panels_without_points_are_left_out_of_the_report(config):
  file = config("""
REPORT = dict(panels=dict(t=dict(title='T'), corpus=dict(title='Corpus')))
sweep = lambda add: add('one', {}, panels=('front', 't'))
""")
  _, report = sweep_plan.expand(file, config_file.load(file))
  assert report == {'panels': {'t': {'title': 'T'}}}


@functools.cache
def pareto(variant):
  file = str(repository.ROOT / 'configs' / 'pareto.py')
  return points_of(f'{file}:{variant}')


def test_the_comparison_runs_every_method_on_the_same_seeds():
  points = pareto('reported')
  assert {p.experiment.method.name for p in points} == methods.METHODS.keys()
  seeds = {}
  for point in points:
    seeds.setdefault(point.method, set()).add(point.experiment.seed)
  assert len(seeds['full']) >= 3
  assert all(those == seeds['full'] for those in seeds.values())
  # All learn from the same documents, by as many steps.
  assert len({p.experiment.stream for p in points}) == 1
  quick = {p.method for p in pareto('quick')}
  assert quick == {'sparse_memory', 'full', 'lora'}


def test_settings_come_from_a_grid_on_another_seed():
  def settings(point):
    return dataclasses.replace(point.experiment.method, learning_rate=1.0)

  tried = {}
  for point in pareto('validation'):
    tried.setdefault(point.method, []).append(point)
  reported = [p for p in pareto('reported') if 'front' in p.panels]
  seeds = {point.experiment.seed for point in reported}
  for point in reported:
    if point.method == 'in_context':  # has no settings
      continue
    grid = tried[point.method]
    assert settings(point) in map(settings, grid)
    assert point.tuned == len(grid)
    assert seeds.isdisjoint(p.experiment.seed for p in grid)
