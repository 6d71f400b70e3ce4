"""What the launchers start forwards signals, restarts and ends."""

import os
import re
import signal
import subprocess

import pytest

from tests.support import launch_scripts


def write_program(path, script):
  path.write_text(f'#!/usr/bin/env bash\n{script}')
  path.chmod(0o755)


def environment(folder, **variables):
  path = f'{folder}{os.pathsep}{os.environ["PATH"]}'
  return os.environ | {'PATH': path} | variables


def run(*command, **options):
  return subprocess.run(
    command, capture_output=True, text=True, check=False, **options
  )


@pytest.mark.parametrize(
  ('code', 'is_finished', 'again'),
  [(0, False, True), (0, True, False), (1, False, False), (2, False, False)],
)
def test_a_batch_that_saved_requeues_itself(code, is_finished, again, tmp_path):
  for name, result in (('srun', code), ('scontrol', 0)):
    write_program(tmp_path / name, f'echo {name} "$@"\nexit {result}\n')
  if is_finished:
    (tmp_path / 'results.json').touch()
  script = launch_scripts.document(launch_scripts.dry('slurm'))
  done = run(
    'bash',
    input=script.replace('/shared/run', str(tmp_path)),
    env=environment(tmp_path, SLURM_JOB_ID='7'),
  )
  assert done.returncode == code
  assert done.stdout.startswith('srun ')
  assert ('scontrol requeue 7' in done.stdout) == again


# A python that exits with code $END at once, or with 0 on SIGTERM.
PYTHON = """printf '%s\\n' "$@" >"$CALLS"
[ "$END" = asked ] || exit "$END"
trap 'exit 0' TERM
echo begun
for _ in $(seq 200); do sleep 0.1; done
exit 9
"""


@pytest.mark.parametrize(
  ('end', 'pod', 'is_finished', 'code'),
  [
    ('asked', 0, False, 143),  # saved, not finished
    ('asked', 1, False, 0),  # pod 0 says so for all
    ('asked', 0, True, 0),
    ('0', 0, True, 0),
    ('2', 0, False, 2),
    ('1', 1, False, 1),
  ],
)
def test_a_pod_forwards_sigterm_and_is_done_when_the_run_is(
  end, pod, is_finished, code, tmp_path
):
  write_program(tmp_path / 'python', PYTHON)
  if is_finished:
    (tmp_path / 'results.json').touch()
  calls = tmp_path / 'calls'
  env = environment(
    tmp_path, CALLS=str(calls), END=end, JOB_COMPLETION_INDEX=str(pod)
  )
  script = launch_scripts.pod_script()
  command = ['bash', '-c', script, str(tmp_path), *launch_scripts.PROGRAM]
  with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as shell:
    if end == 'asked':
      assert shell.stdout.readline() == b'begun\n'
      shell.send_signal(signal.SIGTERM)
    assert shell.wait(timeout=10) == code
  called = calls.read_text().splitlines()
  assert called == ['-m', 'smft_jax.train', *launch_scripts.PROGRAM]


def test_a_second_start_leaves_the_first_as_it_is(tmp_path):
  python = tmp_path / 'smft_jax' / '.venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  write_program(python, 'exec sleep 20\n')
  start = 'bash', '-c', launch_scripts.start_command()
  # A process that has ended does not count.
  ended = subprocess.Popen(['true'])
  ended.wait()
  pid = tmp_path / 'smft_jax' / 'smft_jax.pid'
  pid.write_text(str(ended.pid))
  first = run(*start, cwd=tmp_path)
  assert (first.returncode, first.stderr) == (0, '')
  running = int(pid.read_text())
  try:
    second = run(*start, cwd=tmp_path)
    assert second.returncode == 1
    assert 'error: already running on' in second.stderr
    assert int(pid.read_text()) == running
  finally:
    os.kill(running, signal.SIGTERM)  # an error if it does not run


def test_an_unknown_accelerator_is_refused():
  text = (launch_scripts.LAUNCH / 'Dockerfile').read_text().replace('\\\n', '')
  choice = re.search(r'^RUN (case .*? esac)', text, re.MULTILINE)[1]

  def choose(name):
    env = os.environ | {'ACCELERATOR': name}
    return run('sh', '-c', f'{choice}; echo ".$extra"', env=env)

  assert choose('tpu').stdout == '.[tpu]\n'
  assert choose('cpu').stdout == '.\n'
  assert choose('cuda12').returncode == 2
  assert 'ACCELERATOR=cuda12 is not tpu, gpu or cpu' in choose('cuda12').stderr
