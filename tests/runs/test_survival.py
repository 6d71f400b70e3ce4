"""A run survives what kills runs: real signals, damage, full disks, NaN.

A run that is killed is a process of its own (`tests.support.stopped_run`); the
others are the program called in this one.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
from jax.experimental.compilation_cache import compilation_cache
import numpy as np
import pytest

from smft_jax.data import stream as stream_lib
from smft_jax.runs import lesson_batches
from smft_jax.store import checkpoint
from tests.support import repository
from tests.support import stopped_run
from tests.support import tiny_run
from tests.support import train_runs

pytestmark = pytest.mark.usefixtures('quick_runs')


# All runs compile the same, and for longer than they compute.
CACHE = {
  'jax_persistent_cache_min_compile_time_secs': 0,
  'jax_persistent_cache_min_entry_size_bytes': -1,
  'jax_persistent_cache_enable_xla_caches': 'none',
}
NEVER = ('SIGTERM', 'smft_jax.train.run', 0)


def start(folder, workdir, stop=NEVER, *more):
  """Starts the program in a process that is stopped at a call."""
  return subprocess.Popen(
    [
      sys.executable,
      *('-m', 'tests.support.stopped_run', *map(str, stop)),
      *(f'--config={folder}/tiny.py', f'--workdir={folder}/{workdir}', *more),
    ],
    cwd=repository.ROOT,
    env=os.environ
    | {
      'JAX_PLATFORMS': 'cpu',
      'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true',
      'JAX_NUM_CPU_DEVICES': '8',
      'JAX_COMPILATION_CACHE_DIR': f'{folder}/compiled',
    }
    | {name.upper(): str(value) for name, value in CACHE.items()},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def ended(process):
  """What a process said, and its exit code."""
  return process.communicate(timeout=300)[0], process.returncode


def steps(folder, damaged=None):
  """Steps of a folder, oldest first; all there is but one set aside."""
  names = {path.name for path in folder.iterdir()}
  if damaged is not None:
    names.remove(f'{damaged}.damaged')
  return sorted(map(int, names))


def flip_largest(folder):
  """Flips a bit in the middle of the largest file."""
  files = [path for path in folder.rglob('*') if path.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 4
  largest.write_bytes(content)


@pytest.fixture(scope='module')
def root(tmp_path_factory, quick_runs):
  """A folder with tiny.py and the finished, uninterrupted run `whole`."""
  folder = tmp_path_factory.mktemp('root')
  tiny_run.write_config(folder, stream__steps_per_document=3)
  cache = CACHE | {'jax_compilation_cache_dir': f'{folder}/compiled'}
  before = {name: jax.config.values[name] for name in cache}
  for settings in (cache, before):
    for name, value in settings.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    if settings is cache:
      assert train_runs.run(folder, 'whole') == 0
  return folder


def test_a_run_stopped_and_killed_in_every_phase_ends_in_the_same_bits(
  root, capsys
):
  bases = root / 'stopped_cache'
  more = [f'--config.base.cache_dir={bases}']
  workdir = root / 'stopped'
  saved = workdir / 'checkpoints'

  def stopped(number, *at):
    if number == 'SIGKILL':
      said, code = ended(start(root, 'stopped', (number, *at), *more))
      assert code == -signal.SIGKILL, said
    else:
      capsys.readouterr()
      with pytest.MonkeyPatch.context() as patch:
        stopped_run.stop_at(signal.Signals[number], *at, patch.setattr)
        code = train_runs.run(root, 'stopped', *more)
      said = capsys.readouterr().err
      assert code == 0, said
      assert 'stopped by SIGTERM and saved; the same command resumes' in said
      assert 'Traceback' not in said
    assert not (workdir / 'results.json').exists()
    return said

  step = 'smft_jax.training.step.train_step'
  # Pretraining: the step in progress ends, and is saved.
  stopped('SIGTERM', step, 3)
  (made,) = bases.iterdir()
  assert steps(made / 'pretraining') == [2, 3]
  assert not (made / 'params').exists()
  # In the middle of writing its next checkpoint, arrays there, manifest not.
  stopped('SIGKILL', 'smft_jax.store.manifest.digest', 2)
  left = {p.name for p in (made / 'pretraining').iterdir()}
  assert left == {'2', '3', '4.partial'}
  # Background counting: what was counted is saved.
  stopped('SIGTERM', 'smft_jax.training.count.background', 2)
  assert len(list(made.glob('.background-*.npz.to-2'))) == 1
  # Measuring the base: nothing to save.
  decode = 'smft_jax.evaluation.forward.decode'
  said = stopped('SIGTERM', decode, 2)
  assert 'background: batch 3/3' in said
  assert not list(made.glob('.background-*.npz.to-2'))
  assert not saved.exists()
  # Inside the second document.
  stopped('SIGTERM', step, 5)
  assert steps(saved) == [3, 5]
  # A byte of that step is damaged, so the one before it is taken; and the run
  # is stopped while it measures what it learned. The base was measured before.
  flip_largest(saved / '5')
  said = stopped('SIGTERM', decode, 2)
  assert f'checkpoint {saved / "5"} is damaged: ' in said
  assert f'resuming after step 3 from {saved}' in said
  assert steps(saved, damaged='5') == [3, 6]
  assert len(train_runs.records(workdir, 'evaluation')) == 2
  # While the last document is saved, after what was read back.
  stopped('SIGKILL', 'smft_jax.store.manifest.digest', 3)
  assert (saved / '9.partial').is_dir()
  assert train_runs.run(root, 'stopped', *more) == 0
  assert steps(saved, damaged='5') == [6, 9]
  assert not (made / 'pretraining').exists()
  whole = root / 'whole'
  assert train_runs.results_of(workdir) == train_runs.results_of(whole)
  events = ('pretrain', 'stream', 'evaluation')
  assert train_runs.records(workdir, *events) == train_runs.records(
    whole, *events
  )


@pytest.mark.slow
def test_ten_kills_at_random_moments_end_in_the_same_bits(root):
  more = [f'--config.base.cache_dir={root}/killed_cache']
  began = time.monotonic()
  assert ended(start(root, 'timed', NEVER, *more))[1] == 0
  took = time.monotonic() - began
  shutil.rmtree(root / 'killed_cache')
  draw = random.Random(5)
  killed = 0
  while killed < 10:
    process = start(root, 'killed', NEVER, *more)
    try:
      process.wait(timeout=draw.uniform(0.4, 0.9) * took)
    except subprocess.TimeoutExpired:
      process.kill()
      killed += 1
    said, code = ended(process)
    assert code in (0, -signal.SIGKILL), said
    if code == 0:  # sooner than the draw: what is left is killed anew
      assert train_runs.results_of(root / 'killed') == train_runs.results_of(
        root / 'whole'
      )
      shutil.rmtree(root / 'killed')
      shutil.rmtree(root / 'killed_cache')
  said, code = ended(start(root, 'killed', NEVER, *more))
  assert code == 0, said
  assert train_runs.results_of(root / 'killed') == train_runs.results_of(
    root / 'whole'
  )


# Measures at the end alone.
SELDOM = ('--config.evaluation.every_documents=3',)


def spoil(patch, bad):
  """Makes the loss of some (document, step) not a number."""
  batch_of = lesson_batches.LessonBatches.step

  def spoiled(self, index, step):
    batch, chosen, tokens = batch_of(self, index, step)
    if bad(index, step):
      batch.loss_weights[...] = np.nan
    return lesson_batches.DocumentBatch(batch, chosen, tokens)

  patch.setattr(lesson_batches.LessonBatches, 'step', spoiled)


def test_a_batch_that_is_not_finite_is_skipped_named_and_counted(
  root, monkeypatch, capsys
):
  spoil(monkeypatch, lambda index, step: (index, step) in ((1, 0), (1, 1)))
  often = ('--config.stream.checkpoint_every=2',)
  assert train_runs.run(root, 'spoiled', *often, *SELDOM) == 0
  results = train_runs.results_of(root / 'spoiled')
  assert results['steps'] == 9
  assert results['steps_skipped'] == 2
  streamed = train_runs.records(root / 'spoiled', 'stream')
  assert [r['steps_skipped'] for r in streamed] == [0, 2, 2]
  assert np.isfinite(results['metrics_after']['target']['nll'])
  said = capsys.readouterr().err.splitlines()
  told = [line for line in said if 'the stream: skipped' in line]
  assert len(told) == 2
  # Saved after two documents as asked, and before it was measured.
  assert steps(root / 'spoiled' / 'checkpoints') == [6, 9]
  measured = train_runs.records(root / 'spoiled', 'evaluation')
  assert [r['documents'] for r in measured] == [0, 3]
  assert f'step 1 on document {streamed[1]["document"]!r}, rows ' in told[0]


def test_checkpoints_of_another_run_are_refused_in_one_line(root, capsys):
  shutil.copytree(root / 'whole' / 'checkpoints', root / 'other/checkpoints')
  capsys.readouterr()
  assert train_runs.run(root, 'other', '--config.method.learning_rate=2.0') == 2
  said = capsys.readouterr().err.strip().splitlines()
  assert sum(line.startswith('error: ') for line in said) == 1
  assert (
    'belongs to another config, with config.method.learning_rate = 3.0'
    in said[-1]
  )
  # How often it is saved makes no other run.
  assert (
    train_runs.run(root, 'whole', '--config.stream.checkpoint_every=2') == 0
  )


def test_too_many_skipped_steps_in_a_row_stop_the_run(root, capsys):
  often = '--config.stream.checkpoint_every=1'
  more = ['--config.max_skipped=3', often, *SELDOM]
  saved = root / 'diverged' / 'checkpoints'
  with pytest.MonkeyPatch.context() as patch:
    spoil(patch, lambda index, step: 1 <= 3 * index + step <= 5)
    assert train_runs.run(root, 'diverged', *more) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith('error: the stream diverged: 3 steps in a row')
    assert steps(saved) == [3, 5]
    held = {}
    for n in (3, 5):
      alone = root / f'only-{n}'
      shutil.copytree(saved / str(n), alone / str(n))
      held[n] = checkpoint.read_newest(alone, train_runs.stored_shapes)[1]
    for name in ('changed_slots', 'changed_rows'):
      np.testing.assert_array_equal(held[3][name], held[5][name])
    assert int(held[5]['skipped_in_a_row']) == 4
    # The same command tries the next batch, which is as bad.
    assert train_runs.run(root, 'diverged', *more) == 1
  assert not (root / 'diverged' / 'results.json').exists()
  assert train_runs.run(root, 'diverged', *more) == 0
  assert train_runs.results_of(root / 'diverged')['steps_skipped'] == 5


def test_pretraining_that_never_has_a_finite_loss_is_no_base(
  root, tmp_path, monkeypatch, capsys
):
  make_batch = stream_lib.Batches.batch

  def spoiled(self, step):
    batch = make_batch(self, step)
    batch.loss_weights[...] = np.inf
    return batch

  monkeypatch.setattr(stream_lib.Batches, 'batch', spoiled)
  more = ['--config.stream=none', f'--config.base.cache_dir={tmp_path}']
  for _ in range(2):  # and the same command says so again
    assert train_runs.run(root, 'no-base', *more) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith('error: pretraining diverged: 5 steps in a row')
    assert 'config.base.learning_rate = 0.01' in said
  assert not list(tmp_path.glob('*/params'))


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 1 MB of its own."""
  made = subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', tmp_path],
    capture_output=True,
    check=False,
  )
  if made.returncode:
    pytest.skip('only root can mount a small file system')
  yield tmp_path
  subprocess.run(['umount', '--lazy', tmp_path], check=True)


def test_a_full_disk_stops_a_run_that_then_resumes(root, small_disk, capsys):
  save, calls = checkpoint.save, []

  def filled(*arguments, **named):
    calls.append(0)
    if len(calls) == 2:
      free = os.statvfs(small_disk)
      size = free.f_bavail * free.f_frsize - 8192
      (small_disk / 'filler').write_bytes(bytes(max(size, 0)))
    save(*arguments, **named)

  at = [f'--workdir={small_disk}/run']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(checkpoint, 'save', filled)
    assert train_runs.run(root, 'unused', *at) == 1
  said = capsys.readouterr().err
  assert 'no room' in said.splitlines()[-1]
  assert 'the same command resumes' in said.splitlines()[-1]
  assert 'Traceback' not in said
  saved = small_disk / 'run' / 'checkpoints'
  assert steps(saved) == [3]
  (small_disk / 'filler').unlink()
  assert train_runs.run(root, 'unused', *at) == 0
  assert train_runs.results_of(small_disk / 'run') == train_runs.results_of(
    root / 'whole'
  )
