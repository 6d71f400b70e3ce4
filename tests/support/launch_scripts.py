"""Dry runs of the scripts in launch/."""

import re
import subprocess
import textwrap

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
