"""The launchers: what a dry run prints is what a real one does."""

import json
import os
import re
import subprocess
import textwrap

import pytest

from tests.support import repository

LAUNCH = repository.ROOT / 'launch'
PROGRAM = (
  '--config=configs/docqa.py',
  '--workdir=/shared/run',
  '--config.base.cache_dir=/shared/cache',
  '--config.data.documents_file=/shared/my "own" files.jsonl',
)
TPU = ('--name=pod', '--zone=us-east5-a', '--project=mine')
GKE = (
  '--name=smft',
  '--image=registry/smft:1',
  '--accelerator=tpu-v5-lite-podslice',
  '--topology=16x16',
  '--hosts=64',
  '--claim=shared',
)
CASES = {
  'setup': ['tpu_vm.sh', 'setup', *TPU],
  'start': ['tpu_vm.sh', 'start', *TPU, '--', *PROGRAM],
  'logs': ['tpu_vm.sh', 'logs', *TPU],
  'stop': ['tpu_vm.sh', 'stop', *TPU],
  'slurm': ['slurm.sh', '--nodes=2', '--gpus=8', '--cpus=32', '--', *PROGRAM],
  'gke': ['gke.sh', *GKE, '--', *PROGRAM],
}
# Writes down how it was called and what it was given, as a dry run prints it.
FAKE = """#!/usr/bin/env bash
{
  printf '%q ' "$(basename "$0")" "$@" && echo
  sed 's/^/  | /'
} >>"$CALLS"
"""


def launch(*arguments, env=None):
  script, *rest = arguments
  return subprocess.run(
    [LAUNCH / script, *rest],
    capture_output=True,
    text=True,
    check=False,
    stdin=subprocess.DEVNULL,
    env=env,
  )


def dry(case: str) -> str:
  script, *rest = CASES[case]
  index = rest.index('--') if '--' in rest else len(rest)
  done = launch(script, *rest[:index], '--dry-run', *rest[index:])
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture
def recorded(tmp_path):
  """A PATH whose launch commands only write down their calls, and the file."""
  for name in ('gcloud', 'kubectl', 'sbatch', 'git'):
    path = tmp_path / name
    path.write_text(FAKE)
    path.chmod(0o755)
  calls = tmp_path / 'calls'
  path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
  return os.environ | {'PATH': path, 'CALLS': str(calls)}, calls


@pytest.mark.parametrize('case', CASES)
def test_a_dry_run_prints_what_a_real_one_does(case, recorded):
  env, calls = recorded
  printed = dry(case)
  assert not calls.exists()
  done = launch(*CASES[case], env=env)
  assert done.returncode == 0, done.stderr
  assert calls.read_text() == printed


def document(printed: str) -> str:
  """What a command is given, without the marks of a dry run."""
  return ''.join(
    line.removeprefix('  | ')
    for line in printed.splitlines(keepends=True)
    if line.startswith('  | ')
  )


def unquoted(command: str) -> list[str]:
  """The arguments that a shell makes of a command."""
  show = f'set -- {command}; printf "%s\\0" "$@"'
  return subprocess.run(
    ['bash', '-c', show], capture_output=True, text=True, check=True
  ).stdout.split('\0')[:-1]


def test_the_batch_script_names_the_gpus_and_comes_back():
  script = document(dry('slurm'))
  assert '#SBATCH --ntasks-per-node=1\n' in script
  assert '#SBATCH --cpus-per-task=32\n' in script
  assert 'export SRUN_CPUS_PER_TASK=32\n' in script
  assert 'JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7\n' in script
  command = re.search(r'^srun (.*)$', script, re.MULTILINE)[1]
  assert unquoted(command)[2:] == ['python', '-m', 'smft_jax.train', *PROGRAM]
  # It is bash as it stands, and asks for another turn until it is done.
  subprocess.run(['bash', '-n'], input=script, text=True, check=True)
  assert '[ -e /shared/run/results.json ] || scontrol requeue' in script


def test_the_manifest_restarts_all_but_mistakes():
  printed = dry('gke')
  # apply would leave a job set that has ended as it is, and start nothing.
  assert printed.startswith('kubectl create -f - ')
  manifest = document(printed)
  arguments = re.search(r'args: (\[.*\])$', manifest, re.MULTILINE)[1]
  assert json.loads(arguments) == ['/shared/run', *PROGRAM]
  for line in (
    'kind: JobSet',
    'maxRestarts: 20',
    'completions: 64',
    'completionMode: Indexed',
    'values: [2]',
    'terminationGracePeriodSeconds: 300',
    'cloud.google.com/gke-tpu-topology: "16x16"',
    'google.com/tpu: 4',
    'claimName: "shared"',
  ):
    assert re.search(rf'^[ -]*{re.escape(line)}$', manifest, re.MULTILINE), line


def test_the_manifest_is_yaml():
  yaml = pytest.importorskip('yaml', reason='needs PyYAML')
  found = yaml.safe_load(document(dry('gke')))
  job = found['spec']['replicatedJobs'][0]['template']['spec']
  pod = job['template']['spec']
  assert job['parallelism'] == 64
  assert pod['terminationGracePeriodSeconds'] == 300
  assert pod['containers'][0]['args'][1:] == list(PROGRAM)
  # What the other tests cut out of the text is what a pod is given.
  assert pod['containers'][0]['command'] == ['bash', '-c', pod_script()]


def test_kubernetes_and_yaml_leave_arguments_as_they_are():
  odd = '--config.odd=$(HOME) \\ "x"\ny'
  done = launch('gke.sh', *GKE, '--dry-run', '--', *PROGRAM, odd)
  arguments = re.search(r'args: (\[.*\])$', done.stdout, re.MULTILINE)[1]
  # Kubernetes reads $$( as $(, and $(HOME) as the variable.
  assert json.loads(arguments)[-1] == odd.replace('$(', '$$(')


def pod_script() -> str:
  """What the shell of a pod runs."""
  indented = re.search(r'- \|\n(.*?) +args: ', document(dry('gke')), re.DOTALL)[
    1
  ]
  return textwrap.dedent(indented)


def start_command() -> str:
  """What a worker of a TPU VM runs."""
  remote = unquoted(dry('start').strip())
  command = next(a for a in remote if a.startswith('--command='))
  return command.removeprefix('--command=')


def test_what_runs_on_a_tpu_vm_is_python_itself():
  inner = start_command()
  assert inner.endswith('& echo $! >smft_jax.pid')
  run = re.search(r'nohup (.*) >>smft_jax.log', inner)[1]
  assert unquoted(run) == ['.venv/bin/python', '-m', 'smft_jax.train', *PROGRAM]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['tpu_vm.sh'], 'there are setup start logs stop'),
    (['tpu_vm.sh', 'strat'], "'strat' is no action; there are setup start"),
    (['tpu_vm.sh', 'logs', '--name=pod'], '--zone=... is missing'),
    (['slurm.sh', '--nods=2'], 'unknown flag --nods; there are --nodes --gpus'),
    (['slurm.sh', 'nodes=2'], 'nodes=2 is no flag'),
    (['slurm.sh', '--nodes=two', '--gpus=1'], '--nodes=two is no number'),
    (
      ['slurm.sh', '--nodes=2', '--gpus=1', '--', '--config=x'],
      'after --, --workdir=... is missing',
    ),
    (
      ['slurm.sh', '--nodes=2', '--gpus=1', '--', '--config=x', '--workdir=y'],
      '--workdir=y is not absolute',
    ),
    (
      ['gke.sh', *GKE, '--', '--config=x', '--workdir=gs://b/run'],
      '--workdir=gs://b/run is no folder; mount the bucket',
    ),
    (
      [
        'slurm.sh',
        '--nodes=2',
        '--gpus=1',
        '--',
        '--config=x',
        '--workdir=/tmp/y',
      ],
      '--workdir=/tmp/y is a folder of one host',
    ),
    (
      ['gke.sh', *GKE, '--', '--config=x', '--workdir=/mnt/run'],
      '--workdir=/mnt/run is not below /shared',
    ),
    (
      ['gke.sh', *GKE, '--', *PROGRAM[:2]],
      '--config.base.cache_dir=... is missing',
    ),
    (['gke.sh', *GKE, '--name=My_run'], '--name=My_run: Kubernetes takes'),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, recorded):
  env, calls = recorded
  done = launch(*arguments, env=env)
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1
  assert message in done.stderr
  assert not calls.exists()


def test_the_image_copies_what_is_there():
  lines = (LAUNCH / 'Dockerfile').read_text().splitlines()
  copied = [
    name
    for line in lines
    if line.startswith('COPY ')
    for name in line.split()[1:-1]
  ]
  assert {'smft_jax', 'configs'} <= set(copied)
  assert all((LAUNCH.parent / name).exists() for name in copied)
  assert lines[-1] == 'ENTRYPOINT ["python", "-m", "smft_jax.train"]'
