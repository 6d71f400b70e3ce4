"""Several processes on one machine compute what one does, and survive."""

import pathlib
import shutil
import signal
import socket
import time

import jax
import numpy as np
import pytest

from smft_jax import train
from smft_jax.data import stream as stream_lib
from smft_jax.runtime import processes
from smft_jax.runtime import program
from smft_jax.store import checkpoint
from smft_jax.store import records as records_lib
from tests.support import many_processes
from tests.support import process_results


def losses_of(workdir: pathlib.Path) -> np.ndarray:
  return np.array(
    [r['loss'] for r in records_lib.read_records(workdir) if 'loss' in r]
  )


def changed_rows(workdir: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns the slots whose rows changed, and their rows."""
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  found = checkpoint.read_newest(
    workdir / 'checkpoints',
    lambda stored: {
      name: jax.ShapeDtypeStruct(
        tuple(facts['shape']), facts['dtype'], sharding=device
      )
      for name, facts in stored.items()
    },
  )
  assert found is not None
  return tuple(
    np.asarray(found[1][name]) for name in ('changed_slots', 'changed_rows')
  )


def write_config(folder: pathlib.Path) -> pathlib.Path:
  """A config with fewer texts of different lengths to compile for."""
  return many_processes.write_config(
    folder,
    data__attributes=('birthplace',),
    data__num_never_seen=0,
    data__general_test_sentences=0,
  )


def same_results(workdir, expected, *names):
  """Asserts that two runs have the same losses and results, to the bit."""
  assert losses_of(workdir).tolist() == losses_of(expected).tolist()
  ours, theirs = map(process_results.results_of, (workdir, expected))
  for name in ('state_hash', *names):
    assert ours[name] == theirs[name]


@pytest.fixture(scope='module')
def alone(tmp_path_factory, quick_compilation):
  """Config and workdir of a run of this process on four devices."""
  folder = tmp_path_factory.mktemp('alone')
  config, workdir = write_config(folder), folder / 'run'
  flags = [f'--config={config}', f'--workdir={workdir}', *many_processes.MESH]
  # Adam of optax mixes dtypes.
  with jax.numpy_dtype_promotion('standard'):
    assert program.run(train.main, flags) == 0
  return config, workdir


def signalled(name: str, call: int):
  """Returns arguments of a process that gets a signal before a step."""
  step = 'smft_jax.training.step.train_step'
  return ('tests.support.stopped_run', name, step, str(call))


def test_two_processes_stop_together_and_end_in_the_bits_of_one(
  alone, tmp_path
):
  _, expected = alone
  config, workdir = write_config(tmp_path), tmp_path / 'run'
  # Only one receives the signal, during pretraining.
  ended = many_processes.run(
    config, workdir, 2, *many_processes.MESH, own={1: signalled('SIGTERM', 3)}
  )
  process_results.succeeded(ended)
  assert 'stopped by SIGTERM and saved' in ended[0][1]
  assert not (workdir / 'results.json').exists()
  process_results.succeeded(
    many_processes.run(config, workdir, 2, *many_processes.MESH)
  )
  same_results(workdir, expected, 'tokens', 'slots_updated', 'metrics_after')


@pytest.mark.slow
@pytest.mark.parametrize('split', ['rows', 'dims'])
@pytest.mark.parametrize('count', [1, 2, 4])
def test_processes_compute_what_one_device_does(count, split, tmp_path):
  config = many_processes.write_config(tmp_path)
  one = tmp_path / 'one'
  process_results.succeeded(many_processes.run(config, one, 1, devices=1))
  shutil.rmtree(tmp_path / 'cache')
  many = tmp_path / 'many'
  flags = (*many_processes.MESH, f'--config.mesh.split={split}')
  process_results.succeeded(many_processes.run(config, many, count, *flags))
  np.testing.assert_allclose(losses_of(many), losses_of(one), rtol=1e-5)
  for name in ('tokens', 'slots_updated', 'slots_accessed'):
    mine = [r[name] for r in records_lib.read_records(many) if name in r]
    assert mine == [r[name] for r in records_lib.read_records(one) if name in r]
  (slots, rows), (expected_slots, expected) = map(changed_rows, (many, one))
  assert len(set(slots.tolist())) > 7
  np.testing.assert_array_equal(slots, expected_slots)
  np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_processes(alone, tmp_path):
  _, expected = alone
  config, workdir = write_config(tmp_path), tmp_path / 'run'
  # 5 steps of pretraining, then 2 on each document.
  ended = many_processes.run(
    config, workdir, 2, *many_processes.MESH, own={0: signalled('SIGTERM', 8)}
  )
  process_results.succeeded(ended)
  assert (workdir / 'checkpoints').is_dir()
  other = ('--config.mesh.memory=4',)
  process_results.succeeded(many_processes.run(config, workdir, 1, *other))
  np.testing.assert_allclose(losses_of(workdir), losses_of(expected), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_one_of_two_is_killed_and_the_same_command_resumes(
  victim, alone, tmp_path
):
  _, expected = alone
  config, workdir = write_config(tmp_path), tmp_path / 'run'
  flags = *many_processes.MESH, '--limit_s=10'
  ended = many_processes.run(
    config, workdir, 2, *flags, own={victim: signalled('SIGKILL', 8)}
  )
  assert ended[victim][0] == -signal.SIGKILL
  assert ended[1 - victim][0] not in (0, 2)
  process_results.succeeded(
    many_processes.run(config, workdir, 2, *many_processes.MESH)
  )
  same_results(workdir, expected)
  # The same command finds it finished, in every process.
  again = many_processes.run(config, workdir, 2, *many_processes.MESH)
  process_results.succeeded(again)
  assert 'finished' in again[0][1]


@pytest.mark.slow
def test_a_stuck_process_is_named(tmp_path):
  config, workdir = write_config(tmp_path), tmp_path / 'run'
  # A busy machine is slow to report.
  flags = *many_processes.MESH, '--limit_s=25'
  started = many_processes.start(
    config, workdir, 2, *flags, own={1: signalled('SIGSTOP', 3)}
  )
  output, _ = started[0].communicate(timeout=100)
  started[1].kill()
  started[1].communicate()
  assert started[0].returncode not in (0, 2)
  assert 'process 1 (' in output


def test_a_missing_process_is_named(tmp_path):
  config = write_config(tmp_path)
  ended = many_processes.run(
    config, tmp_path / 'run', 3, '--limit_s=4', devices=3, only=(0, 2)
  )
  for code, output in ended:
    assert code == 1
    assert 'error: process 1 of 3 did not connect to localhost:' in output
    assert 'Traceback' not in output
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_flipped_byte_sends_all_processes_a_step_back(alone, tmp_path):
  config, expected = alone
  workdir = tmp_path / 'run'
  shutil.copytree(expected, workdir)
  (workdir / 'results.json').unlink()
  newest = max((workdir / 'checkpoints').iterdir(), key=lambda x: int(x.name))
  # In every file: not all are read again.
  for path in (newest / 'arrays').rglob('*'):
    if path.is_file() and path.stat().st_size > 50:
      content = bytearray(path.read_bytes())
      content[len(content) // 2] ^= 0xFF
      path.write_bytes(bytes(content))
  ended = many_processes.run(config, workdir, 2, *many_processes.MESH)
  process_results.succeeded(ended)
  assert f'checkpoint {newest} is damaged' in ended[0][1]
  same_results(workdir, expected)


def test_a_single_process_is_main_and_flags_that_do_not_fit_are_refused(
  tmp_path, capsys
):
  assert stream_lib.local_rows(None, 3).tolist() == [0, 1, 2]
  assert processes.count() == 1
  assert processes.is_main()
  assert processes.exchange('nothing', 5) == [5]
  config, workdir = write_config(tmp_path), tmp_path / 'run'
  flags = [f'--config={config}', f'--workdir={workdir}', '--num_processes=2']
  assert program.run(train.main, flags) == 2
  said = capsys.readouterr().err
  assert '--coordinator and --process_id is missing' in said
  assert not workdir.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
  ('flags', 'more', 'message'),
  [
    ((), {}, 'config.mesh takes 1 of the 4 devices of 2 processes'),
    # As if its host did not mount the folder.
    (
      many_processes.MESH,
      {1: ('--workdir={folder}/elsewhere',)},
      'is not shared: process 1 (',
    ),
    (
      ('--config.mesh.data=4',),
      {1: ('--config.seed=4',)},
      f'process 1 ({socket.gethostname()}) differs from process 0:'
      ' config.seed = 4, not 3',
    ),
    (
      ('--config.mesh.data=4',),
      {1: ('--num_processes=3',)},
      '--num_processes differs: process 1 has 3, process 0 has 2',
    ),
  ],
)
def test_processes_that_do_not_fit_are_refused(flags, more, message, tmp_path):
  config, workdir = write_config(tmp_path), tmp_path / 'run'
  more = {
    index: tuple(flag.format(folder=tmp_path) for flag in own)
    for index, own in more.items()
  }
  began = time.monotonic()
  ended = many_processes.run(
    config, workdir, 2, '--limit_s=60', *flags, more=more
  )
  assert time.monotonic() - began < 20
  for code, output in ended:
    assert code == 2, output
    assert message in output
    assert 'Traceback' not in output
  assert not (workdir / 'config.json').exists()
