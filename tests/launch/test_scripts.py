"""A dry run of a launcher prints what a real run does."""

import json
import os
import re
import subprocess

import pytest

from tests.support import launch_scripts

SLURM = 'slurm.sh', '--nodes=2', '--gpus=1', '--', '--config=x'
GKE = 'gke.sh', *launch_scripts.GKE
TRAIN = ['-m', 'smft_jax.train', *launch_scripts.PROGRAM]

# Records its arguments and standard input as a dry run prints them.
FAKE = """#!/usr/bin/env bash
{
  printf '%q ' "$(basename "$0")" "$@" && echo
  sed 's/^/  | /'
} >>"$CALLS"
"""


@pytest.fixture
def recorded(tmp_path):
  """A PATH whose launch commands only record their calls, and the record."""
  for name in ('gcloud', 'kubectl', 'sbatch', 'git'):
    path = tmp_path / name
    path.write_text(FAKE)
    path.chmod(0o755)
  calls = tmp_path / 'calls'
  path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
  return os.environ | {'PATH': path, 'CALLS': str(calls)}, calls


@pytest.mark.parametrize('case', launch_scripts.CASES)
def test_a_dry_run_prints_what_a_real_one_does(case, recorded):
  env, calls = recorded
  printed = launch_scripts.dry(case)
  assert not calls.exists()
  done = launch_scripts.launch(*launch_scripts.CASES[case], env=env)
  assert done.returncode == 0, done.stderr
  assert calls.read_text() == printed


def test_the_batch_script_names_the_gpus_and_comes_back():
  script = launch_scripts.document(launch_scripts.dry('slurm'))
  assert '#SBATCH --ntasks-per-node=1\n' in script
  assert '#SBATCH --cpus-per-task=32\n' in script
  assert 'export SRUN_CPUS_PER_TASK=32\n' in script
  assert 'JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7\n' in script
  command = re.search(r'^srun (.*)$', script, re.MULTILINE)[1]
  assert launch_scripts.unquoted(command)[2:] == ['python', *TRAIN]
  # It is valid bash, and requeues itself until it is done.
  subprocess.run(['bash', '-n'], input=script, text=True, check=True)
  assert '[ -e /shared/run/results.json ] || scontrol requeue' in script


def test_the_manifest_restarts_all_but_mistakes():
  printed = launch_scripts.dry('gke')
  # apply would leave an ended job set unchanged.
  assert printed.startswith('kubectl create -f - ')
  manifest = launch_scripts.document(printed)
  arguments = re.search(r'args: (\[.*\])$', manifest, re.MULTILINE)[1]
  assert json.loads(arguments) == ['/shared/run', *launch_scripts.PROGRAM]
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
  found = yaml.safe_load(launch_scripts.document(launch_scripts.dry('gke')))
  job = found['spec']['replicatedJobs'][0]['template']['spec']
  pod = job['template']['spec']
  assert job['parallelism'] == 64
  assert pod['terminationGracePeriodSeconds'] == 300
  assert pod['containers'][0]['args'][1:] == list(launch_scripts.PROGRAM)
  # What other tests cut out of the text is what a pod gets.
  command = ['bash', '-c', launch_scripts.pod_script()]
  assert pod['containers'][0]['command'] == command


def test_kubernetes_and_yaml_leave_arguments_as_they_are():
  odd = '--config.odd=$(HOME) \\ "x"\ny'
  done = launch_scripts.launch(
    *GKE, '--dry-run', '--', *launch_scripts.PROGRAM, odd
  )
  arguments = re.search(r'args: (\[.*\])$', done.stdout, re.MULTILINE)[1]
  # Kubernetes reads $$( as $(, and $(HOME) as the variable.
  assert json.loads(arguments)[-1] == odd.replace('$(', '$$(')


def test_what_runs_on_a_tpu_vm_is_python_itself():
  inner = launch_scripts.start_command()
  assert inner.endswith('& echo $! >smft_jax.pid')
  run = re.search(r'nohup (.*) >>smft_jax.log', inner)[1]
  assert launch_scripts.unquoted(run) == ['.venv/bin/python', *TRAIN]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['tpu_vm.sh'], 'known are setup start logs stop'),
    (['tpu_vm.sh', 'strat'], "'strat' is not an action; known are setup start"),
    (['tpu_vm.sh', 'logs', '--name=pod'], '--zone=... is missing'),
    (['slurm.sh', '--nods=2'], 'unknown flag --nods; known are --nodes --gpus'),
    (['slurm.sh', 'nodes=2'], 'nodes=2 is not a flag'),
    (['slurm.sh', '--nodes=two', '--gpus=1'], '--nodes=two is not a number'),
    (SLURM, 'after --, --workdir=... is missing'),
    ([*SLURM, '--workdir=y'], '--workdir=y is not absolute'),
    ([*SLURM, '--workdir=/tmp/y'], '--workdir=/tmp/y is a folder of one host'),
    (
      [*GKE, '--', '--config=x', '--workdir=gs://b/run'],
      '--workdir=gs://b/run is not a folder; mount the bucket',
    ),
    (
      [*GKE, '--', '--config=x', '--workdir=/mnt/run'],
      '--workdir=/mnt/run is not below /shared',
    ),
    (
      [*GKE, '--', *launch_scripts.PROGRAM[:2]],
      '--config.base.cache_dir=... is missing',
    ),
    ([*GKE, '--name=My_run'], '--name=My_run: Kubernetes takes'),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, recorded):
  env, calls = recorded
  done = launch_scripts.launch(*arguments, env=env)
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1
  assert message in done.stderr
  assert not calls.exists()


def test_the_image_copies_what_is_there():
  lines = (launch_scripts.LAUNCH / 'Dockerfile').read_text().splitlines()
  copies = (line.split()[1:-1] for line in lines if line.startswith('COPY '))
  copied = set().union(*copies)
  assert {'smft_jax', 'configs'} <= copied
  assert all((launch_scripts.LAUNCH.parent / name).exists() for name in copied)
  assert lines[-1] == 'ENTRYPOINT ["python", "-m", "smft_jax.train"]'
