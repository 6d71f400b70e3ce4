"""Several runs that share a cache, or want the same workdir."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from smft_jax.runs import base_cache
from smft_jax.runtime import claim
from smft_jax.store import atomic
from tests.support import steps
from tests.support import tiny_run
from tests.support import train_runs


@pytest.fixture(autouse=True)
def quickly(quick_compilation):
  """Compiles quickly; Adam of optax mixes dtypes."""
  with steps.optax_promotion():
    yield


def started(folder, workdir, *more):
  """Starts the program in a process of its own."""
  return subprocess.Popen(
    [sys.executable, '-m', 'smft_jax.train', f'--config={folder}/tiny.py']
    + [f'--workdir={folder}/{workdir}', *more],
    stderr=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    text=True,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )


def when(condition, seconds=120):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def test_runs_of_one_base_wait_for_the_one_that_makes_it(tmp_path):
  tiny_run.write_config(tmp_path)
  runs = [started(tmp_path, name) for name in 'ab']
  said = [run.communicate(timeout=300)[1] for run in runs]
  assert [run.returncode for run in runs] == [0, 0], said
  assert sum('base not found' in one for one in said) == 1
  assert sum('base found in' in one for one in said) == 1
  a, b = (train_runs.results_of(tmp_path / name) for name in 'ab')
  assert a == b
  assert not list((tmp_path / 'cache').rglob('making*'))


@pytest.mark.slow
def test_a_run_takes_over_from_one_that_died_making_the_base(tmp_path):
  tiny_run.write_config(tmp_path)
  first = started(tmp_path, 'a', '--config.base.steps=100000')
  when(lambda: list((tmp_path / 'cache').glob('base-*/making/holder.json')))
  second = started(tmp_path, 'b', '--config.base.steps=100000')
  line = ''
  while 'waiting for it' not in line:
    line = second.stderr.readline()
    assert line
  assert f'process {first.pid} on ' in line
  first.kill()
  first.communicate()
  while 'base not found' not in line:
    line = second.stderr.readline()
    assert line
  second.send_signal(signal.SIGINT)
  second.communicate(timeout=30)
  assert second.returncode == 130


def test_a_workdir_in_use_is_refused_by_the_name_of_its_run(tmp_path, capsys):
  tiny_run.write_config(tmp_path)
  mine = claim.Claim(tmp_path / 'a' / '.claim')
  mine.take()
  said = train_runs.refused(capsys, tmp_path, 'a')
  assert f'a is in use by process {os.getpid()} on ' in said
  assert [p.name for p in (tmp_path / 'a').iterdir()] == ['.claim']
  mine.release()
  assert train_runs.run(tmp_path, 'a') == 0
  assert not (tmp_path / 'a' / '.claim').exists()


def test_a_cache_that_cannot_be_written_is_used(tmp_path, monkeypatch, capsys):
  tiny_run.write_config(tmp_path)
  assert train_runs.run(tmp_path, 'a') == 0
  cache = tmp_path / 'cache'

  def refuse(function):
    def refusing(path, *args, **kwargs):
      is_there = pathlib.Path(path).is_dir()
      if cache in (path, *pathlib.Path(path).parents) and not is_there:
        raise PermissionError(13, 'Permission denied', str(path))
      return function(path, *args, **kwargs)

    return refusing

  def no_file(dir):
    raise PermissionError(13, 'Permission denied', str(dir))

  monkeypatch.setattr(base_cache.tempfile, 'TemporaryFile', no_file)
  monkeypatch.setattr(pathlib.Path, 'mkdir', refuse(pathlib.Path.mkdir))
  monkeypatch.setattr(atomic, 'open', refuse(open), raising=False)
  # Its background is of another size, and cannot be kept there.
  more = '--config.background.num_batches=4'
  assert train_runs.run(tmp_path, 'b', more) == 0
  said = capsys.readouterr().err
  assert f'{cache} cannot be written: Permission denied: only what' in said
  assert 'is not kept: Permission denied' in said
  assert train_runs.run(tmp_path, 'c', '--config.seed=5') == 2
  assert f'{cache} cannot be written: Perm' in capsys.readouterr().err
