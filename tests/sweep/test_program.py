"""A whole sweep in a tiny world: it runs, resumes, and survives failures."""

import csv
import json
import os
import shutil
import signal

import jax
import pytest

from smft_jax.runs import base
from smft_jax.runs import finetune
from smft_jax.runtime import program
from smft_jax.sweep import __main__ as sweep
from smft_jax.sweep.pareto import analysis as pareto
from smft_jax.training import step as step_lib
from tests.support import tiny_run

# Found only when the method looks at the model: no projection is called so.
BAD = {'method.name': 'lora', 'method.pattern': 'nothing'}

REPORT = pareto.write

SWEEP = f"""

REPORT = {{'title': 'Rates'}}

def sweep(add):
  add('bad', {BAD}, panels=())
  for rate in (1.0, 2.0):
    add(f'rate={{rate:g}}', {{'method.learning_rate': rate}}, x=rate, tuned=5)
"""


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly, and draws only where a test looks at it."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pareto, 'write', fake_report)
    # Adam of optax mixes dtypes.
    with jax.numpy_dtype_promotion('standard'):
      yield


def fake_report(rows, workdir, report, failed):
  analysis = {'names': [row['name'] for row in rows], 'failed': failed}
  (workdir / 'pareto.json').write_text(json.dumps({**analysis, **report}))


def write_sweep(folder, source, **changes):
  path = tiny_run.write_config(folder, **changes)
  path.write_text(path.read_text() + source)


@pytest.fixture(scope='module')
def ran(tmp_path_factory, quickly):
  """A folder with a sweep that was run, two points of three with success."""
  folder = tmp_path_factory.mktemp('sweep')
  write_sweep(
    folder, SWEEP, base__checkpoint_every=9, evaluation__every_documents=2
  )
  step_lib.train_step.clear_cache()  # other tests train this model too
  assert run(folder) == 1
  # One program for pretraining, and one for both rates.
  assert step_lib.train_step._cache_size() == 2
  return folder


@pytest.fixture
def root(ran, tmp_path):
  """A copy of `ran`; the base stays in the cache of the first."""
  shutil.copytree(ran / 'run', tmp_path / 'run')
  shutil.copy(ran / 'tiny.py', tmp_path)
  return tmp_path


def run(folder, *more):
  """The exit code of the program."""
  argv = [f'--config={folder}/tiny.py', f'--workdir={folder}/run', *more]
  try:
    return program.run(sweep.main, argv)
  except SystemExit as leaves:
    return leaves.code


def read(path):
  return json.loads(path.read_text())


def files(folder):
  """Every file below a folder with its content and time, every folder."""
  return {
    path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
    if path.is_file()
    else None
    for path in folder.rglob('*')
  }


def names_of_runs(patch):
  """Returns a list that receives the names of points as they run."""
  names, original = [], finetune.run

  def noting(experiment, made, workdir, *more, **settings):
    names.append(workdir.name)
    return original(experiment, made, workdir, *more, **settings)

  patch.setattr(finetune, 'run', noting)
  return names


def test_points_leave_their_files(ran):
  plan = read(ran / 'run' / 'sweep.json')
  assert [p['name'] for p in plan['points']] == ['bad', 'rate=1', 'rate=2']
  points = ran / 'run' / 'points'
  for rate in (1.0, 2.0):
    folder = points / f'rate={rate:g}'
    assert not (folder / 'checkpoints').exists()
    assert not (folder / 'error.txt').exists()
    config = read(folder / 'config.json')
    assert config['config']['method']['learning_rate'] == rate
    results = read(folder / 'results.json')
    assert results['steps'] == 3 * 2
    assert 'jax' in results['environment']
    lines = (folder / 'metrics.jsonl').read_text().splitlines()
    streamed = [r for r in map(json.loads, lines) if r['event'] == 'stream']
    assert [r['documents'] for r in streamed] == [1, 2, 3]
  # The base's pretraining is with the first point that needed it.
  assert '"pretrain"' in (points / 'bad' / 'metrics.jsonl').read_text()


def test_a_failed_point_says_why_and_loses_no_other(ran):
  folder = ran / 'run' / 'points' / 'bad'
  assert not (folder / 'results.json').exists()
  error = (folder / 'error.txt').read_text()
  assert error.startswith('Traceback')
  assert "'nothing'" in error
  analysis = read(ran / 'run' / 'pareto.json')
  assert analysis == {
    'names': ['rate=1', 'rate=2'],
    'failed': ['bad'],
    'title': 'Rates',
  }


def test_the_table_holds_what_points_measured(ran):
  with open(ran / 'run' / 'table.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['name'] for row in rows] == ['rate=1', 'rate=2']
  for row in rows:
    results = read(ran / 'run' / 'points' / row['name'] / 'results.json')
    after = results['metrics_after']
    asked = after['target_unseen_phrasing']
    lost = {k: v['relative_drop'] for k, v in results['held_out'].items()}
    expected = {
      'method': 'sparse_memory',
      'panels': 'front',
      'x': float(row['name'].removeprefix('rate=')),
      'settings.method.learning_rate': float(row['x']),
      'tuned': 5,
      'seed': 3,
      'recall': asked['recall'],
      'f1': asked['f1'],
      'answer_nll': asked['nll'],
      'recall_before': (
        results['metrics_before']['target_unseen_phrasing']['recall']
      ),
      'recall_seen': after['target']['recall'],
      'drop': lost['known'],
      'held_out.known': lost['known'],
      'held_out.general_text': lost['general_text'],
      'locality': results['locality']['known'],
      'params_changed': results['params_changed'],
      'bytes_changed': 4 * results['params_changed'],
      'flops': results['lesson']['flops'],
      'lesson_s': results['lesson']['wall_s'],
    }
    for key, value in expected.items():
      assert row[key] == ('' if value is None else str(value)), key
    assert int(row['params_changed']) > 0
    assert int(row['flops']) > 0


def test_the_same_command_skips_what_is_done(root, monkeypatch, capsys):
  names = names_of_runs(monkeypatch)
  before = files(root / 'run' / 'points' / 'rate=1')
  assert run(root) == 1
  assert names == ['bad']
  assert files(root / 'run' / 'points' / 'rate=1') == before
  said = capsys.readouterr()
  assert '1 of 3 points failed: bad: see error.txt' in said.err
  assert f'report.html in {root}/run' in said.out


def test_a_failed_point_is_retried_with_a_new_config(root, monkeypatch):
  names = names_of_runs(monkeypatch)
  path = root / 'tiny.py'
  mended = repr({'method.learning_rate': 4.0})
  path.write_text(path.read_text().replace(repr(BAD), mended))
  assert run(root) == 0
  assert names == ['bad']
  folder = root / 'run' / 'points' / 'bad'
  method = read(folder / 'config.json')['config']['method']
  assert (method['name'], method['learning_rate']) == ('sparse_memory', 4.0)
  assert read(folder / 'results.json')['method'] == 'sparse_memory'
  assert not (folder / 'error.txt').exists()
  assert read(root / 'run' / 'pareto.json')['failed'] == []


def test_a_sweep_that_is_done_does_nothing_but_gather(root, monkeypatch):
  path = root / 'tiny.py'
  path.write_text(path.read_text().replace("add('bad'", "0 and add('bad'"))
  monkeypatch.setattr(finetune, 'run', None)
  monkeypatch.setattr(base, 'find_or_make', None)
  before = files(root / 'run' / 'points')
  assert run(root) == 0
  assert files(root / 'run' / 'points') == before
  assert read(root / 'run' / 'pareto.json')['names'] == ['rate=1', 'rate=2']


def test_an_interrupted_point_starts_again(root, monkeypatch, capsys):
  results = root / 'run' / 'points' / 'rate=2' / 'results.json'
  whole = read(results)
  results.unlink()
  shutil.rmtree(root / 'run' / 'points' / 'bad')
  take = step_lib.train_step
  with pytest.MonkeyPatch.context() as patch:
    steps = []

    def interrupted(*arguments):
      steps.append(0)
      if len(steps) == 3:
        raise KeyboardInterrupt
      return take(*arguments)

    patch.setattr(step_lib, 'train_step', interrupted)
    assert run(root, '--point=2') == 130
  assert 'the same command resumes' in capsys.readouterr().err
  assert not results.exists()
  assert not results.with_name('error.txt').exists()
  names = names_of_runs(monkeypatch)
  assert run(root, '--point=2') == 0
  assert names == ['rate=2']
  again = read(results)
  for key in ('metrics_after', 'tokens', 'slots_updated', 'steps'):
    assert again[key] == whole[key]
  lines = results.with_name('metrics.jsonl').read_text().splitlines()
  events = [json.loads(line) for line in lines]
  measured = [r['documents'] for r in events if r['event'] == 'evaluation']
  assert measured == [0, 2, 3]
  # Only the point of that index was run, and nothing was gathered.
  assert not (root / 'run' / 'points' / 'bad').exists()


def test_sigterm_stops_a_sweep_and_fails_no_point(root, monkeypatch, capsys):
  results = root / 'run' / 'points' / 'rate=2' / 'results.json'
  results.unlink()
  take = step_lib.train_step

  def signalled(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return take(*arguments)

  monkeypatch.setattr(step_lib, 'train_step', signalled)
  assert run(root, '--point=2') == 0
  assert 'the same command resumes' in capsys.readouterr().err
  assert not results.exists()
  assert not results.with_name('error.txt').exists()


def test_one_point_writes_no_table(root, monkeypatch, capsys):
  dropped = []
  monkeypatch.setattr(jax, 'clear_caches', lambda: dropped.append(1))
  shutil.rmtree(root / 'run')
  assert run(root, '--point=1') == 0
  assert capsys.readouterr().out == ''
  assert {p.name for p in (root / 'run').iterdir()} == {'points', 'sweep.json'}
  assert [p.name for p in (root / 'run' / 'points').iterdir()] == ['rate=1']
  assert run(root, '--point=0') == 1
  assert '1 of 1 points failed: bad' in capsys.readouterr().err
  # Compiled programs are dropped before there are too many.
  assert not dropped
  monkeypatch.setattr(sweep, '_MOST_MAPS', 0)
  assert run(root, '--point=2') == 0
  assert dropped == ([1] if sweep._MAPS.exists() else [])


def test_list_shows_states_and_changes_nothing(root, capsys):
  (root / 'run' / 'points' / 'rate=2' / 'results.json').unlink()
  before = files(root)
  assert run(root, '--list') == 0
  assert capsys.readouterr().out.splitlines() == [
    '   0  failed  bad',
    '   1  done    rate=1',
    '   2  to do   rate=2',
  ]
  assert run(root, '--list', '--point=1') == 0
  assert capsys.readouterr().out == '   1  done    rate=1\n'
  shutil.rmtree(root / 'run')
  assert run(root, '--list') == 0
  assert not (root / 'run').exists()
  assert before.keys() > files(root).keys()


def test_a_base_that_cannot_be_made_fails_its_points_alone(root, monkeypatch):
  source = """
def sweep(add):
  add('rate=1', {'method.learning_rate': 1.0})
  add('rate=2', {'method.learning_rate': 2.0})
  add('wild=1', {'base.steps': 6})
  add('wild=2', {'base.steps': 6, 'method.t': 3})
"""
  path = root / 'tiny.py'
  path.write_text(path.read_text() + source)
  (root / 'run' / 'points' / 'rate=2' / 'results.json').unlink()
  made = []
  original = base.find_or_make

  def diverges(experiment, *arguments):
    made.append(experiment.base.steps)
    if experiment.base.steps == 6:
      raise ValueError('pretraining diverged')
    return original(experiment, *arguments)

  monkeypatch.setattr(base, 'find_or_make', diverges)
  assert run(root) == 1
  assert made == [6, 5]  # once each, the one that is needed next last
  points = root / 'run' / 'points'
  for name in ('wild=1', 'wild=2'):
    error = (points / name / 'error.txt').read_text()
    assert 'ValueError: pretraining diverged' in error
  assert (points / 'rate=2' / 'results.json').exists()
  analysis = read(root / 'run' / 'pareto.json')
  assert analysis['names'] == ['rate=1', 'rate=2']
  assert analysis['failed'] == ['wild=1', 'wild=2']


def test_no_table_if_all_points_fail(tmp_path, ran, capsys):
  more = f"\nsweep = lambda add: add('bad', {BAD})\n"
  shutil.copytree(ran / 'cache', tmp_path / 'cache')
  write_sweep(tmp_path, more)
  assert run(tmp_path) == 1
  assert 'no point has finished' in capsys.readouterr().out
  assert not (tmp_path / 'run' / 'table.csv').exists()


def test_the_report_is_written_and_its_table_printed(root, monkeypatch, capsys):
  monkeypatch.setattr(pareto, 'write', REPORT)
  for name, recall in (('rate=1', 0.6), ('rate=2', 0.8)):
    path = root / 'run' / 'points' / name / 'results.json'
    results = read(path)
    results['metrics_before']['target_unseen_phrasing']['recall'] = 0.2
    results['metrics_after']['target_unseen_phrasing']['recall'] = recall
    results['held_out']['known']['relative_drop'] = recall / 4
    path.write_text(json.dumps(results))
  assert run(root) == 1
  equal = read(root / 'run' / 'pareto.json')['equal_learning']
  assert equal['methods']['sparse_memory']['drop_mean'] == 0.2
  out = capsys.readouterr().out.splitlines()
  assert out[0].startswith('at 80.0% recall')
  assert out[1].split()[-5:] == ['20.0%', '1', 'of', '1', '80.0%']
  page = (root / 'run' / 'report.html').read_text()
  assert 'Rates' in page
  assert 'bad' in page


def test_a_flag_that_a_point_overrides_is_a_warning(root, capsys):
  shutil.rmtree(root / 'run')
  assert run(root, '--point=1', '--config.method.learning_rate=7') == 0
  assert '--config.method.learning_rate has no effect on 1 of 1 points' in (
    capsys.readouterr().err
  )
  config = read(root / 'run' / 'points' / 'rate=1' / 'config.json')
  assert config['config']['method']['learning_rate'] == 1.0


def one_line_that_changes_nothing(root, capsys, *more):
  before = files(root)
  capsys.readouterr()
  assert run(root, *more) == 2
  said = capsys.readouterr()
  assert said.out == ''
  assert said.err.startswith('error: ')
  assert said.err.count('\n') == 1
  assert files(root) == before
  return said.err


def test_a_done_point_of_another_config_is_refused(root, capsys):
  path = root / 'tiny.py'
  whole = path.read_text()
  path.write_text(whole.replace("rate:g}', {", "rate:g}', {'method.t': 5, "))
  said = one_line_that_changes_nothing(root, capsys)
  assert "point 'rate=1'" in said
  assert 'config.method.t = 7, not 5' in said
  # A point that failed has nothing to lose.
  path.write_text(whole.replace("'nothing'", "'neither'"))
  assert run(root, '--point=0') == 1


def test_the_workdir_of_a_single_run_is_refused(root, capsys):
  (root / 'run' / 'config.json').write_text('{}')
  assert 'a single run' in one_line_that_changes_nothing(root, capsys)


@pytest.mark.parametrize(
  ('more', 'part'),
  [
    (['--point=3'], 'there are 3 points, from 0 to 2'),
    (['--point=-1'], '--point=-1 is out of range'),
    (['--point=one'], '--point must be a whole number'),
    (['--pint=1'], 'did you mean --point?'),
    (['--config.metod.t=3'], 'did you mean config.method.t?'),
    (['--config.data.num_new=0'], "point 'bad': there is no document"),
    (['--config.memory.num_slots=50'], '49 and 64'),
  ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(root, capsys, more, part):
  shutil.rmtree(root / 'run')
  assert part in one_line_that_changes_nothing(root, capsys, *more)


def test_help_explains_points(capsys):
  assert run('nowhere', '--help') == 0
  out = capsys.readouterr().out
  assert '--point=' in out
  assert 'every point' in out
