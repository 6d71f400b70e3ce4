"""What the launchers start forwards signals, restarts and ends."""

import os
import re
import signal
import subprocess

import pytest

from tests.support import launch_scripts


@pytest.mark.parametrize(
  ('code', 'is_finished', 'again'),
  [(0, False, True), (0, True, False), (1, False, False), (2, False, False)],
)
def test_a_batch_that_saved_requeues_itself(code, is_finished, again, tmp_path):
  for name, result in (('srun', code), ('scontrol', 0)):
    path = tmp_path / name
    path.write_text(f'#!/usr/bin/env bash\necho {name} "$@"\nexit {result}\n')
    path.chmod(0o755)
  if is_finished:
    (tmp_path / 'results.json').touch()
  done = subprocess.run(
    ['bash'],
    input=launch_scripts.document(launch_scripts.dry('slurm')).replace(
      '/shared/run', str(tmp_path)
    ),
    capture_output=True,
    text=True,
    check=False,
    env=os.environ
    | {
      'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
      'SLURM_JOB_ID': '7',
    },
  )
  assert done.returncode == code
  assert done.stdout.startswith('srun ')
  assert ('scontrol requeue 7' in done.stdout) == again


# A python that exits with code $END at once, or with 0 on SIGTERM.
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$@" >"$CALLS"
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
  path = tmp_path / 'python'
  path.write_text(PYTHON)
  path.chmod(0o755)
  if is_finished:
    (tmp_path / 'results.json').touch()
  env = os.environ | {
    'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
    'CALLS': str(tmp_path / 'calls'),
    'END': end,
    'JOB_COMPLETION_INDEX': str(pod),
  }
  command = [
    'bash',
    '-c',
    launch_scripts.pod_script(),
    str(tmp_path),
    *launch_scripts.PROGRAM,
  ]
  with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as shell:
    if end == 'asked':
      assert shell.stdout.readline() == b'begun\n'
      shell.send_signal(signal.SIGTERM)
    assert shell.wait(timeout=10) == code
  called = (tmp_path / 'calls').read_text().splitlines()
  assert called == ['-m', 'smft_jax.train', *launch_scripts.PROGRAM]


def test_a_second_start_leaves_the_first_as_it_is(tmp_path):
  python = tmp_path / 'smft_jax' / '.venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  python.write_text('#!/usr/bin/env bash\nexec sleep 20\n')
  python.chmod(0o755)

  def start():
    return subprocess.run(
      ['bash', '-c', launch_scripts.start_command()],
      cwd=tmp_path,
      capture_output=True,
      text=True,
      check=False,
    )

  # A process that has ended does not count.
  ended = subprocess.Popen(['true'])
  ended.wait()
  pid = tmp_path / 'smft_jax' / 'smft_jax.pid'
  pid.write_text(str(ended.pid))
  first = start()
  assert (first.returncode, first.stderr) == (0, '')
  running = int(pid.read_text())
  try:
    second = start()
    assert second.returncode == 1
    assert 'error: already running on' in second.stderr
    assert int(pid.read_text()) == running
  finally:
    os.kill(running, signal.SIGTERM)  # an error if it does not run


def test_an_unknown_accelerator_is_refused():
  text = (launch_scripts.LAUNCH / 'Dockerfile').read_text().replace('\\\n', '')
  choice = re.search(r'^RUN (case .*? esac)', text, re.MULTILINE)[1]

  def choose(name):
    return subprocess.run(
      ['sh', '-c', f'{choice}; echo ".$extra"'],
      capture_output=True,
      text=True,
      check=False,
      env=os.environ | {'ACCELERATOR': name},
    )

  assert choose('tpu').stdout == '.[tpu]\n'
  assert choose('cpu').stdout == '.\n'
  assert choose('cuda12').returncode == 2
  assert 'ACCELERATOR=cuda12 is not tpu, gpu or cpu' in choose('cuda12').stderr
