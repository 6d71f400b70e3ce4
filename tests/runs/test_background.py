"""A background that several jobs count."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from smft_jax import background
from smft_jax.runtime import preemption
from smft_jax.runtime import program
from smft_jax.training import background as background_lib
from tests.support import repository
from tests.support import tiny_run
from tests.support import train_runs

pytestmark = pytest.mark.usefixtures('quick_runs')


def run(*argv):
  return program.run(background.main, [str(word) for word in argv])


@pytest.fixture(scope='module')
def root(tmp_path_factory, quick_runs):
  """A run `whole` that counted 5 batches, and parts 0.npz and 1.npz."""
  folder = tmp_path_factory.mktemp('background')
  tiny_run.write_config(folder, stream=None, background__num_batches=5)
  assert train_runs.run(folder, 'whole') == 0
  for part in range(2):
    assert count(folder, f'{part}/2', folder / f'{part}.npz') == 0
  return folder


def count(root, part, out, *more):
  flags = f'--config={root}/tiny.py', f'--part={part}', f'--out={out}'
  return run('count', *flags, *more)


def whole(root):
  [path] = root.glob('cache/base-*/background-*.npz')
  return path


def assert_same(path, other):
  (a, one), (b, two) = map(background_lib.read, (path, other))
  assert one == two
  for got, want in zip(a, b, strict=True):
    assert got.dtype == want.dtype == np.int64
    np.testing.assert_array_equal(got, want)


def test_parts_add_up_to_the_whole(root, tmp_path, capsys):
  merged = tmp_path / 'all.npz'
  assert run('merge', f'--out={merged}', root / '1.npz', root / '0.npz') == 0
  assert capsys.readouterr().out == f'batches 0-5 are in {merged}\n'
  assert_same(merged, whole(root))
  counts = [background_lib.read(root / f'{p}.npz')[0] for p in range(2)]
  assert [int(part.num_documents) for part in counts] == [2 * 5, 3 * 5]
  assert int(background_lib.read(merged)[0].num_documents) == 25


def test_a_run_takes_merged_counts(root, tmp_path):
  merged = tmp_path / 'all.npz'
  run('merge', f'--out={merged}', root / '0.npz', root / '1.npz')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(background.background_cache, 'count_batches', None)
    assert (
      train_runs.run(root, 'given', f'--config.background.counts={merged}') == 0
    )
  got, want = (
    train_runs.results_of(root / name) for name in ('given', 'whole')
  )
  assert got == want


def test_a_run_refuses_counts_of_a_part_or_of_something_else(
  root, tmp_path, capsys
):
  for path, part in (
    (root / '0.npz', "counted with batches = '0-2', but this run has '0-5'"),
    (root / 'tiny.py', f'{root}/tiny.py is no file of counts'),
    (tmp_path / 'gone.npz', f'there is no file {tmp_path}/gone.npz'),
  ):
    flag = f'--config.background.counts={path}'
    assert train_runs.run(root, f'no-{path.stem}', flag) == 2
    # Before anything is read or made.
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith('error: ')
    assert part in said


def test_counts_are_not_replaced_by_those_of_other_batches(
  root, tmp_path, capsys, monkeypatch
):
  out = tmp_path / '0.npz'
  shutil.copy(root / '0.npz', out)
  before = out.read_bytes()
  assert count(root, '1/2', out) == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert (
    f"{out} was counted with batches = '0-2', but this run has '2-5'" in said
  )
  assert run('merge', f'--out={out}', out, root / '1.npz') == 2
  said = capsys.readouterr().err
  assert said == f'error: {out} exists; remove it, or choose another --out\n'
  # A finished job that is started again counts nothing.
  monkeypatch.setattr(background.background_cache, '_summed', None)
  assert count(root, '0/2', out) == 0
  assert out.read_bytes() == before


def test_an_interrupted_count_resumes_to_the_same_counts(
  root, tmp_path, monkeypatch
):
  asked = []

  def requested():
    asked.append(None)
    return len(asked) >= 4

  with monkeypatch.context() as patch:
    patch.setattr(preemption, 'requested', requested)
    assert count(root, '0/1', tmp_path / 'all.npz') == 0
  [partial] = tmp_path.iterdir()
  stopped = int(partial.name.removeprefix('.all.npz.to-'))
  assert 0 < stopped < 5
  counted = background_lib.read(partial)[1]['batches']
  assert counted == f'0-{stopped}'
  assert count(root, '0/1', tmp_path / 'all.npz') == 0
  assert [path.name for path in tmp_path.iterdir()] == ['all.npz']
  assert_same(tmp_path / 'all.npz', whole(root))


@pytest.mark.parametrize(
  ('place', 'call', 'kept'),
  [
    ('smft_jax.training.count.background', 3, ['.all.npz.to-2']),
    # As the third save is about to replace the second, which stays.
    pytest.param(
      *('os.replace', 3, ['.all.npz.to-2']),
      marks=pytest.mark.slow,
    ),
    # Between the two files of the third and the second save.
    pytest.param(
      *('smft_jax.runs.background_cache._partial', 4),
      ['.all.npz.to-2', '.all.npz.to-3'],
      marks=pytest.mark.slow,
    ),
  ],
)
def test_killed_at_any_moment_a_count_resumes_to_the_same_bytes(
  root, tmp_path, place, call, kept, capsys
):
  out = tmp_path / 'all.npz'
  flags = f'--config={root}/tiny.py', '--part=0/1', f'--out={out}'
  done = subprocess.run(
    [sys.executable, '-m', 'tests.support.stopped_count', 'SIGKILL', place]
    + [str(call), *flags],
    cwd=repository.ROOT,
    env=os.environ | {'PYTHONPATH': str(repository.ROOT)},
    check=False,
    capture_output=True,
    text=True,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr
  assert sorted(path.name for path in tmp_path.glob('.all.*')) == kept
  assert count(root, '0/1', out) == 0
  assert f'{tmp_path}/{kept[-1]} has batches 0-' in capsys.readouterr().err
  assert not list(tmp_path.glob('.all.*'))
  assert count(root, '0/1', tmp_path / 'again.npz') == 0
  assert out.read_bytes() == (tmp_path / 'again.npz').read_bytes()
  assert_same(out, whole(root))


def test_a_finished_count_is_not_counted_again(root, tmp_path, capsys):
  out = tmp_path / 'all.npz'
  shutil.copy(root / '0.npz', out)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(background.background_cache, '_summed', None)
    assert count(root, '0/2', out) == 0
  assert out.read_bytes() == (root / '0.npz').read_bytes()
  assert count(root, '1/2', out) == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert "counted with batches = '0-2', but this run has '2-5'" in said
  assert out.read_bytes() == (root / '0.npz').read_bytes()


def test_counts_are_flushed_before_floats_round(root, tmp_path, monkeypatch):
  """After each batch, if two could reach what floats hold exactly."""
  parts = []
  total = background_lib.total
  monkeypatch.setattr(background.background_cache, '_EXACT', 1)
  monkeypatch.setattr(
    background_lib, 'total', lambda *p: parts.append(len(p)) or total(*p)
  )
  assert count(root, '0/1', tmp_path / 'all.npz') == 0
  assert parts == [1, 2, 2, 2, 2, 1]  # and once to save them
  assert_same(tmp_path / 'all.npz', whole(root))


def test_what_a_file_holds_is_shown(root, capsys):
  assert run('show', root / '1.npz') == 0
  said = capsys.readouterr().out
  statistics, provenance = background_lib.read(root / '1.npz')
  shown = dict(line.split('  ', 1) for line in said.splitlines())
  shown = {name: value.strip() for name, value in shown.items()}
  assert shown['batches'] == '2-5'
  assert shown['model'] == provenance['model']
  assert shown['documents'] == '15'
  assert shown['accesses'] == str(statistics.accesses.sum())
  read = np.sum(statistics.document_frequency > 0)
  assert shown['slots read'] == f'{read} ({read / 49:.1%})'


def test_mistakes_are_one_line(root, tmp_path, capsys):
  statistics, provenance = background_lib.read(root / '0.npz')
  other, unnamed = tmp_path / 'other.npz', tmp_path / 'unnamed.npz'
  background_lib.save(other, statistics, provenance | {'model': 'f'})
  provenance.pop('batches')
  background_lib.save(unnamed, statistics, provenance)
  shutil.copy(root / '0.npz', tmp_path / 'again.npz')
  a, out = root / '0.npz', f'--out={tmp_path}/all.npz'
  config = f'--config={root}/tiny.py'
  for argv, part in (
    (['cuont'], "the command = 'cuont' is not known; did you mean 'count'?"),
    (['merge', out, a, tmp_path / 'again.npz'], 'both counted batch 0'),
    (['merge', out, a, other], "other.npz was counted with model = 'f', but"),
    (['merge', out, unnamed], 'does not say which batches it counted'),
    (['merge', out, a, tmp_path / 'gone.npz'], 'there is no file'),
    (['merge', '--out=all.txt', a], 'all.txt must end in .npz'),
    (['merge', f'--out={tmp_path}/no/all.npz', a], 'no is no folder to write'),
    (['show', root / 'tiny.py'], 'tiny.py is no file of counts'),
    (['count', config, out, '--part=2/2'], '--part=2/2 is no part of 5 batc'),
    (['count', config, out, '--part=half'], '--part=half is no part of 5'),
    (['count', config, out, '--config.background=none'], 'nothing to count'),
    (['count', config], '--out= must end in .npz'),
  ):
    assert run(*argv) == 2, argv
    said = capsys.readouterr().err
    assert part in said
    assert said.count('\n') == 1
  assert not (tmp_path / 'all.npz').exists()
