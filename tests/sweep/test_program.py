"""A whole sweep in a tiny world: it runs, resumes, and survives failures."""

import csv
import dataclasses
import json
import os
import shutil
import signal

import jax
import pytest

from smft_jax.runs import base
from smft_jax.runs import finetune
from smft_jax.sweep import __main__ as sweep
from smft_jax.sweep.pareto import analysis as pareto
from smft_jax.training import step as step_lib
from tests.support import sweep_runs

REPORT = pareto.write
run, read, edit = sweep_runs.run, sweep_runs.read, sweep_runs.edit


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly, and replaces the report by the numbers it is given."""

  def write(rows, workdir, report, failed):
    found = {'names': [row['name'] for row in rows], 'failed': failed}
    (workdir / 'pareto.json').write_text(json.dumps({**found, **report}))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pareto, 'write', write)
    # Adam of optax mixes dtypes.
    with jax.numpy_dtype_promotion('standard'):
      yield


@pytest.fixture(scope='module')
def ran(tmp_path_factory, quickly):
  """A folder with a sweep that was run, two points of three with success."""
  folder = tmp_path_factory.mktemp('sweep')
  sweep_runs.write(
    folder, base__checkpoint_every=9, evaluation__every_documents=2
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


@pytest.fixture
def names_of_runs(monkeypatch):
  """A list that receives the names of points as they run."""
  names, original = [], finetune.run

  def noting(experiment, made, workdir, *more, **settings):
    names.append(workdir.name)
    return original(experiment, made, workdir, *more, **settings)

  monkeypatch.setattr(finetune, 'run', noting)
  return names


def documents_of(folder, event):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  records = map(json.loads, lines)
  return [r['documents'] for r in records if r['event'] == event]


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
    assert documents_of(folder, 'stream') == [1, 2, 3]
  # The base's pretraining is with the first point that needed it.
  assert '"pretrain"' in (points / 'bad' / 'metrics.jsonl').read_text()
  # A failed point says why and loses no other.
  assert not (points / 'bad' / 'results.json').exists()
  error = (points / 'bad' / 'error.txt').read_text()
  assert error.startswith('Traceback')
  assert "'nothing'" in error
  found = read(ran / 'run' / 'pareto.json')
  expected = {'names': ['rate=1', 'rate=2'], 'failed': ['bad']}
  assert found == expected | {'title': 'Rates'}


def test_the_table_holds_what_points_measured(ran):
  with open(ran / 'run' / 'table.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['name'] for row in rows] == ['rate=1', 'rate=2']
  for row in rows:
    results = read(ran / 'run' / 'points' / row['name'] / 'results.json')
    before, after = results['metrics_before'], results['metrics_after']
    asked = after['target_unseen_phrasing']
    lost = {k: v['relative_drop'] for k, v in results['held_out'].items()}
    changed = results['params_changed']
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
      'recall_before': before['target_unseen_phrasing']['recall'],
      'recall_seen': after['target']['recall'],
      'drop': lost['known'],
      **{f'held_out.{name}': lost[name] for name in ('known', 'general_text')},
      'locality': results['locality']['known'],
      'params_changed': changed,
      'bytes_changed': 4 * changed,
      'flops': results['lesson']['flops'],
      'lesson_s': results['lesson']['wall_s'],
    }
    text = {k: '' if v is None else str(v) for k, v in expected.items()}
    assert {key: row[key] for key in expected} == text
    assert changed > 0
    assert int(row['flops']) > 0


def test_the_same_command_skips_what_is_done(root, names_of_runs, capsys):
  before = sweep_runs.files(root / 'run' / 'points' / 'rate=1')
  assert run(root) == 1
  assert names_of_runs == ['bad']
  assert sweep_runs.files(root / 'run' / 'points' / 'rate=1') == before
  said = capsys.readouterr()
  assert '1 of 3 points failed: bad: see error.txt' in said.err
  assert f'report.html in {root}/run' in said.out


def test_a_failed_point_is_retried_with_a_new_config(root, names_of_runs):
  edit(root, repr(sweep_runs.BAD), repr({'method.learning_rate': 4.0}))
  assert run(root) == 0
  assert names_of_runs == ['bad']
  folder = root / 'run' / 'points' / 'bad'
  method = read(folder / 'config.json')['config']['method']
  assert (method['name'], method['learning_rate']) == ('sparse_memory', 4.0)
  assert read(folder / 'results.json')['method'] == 'sparse_memory'
  assert not (folder / 'error.txt').exists()
  assert read(root / 'run' / 'pareto.json')['failed'] == []


def test_points_of_other_data_are_not_put_into_one_table(
  root, monkeypatch, capsys
):
  original = base.make_task

  def changed(experiment):
    task = original(experiment)
    return dataclasses.replace(task, documents=task.documents[::-1])

  monkeypatch.setattr(base, 'make_task', changed)
  said = sweep_runs.error_of(root, capsys)
  assert "point 'rate=1'" in said
  assert 'holds a run of other data' in said


def test_a_sweep_that_is_done_does_nothing_but_gather(root, monkeypatch):
  edit(root, "add('bad'", "0 and add('bad'")
  monkeypatch.setattr(finetune, 'run', None)
  monkeypatch.setattr(base, 'find_or_make', None)
  before = sweep_runs.files(root / 'run' / 'points')
  assert run(root) == 0
  assert sweep_runs.files(root / 'run' / 'points') == before
  assert read(root / 'run' / 'pareto.json')['names'] == ['rate=1', 'rate=2']


def interrupt():
  raise KeyboardInterrupt


@pytest.mark.parametrize(
  ('stop', 'code'),
  [(interrupt, 130), (lambda: os.kill(os.getpid(), signal.SIGTERM), 0)],
  ids=['interrupt', 'sigterm'],
)
def test_a_stopped_point_starts_again(stop, code, root, names_of_runs, capsys):
  results = root / 'run' / 'points' / 'rate=2' / 'results.json'
  whole = read(results)
  results.unlink()
  shutil.rmtree(root / 'run' / 'points' / 'bad')
  take, steps = step_lib.train_step, []

  def stopped(*arguments):
    steps.append(0)
    if len(steps) == 3:
      stop()
    return take(*arguments)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(step_lib, 'train_step', stopped)
    assert run(root, '--point=2') == code
  assert 'the same command resumes' in capsys.readouterr().err
  assert not results.exists()
  assert not results.with_name('error.txt').exists()
  names_of_runs.clear()
  assert run(root, '--point=2') == 0
  assert names_of_runs == ['rate=2']
  again = read(results)
  for key in ('metrics_after', 'tokens', 'slots_updated', 'steps'):
    assert again[key] == whole[key]
  assert documents_of(results.parent, 'evaluation') == [0, 2, 3]
  # Only the point of that index was run, and nothing was gathered.
  assert not (root / 'run' / 'points' / 'bad').exists()


def test_one_point_writes_no_table(root, monkeypatch, capsys):
  dropped = []
  monkeypatch.setattr(jax, 'clear_caches', lambda: dropped.append(1))
  shutil.rmtree(root / 'run')
  assert run(root, '--point=1', '--config.method.learning_rate=7') == 0
  said = capsys.readouterr()
  assert said.out == ''
  # The point overrides the flag.
  ignored = '--config.method.learning_rate has no effect on 1 of 1 points'
  assert ignored in said.err
  points = root / 'run' / 'points'
  config = read(points / 'rate=1' / 'config.json')
  assert config['config']['method']['learning_rate'] == 1.0
  assert {p.name for p in (root / 'run').iterdir()} == {'points', 'sweep.json'}
  assert [p.name for p in points.iterdir()] == ['rate=1']
  assert run(root, '--point=0') == 1
  assert '1 of 1 points failed: bad' in capsys.readouterr().err
  # Compiled programs are dropped before there are too many.
  assert not dropped
  monkeypatch.setattr(sweep, '_MOST_MAPS', 0)
  assert run(root, '--point=2') == 0
  assert dropped == ([1] if sweep._MAPS.exists() else [])


def test_list_shows_states_and_changes_nothing(root, capsys):
  (root / 'run' / 'points' / 'rate=2' / 'results.json').unlink()
  before = sweep_runs.files(root)
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
  assert before.keys() > sweep_runs.files(root).keys()


def test_a_base_that_cannot_be_made_fails_its_points_alone(root, monkeypatch):
  edit(root, "add('bad'", "0 and add('bad'")
  with open(root / 'tiny.py', 'a') as file:
    file.write("""
  add('wild=1', {'base.steps': 6})
  add('wild=2', {'base.steps': 6, 'method.t': 3})
""")
  (root / 'run' / 'points' / 'rate=2' / 'results.json').unlink()
  made, original = [], base.find_or_make

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
  found = read(root / 'run' / 'pareto.json')
  assert found['names'] == ['rate=1', 'rate=2']
  assert found['failed'] == ['wild=1', 'wild=2']


def test_no_table_if_all_points_fail(root, capsys):
  shutil.rmtree(root / 'run')
  edit(root, 'for rate in (1.0, 2.0)', 'for rate in ()')
  assert run(root) == 1
  assert 'no point has finished' in capsys.readouterr().out
  assert not (root / 'run' / 'table.csv').exists()


def test_the_report_is_written_and_its_table_printed(root, monkeypatch, capsys):
  monkeypatch.setattr(pareto, 'write', REPORT)
  for name, recall in (('rate=1', 0.6), ('rate=2', 0.8)):
    path = root / 'run' / 'points' / name / 'results.json'
    results = read(path)
    for when, measured in (('before', 0.2), ('after', recall)):
      asked = results[f'metrics_{when}']['target_unseen_phrasing']
      asked['recall'] = measured
    results['held_out']['known']['relative_drop'] = recall / 4
    path.write_text(json.dumps(results))
  assert run(root) == 1
  equal = read(root / 'run' / 'pareto.json')['equal_learning']
  assert equal['methods']['sparse_memory']['drop_mean'] == 0.2
  out = capsys.readouterr().out.splitlines()
  assert out[0].startswith('at 80.0% recall')
  assert out[1].split()[-5:] == ['20.0%', '1', 'of', '1', '80.0%']
  page = (root / 'run' / 'report.html').read_text()
  assert all(part in page for part in ('Rates', 'bad'))


def test_a_point_or_run_of_another_config_is_refused(root, capsys):
  edit(root, "rate:g}', {", "rate:g}', {'method.t': 5, ")
  said = sweep_runs.error_of(root, capsys)
  assert "point 'rate=1'" in said
  assert 'config.method.t = 7, not 5' in said
  # A point that failed has nothing to lose.
  edit(root, "'nothing'", "'neither'")
  assert run(root, '--point=0') == 1
  (root / 'run' / 'config.json').write_text('{}')
  assert 'a single run' in sweep_runs.error_of(root, capsys)
