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
  """Returns a function that writes a config file and returns its name."""

  def write(sweep):
    path = tiny_run.write_config(tmp_path)
    path.write_text(f'{path.read_text()}\n\n{sweep}')
    return str(path)

  return write


def points_of(file, *overrides):
  argv = [f'--config={file}', *overrides]
  return sweep_plan.expand(file, command_line.parse(argv).config)[0]


def test_points_are_the_config_with_their_overrides(config):
  file = config("""
def sweep(add):
  add('plain', {})
  add('fast', {'method.name': 'sparse_memory', 'method.learning_rate': 9,
               'method.ranking': 'tf', 'seed': 5, 'background': None},
      method='tf', panels=('a', 'b'), x='9', tuned=7)
  add('lora', {'method.rank': 3, 'method.name': 'lora'})
""")
  plain, fast, lora = points_of(file)
  assert plain.experiment.method.learning_rate == 3.0
  assert plain.experiment.method.t == 7  # as the config file says
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
  # Another method starts from its own defaults.
  assert lora.experiment.method == type(lora.experiment.method)(rank=3)
  assert lora.method == 'lora'


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
  ('sweep', 'colon', 'name'),
  [
    ("(add, variant='a'): add(variant, {})", '', 'a'),
    ("(add, variant='a'): add(variant, {})", ':b', 'b'),
    ("(add): add('one', {})", ':any', 'one'),
  ],
)
def test_a_variant_reaches_a_sweep_that_takes_one(config, sweep, colon, name):
  file = config(f"""
plain = get_config
get_config = lambda variant='a': plain()
def sweep{sweep}
""")
  assert [p.name for p in points_of(file + colon)] == [name]


def test_the_plan_can_be_recorded(config, tmp_path):
  file = config("""
REPORT = dict(title='Rates', headline=('full', 'lora'),
              panels=dict(t=dict(title='T'), corpus=dict(title='Corpus')))
sweep = lambda add: add('one', {'model.memory_layers': (0,)}, x=1,
                        panels=('front', 't'))
""")
  points, report = sweep_plan.expand(file, config_file.load(file))
  atomic.write_json(tmp_path / 'a', sweep_plan.record(file, points, report))
  point = {
    'index': 0,
    'name': 'one',
    'overrides': {'model.memory_layers': [0]},
    'method': 'sparse_memory',
    'panels': ['front', 't'],
    'x': 1.0,
    'tuned': None,
  }
  # A panel without points is left out.
  panels = {'t': {'title': 'T'}}
  assert json.loads((tmp_path / 'a').read_text()) == {
    'config_file': file,
    'points': [point],
    'report': {
      'title': 'Rates', 'headline': ['full', 'lora'], 'panels': panels,
    },
  }  # fmt: skip


@pytest.mark.parametrize(
  ('source', 'parts'),
  [
    ('', ['has no sweep(add)']),
    ('sweep = 3', ['has no sweep(add)']),
    ('def sweep(add): pass', ['adds no point']),
    ('def sweep(add, variant): pass', ['needs a variant']),
    ('def sweep(add):\n  1 / 0', ['sweep of', 'ZeroDivisionError', '(line']),
    ("sweep = lambda add: [add('a', {}), add('a', {})]", ["named 'a'"]),
    ("REPORT = 3\nsweep = lambda add: add('a', {})", ['REPORT', 'a dict']),
  ],
)
def test_a_mistake_is_one_line(config, source, parts):
  with pytest.raises(schema.UserError) as error:
    points_of(config(source))
  assert '\n' not in str(error.value)
  assert [part for part in parts if part not in str(error.value)] == []


@pytest.mark.parametrize(
  ('point', 'parts'),
  [
    ("'a', {}, panel=3", ['TypeError', "'panel'"]),
    ("'a/b', {}", ["'a/b'", 'a folder']),
    ("'..', {}", ["'..'", 'a folder']),
    ("'', {}", ["''", 'a folder']),
    ('7, {}', ['point 7', 'a folder']),
    ("'a' * 201, {}", ['not usable as a folder name']),
    ("'a', 3", ["point 'a'", 'a dict such as']),
    ("'a', {}, panels='front'", ["point 'a': panels", 'a list']),
    ("'a', {}, x=[]", ["point 'a': x", 'a number']),
    ("'a', {}, tuned=1.5", ["point 'a': tuned", 'a whole number']),
    (
      "'a', {'metod.t': 3}",
      ["point 'a'", 'config.metod.t', 'did you mean config.method.t?'],
    ),
    (
      "'a', {'method.name': 'lorra'}",
      ["point 'a'", 'config.method.name', "did you mean 'lora'?"],
    ),
    (
      "'a', {'method.name': 'lora', 'method.t': 3}",
      ["point 'a'", 'unknown key config.method.t'],
    ),
    (
      "'a', {'method.t': 50}",
      ["point 'a'", 'config.method.t = 50 is more than the 49 slots'],
    ),
    (
      "'a', {'method.t': 'many'}",
      ["point 'a'", 'config.method.t must be a whole number'],
    ),
    ("'a', {'stream': None}", ["point 'a'", 'config.stream is missing']),
  ],
)
def test_a_mistake_in_a_point_is_one_line(config, point, parts):
  test_a_mistake_is_one_line(config, f'sweep = lambda add: add({point})', parts)


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
  seed_2 = [f'seed=2,t={t},rate={rate}' for t in (3, 5) for rate in (1, 2)]
  seed_0 = [name.replace('seed=2', 'seed=0') for name in seed_2]
  found = [p.name for p in sweep_plan.in_order(points)]
  assert found == [*seed_2, 'short', *seed_0]
  tasks = sweep_plan.make_tasks(points)
  assert list(tasks) == [sweep_plan.task_key(points[0])]


def test_states(config, tmp_path):
  (point,) = points_of(config("sweep = lambda add: add('a', {})"))
  assert sweep_plan.state_of(tmp_path, point) == 'to do'
  folder = sweep_plan.folder_of(tmp_path, point)
  folder.mkdir(parents=True)
  assert sweep_plan.state_of(tmp_path, point) == 'to do'
  for name, state in (('error.txt', 'failed'), ('results.json', 'done')):
    (folder / name).touch()
    assert sweep_plan.state_of(tmp_path, point) == state


@functools.cache
def pareto(variant, name='pareto'):
  file = str(repository.ROOT / 'configs' / f'{name}.py')
  path = ['--config.base.path=weights'] if name == 'pareto_hf' else []
  return points_of(f'{file}:{variant}', *path)


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

  reported = [p for p in pareto('reported') if 'front' in p.panels]
  seeds = {point.experiment.seed for point in reported}
  for point in reported:
    if point.method == 'in_context':  # has no settings
      continue
    grid = [p for p in pareto('validation') if p.method == point.method]
    assert settings(point) in map(settings, grid)
    assert point.tuned == len(grid)
    assert seeds.isdisjoint(p.experiment.seed for p in grid)


def test_the_comparison_on_a_pretrained_model_is_fair():
  reported, tuned = (pareto(v, 'pareto_hf') for v in ('reported', 'validation'))
  for points in (reported, tuned):
    # All learn from the same people, by as many steps, and may train all.
    assert len({p.experiment.stream for p in points}) == 1
    assert {p.experiment.model.param_dtype for p in points} == {'float32'}
  seeds = {p.experiment.seed for p in reported}
  assert len(seeds) == 3
  assert seeds.isdisjoint(p.experiment.seed for p in tuned)
  grids = {(p.method, p.experiment.method) for p in tuned}
  for point in reported:
    if 'front' in point.panels and point.method != 'in_context':
      assert (point.method, point.experiment.method) in grids
  rankings = [p.experiment.method for p in reported if 'ranking' in p.panels]
  assert len({m.ranking for m in rankings}) == len(rankings) / 3 == 6
