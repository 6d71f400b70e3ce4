"""Several processes on one machine: they compute what one does, and survive."""

import pathlib
import shutil
import signal
import socket
import threading
import time

import jax
import numpy as np
import pytest

from smft_jax import schema
from smft_jax import train
from smft_jax.data import stream as stream_lib
from smft_jax.runtime import processes
from smft_jax.runtime import program
from smft_jax.runtime import roll_call
from smft_jax.runtime import watchdog
from smft_jax.store import checkpoint
from smft_jax.store import records as records_lib
from tests.support import many_processes
from tests.support import process_results


def losses_of(workdir: pathlib.Path) -> np.ndarray:
  return np.array(
    [r['loss'] for r in records_lib.read_records(workdir) if 'loss' in r]
  )


def changed_rows(workdir: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Slots whose rows differ from the base at the end, and these rows."""
  found = checkpoint.read_newest(
    workdir / 'checkpoints',
    lambda stored: {
      name: jax.ShapeDtypeStruct(
        tuple(facts['shape']),
        facts['dtype'],
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
      )
      for name, facts in stored.items()
    },
  )
  assert found is not None
  return tuple(
    np.asarray(found[1][name]) for name in ('changed_slots', 'changed_rows')
  )


@pytest.fixture(scope='module')
def alone(tmp_path_factory, quick_compilation):
  """A run of this process on four devices; its config and its workdir."""
  folder = tmp_path_factory.mktemp('alone')
  config = many_processes.write_config(folder)
  workdir = folder / 'run'
  flags = [f'--config={config}', f'--workdir={workdir}', *many_processes.MESH]
  # Adam of optax mixes dtypes.
  with jax.numpy_dtype_promotion('standard'):
    assert program.run(train.main, flags) == 0
  return config, workdir


def interrupted(call: int, place: str = 'smft_jax.training.step.train_step'):
  """Arguments of a process that is sent SIGTERM before a call."""
  return ('tests.support.stopped_run', 'SIGTERM', place, str(call))


def test_two_processes_stop_together_and_end_in_the_bits_of_one(
  alone, tmp_path
):
  _, expected = alone
  config = many_processes.write_config(tmp_path)
  workdir = tmp_path / 'run'
  # The signal reaches one of them only, in the midst of pretraining.
  ended = many_processes.run(
    config, workdir, 2, *many_processes.MESH, own={1: interrupted(3)}
  )
  process_results.succeeded(ended)
  assert 'stopped by SIGTERM, and saved' in ended[0][1]
  assert not (workdir / 'results.json').exists()
  process_results.succeeded(
    many_processes.run(config, workdir, 2, *many_processes.MESH)
  )
  assert losses_of(workdir).tolist() == losses_of(expected).tolist()
  ours, theirs = (
    process_results.results_of(workdir),
    process_results.results_of(expected),
  )
  for name in ('state_hash', 'tokens', 'slots_updated', 'metrics_after'):
    assert ours[name] == theirs[name]
  # The same command finds it done, and every process knows.
  again = many_processes.run(config, workdir, 2, *many_processes.MESH)
  process_results.succeeded(again)
  assert 'finished' in again[0][1]


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
def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path):
  _, expected = alone
  config = many_processes.write_config(tmp_path)
  workdir = tmp_path / 'run'
  # 5 steps of pretraining, then 2 on each document.
  ended = many_processes.run(
    config, workdir, 2, *many_processes.MESH, own={0: interrupted(8)}
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
  config = many_processes.write_config(tmp_path)
  workdir = tmp_path / 'run'
  killed = ('tests.support.stopped_run', 'SIGKILL', *interrupted(8)[2:])
  ended = many_processes.run(
    config,
    workdir,
    2,
    *many_processes.MESH,
    '--limit_s=10',
    own={victim: killed},
  )
  assert ended[victim][0] == -signal.SIGKILL
  assert ended[1 - victim][0] not in (0, 2)
  process_results.succeeded(
    many_processes.run(config, workdir, 2, *many_processes.MESH)
  )
  assert losses_of(workdir).tolist() == losses_of(expected).tolist()
  ours, theirs = (
    process_results.results_of(workdir),
    process_results.results_of(expected),
  )
  assert ours['state_hash'] == theirs['state_hash']


@pytest.mark.slow
def test_a_stuck_process_is_named(tmp_path):
  config = many_processes.write_config(tmp_path)
  workdir = tmp_path / 'run'
  stuck = ('tests.support.stopped_run', 'SIGSTOP', *interrupted(3)[2:])
  started = many_processes.start(
    config,
    workdir,
    2,
    *many_processes.MESH,
    '--limit_s=15',
    own={1: stuck},
  )
  output, _ = started[0].communicate(timeout=100)
  started[1].kill()
  started[1].communicate()
  assert started[0].returncode not in (0, 2)
  assert 'process 1 (' in output


def test_a_missing_process_is_named(tmp_path):
  config = many_processes.write_config(tmp_path)
  ended = many_processes.run(
    config, tmp_path / 'run', 3, '--limit_s=4', devices=3, only=(0, 2)
  )
  for code, output in ended:
    assert code == 1
    assert 'error: process 1 of 3 did not come to localhost:' in output
    assert 'Traceback' not in output
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_workdir_that_is_not_shared_is_refused(tmp_path):
  config = many_processes.write_config(tmp_path)
  workdir = tmp_path / 'run'
  # As if its host did not mount the folder.
  ended = many_processes.run(
    config,
    workdir,
    2,
    *many_processes.MESH,
    more={1: (f'--workdir={tmp_path / "elsewhere"}',)},
  )
  assert [code for code, _ in ended] == [2, 2]
  for _, output in ended:
    assert 'is not shared: process 1 (' in output
    assert 'Traceback' not in output
  assert not (workdir / 'config.json').exists()


@pytest.mark.slow
def test_a_flipped_byte_sends_all_processes_a_step_back(alone, tmp_path):
  config, expected = alone
  workdir = tmp_path / 'run'
  shutil.copytree(expected, workdir)
  (workdir / 'results.json').unlink()
  newest = max(
    (workdir / 'checkpoints').iterdir(), key=lambda path: int(path.name)
  )
  # In every file: not all of them are read again.
  for path in (newest / 'arrays').rglob('*'):
    if path.is_file() and path.stat().st_size > 50:
      content = bytearray(path.read_bytes())
      content[len(content) // 2] ^= 0xFF
      path.write_bytes(bytes(content))
  ended = many_processes.run(config, workdir, 2, *many_processes.MESH)
  process_results.succeeded(ended)
  assert f'checkpoint {newest} is damaged' in ended[0][1]
  assert (
    process_results.results_of(workdir)['state_hash']
    == process_results.results_of(expected)['state_hash']
  )


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (
      ['--coordinator=localhost:1234'],
      '--num_processes and --process_id is missing',
    ),
    (
      ['--coordinator=here', '--num_processes=2', '--process_id=0'],
      '--coordinator=here is no HOST:PORT',
    ),
    (
      ['--coordinator=here:70000', '--num_processes=2', '--process_id=0'],
      '--coordinator=here:70000 is no HOST:PORT',
    ),
    (
      ['--coordinator=here:1', '--num_processes=2', '--process_id=2'],
      '--process_id=2 must be below --num_processes = 2',
    ),
  ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, tmp_path, capsys):
  config = many_processes.write_config(tmp_path)
  workdir = tmp_path / 'run'
  arguments = [f'--config={config}', f'--workdir={workdir}', *flags]
  assert program.run(train.main, arguments) == 2
  assert message in capsys.readouterr().err
  assert not workdir.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
  ('flags', 'more', 'message'),
  [
    ((), {}, 'config.mesh takes 1 of the 4 devices of 2 processes'),
    (
      ('--config.mesh.data=4',),
      {1: ('--config.seed=4',)},
      f'process 1 ({socket.gethostname()}) runs something else than process 0:'
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
  config = many_processes.write_config(tmp_path)
  workdir = tmp_path / 'run'
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


def test_who_is_behind_is_told_by_ticks_and_by_silence():
  class Client:
    def blocking_key_value_get(self, key, unused_timeout_ms):
      return f'host of {key[-1]}'

  group = watchdog.Group(
    client=Client(), index=0, count=4, limit_s=60.0, ticks=7
  )
  seen = {
    0: watchdog.Seen('7 40', 99.0),
    1: watchdog.Seen('7 41', 99.5),
    2: watchdog.Seen('6 42', 99.5),
    3: watchdog.Seen('7 20', 70.0),
  }
  assert watchdog.behind(group, seen, 100.0) == [
    'process 2 (host of 2) does not begin the step',
    'process 3 (host of 3) has been silent for 30 s',
  ]


def test_a_process_makes_the_rows_of_its_devices():
  assert stream_lib.local_rows(None, 3).tolist() == [0, 1, 2]
  assert processes.count() == 1
  assert processes.is_main()
  assert processes.exchange('nothing', 5) == [5]


@pytest.mark.parametrize(
  ('environment', 'there'),
  [
    ({}, False),
    ({'SLURM_PROCID': '0', 'SLURM_STEP_NUM_TASKS': '4'}, True),
    # A batch script, or one task alone.
    ({'SLURM_PROCID': '0', 'SLURM_STEP_NUM_TASKS': '1'}, False),
    ({'KUBERNETES_SERVICE_HOST': 'x', 'JOB_COMPLETION_INDEX': '3'}, True),
    ({'KUBERNETES_SERVICE_HOST': 'x'}, False),
  ],
)
def test_the_surroundings_tell_of_others(environment, there, monkeypatch):
  for name in (
    *('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS'),
    *('KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'),
  ):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setattr(
    processes.importlib.util, 'find_spec', lambda name: name == 'kubernetes'
  )
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert processes.surrounded() == there


def test_a_process_that_came_and_was_ended_may_come_again():
  port = many_processes.free_port()
  heard = []

  def call():
    heard.append(roll_call.roll_call(f'localhost:{port}', 3, 0, limit_s=20.0))

  first = threading.Thread(target=call)
  first.start()

  def come(process):
    while True:
      try:
        there = socket.create_connection(('localhost', port), timeout=5)
      except OSError:
        time.sleep(0.05)
        continue
      there.sendall(f'{process} 3'.encode())
      return there

  with come(1):
    time.sleep(0.5)
  with come(1) as one, come(2) as two:
    assert [x.recv(64) for x in (one, two)] == [b'go', b'go']
  first.join()
  assert heard == [None]


def test_two_processes_of_one_number_are_refused():
  port = many_processes.free_port()
  said = []

  def come(process):
    try:
      roll_call.roll_call(f'localhost:{port}', 3, process, limit_s=5.0)
    except (schema.UserError, processes.Lost) as error:
      said.append(str(error))

  threads = [threading.Thread(target=come, args=(p,)) for p in (0, 1, 1)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  # The one that came first and process 0 hear it; the other is turned away.
  assert said.count('two processes have --process_id=1') == 2
  assert len(said) == 3
