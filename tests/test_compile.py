"""What the training step takes of chips: by kind, and what is sent."""

import dataclasses
import importlib.util
import re
import subprocess
import sys

import jax
import pytest

from smft_jax import cli
from smft_jax import compile as compile_lib
from smft_jax import compiled
from smft_jax import config as config_lib
from smft_jax import traffic
from tests import many_processes
from tests import tiny_run

MESH = {'data': 2, 'fsdp': 2, 'memory': 2}


def report(**changes):
  sizes = {**many_processes.SIZES, 'mesh': MESH, **changes}
  experiment = config_lib.from_config_dict(tiny_run.make(**sizes))
  return compile_lib.report(experiment, 50, 12, jax.devices())


def test_the_kinds_of_bytes_are_those_of_the_arrays_and_of_the_program():
  found = report()
  kinds = found.memory
  assert kinds['value table'] == 64 * 12 * 4 / 2
  assert kinds['sub-keys'] == 2 * 2 * 8 * 3 * 4 / 2
  assert kinds['document frequencies'] == 64 * 4 / 2 + 4
  # int32 tokens, a boolean and a float32 weight, over four replicas.
  assert kinds['batch'] == 8 * 12 * (4 + 1 + 4) / 4
  assert kinds['padding of these'] == 0
  assert kinds['results not in place'] < 512  # numbers, and a tuple of all
  assert found.fits
  assert found.num_devices == 8


def test_nothing_that_is_sent_grows_with_the_table():
  # So many slots that those accessed are listed, and none is counted.
  small, large = (report(memory__num_slots=n * n) for n in (56, 112))
  assert large.memory['value table'] == 4 * small.memory['value table']

  # Sub-keys are as many as the square root.
  def sent(found):
    return sorted((c.kind, c.array, c.times) for c in found.sent)

  assert small.sent_bytes > 0
  assert sent(small) == sent(large)


def test_devices_along_memory_repeat_what_replicas_split():
  whole = report(mesh={'data': 1, 'fsdp': 1, 'memory': 8})
  split = report(mesh={'data': 8, 'fsdp': 1, 'memory': 1})
  assert whole.flops == pytest.approx(8 * split.flops, rel=0.2)


@pytest.mark.parametrize('method', ['full', 'lora', 'values_only', 'adapter'])
def test_every_kind_of_method_can_be_compiled(method):
  with jax.numpy_dtype_promotion('standard'):  # optax adds numbers to arrays
    found = report(method={'name': method})
  assert found.fits
  assert any(c.kind == 'all-reduce' for c in found.sent)


def test_what_does_not_fit_is_told(tmp_path, capsys, monkeypatch):
  config = many_processes.write_config(tmp_path, mesh=MESH)
  arguments = [f'--config={config}']
  assert cli.run(compile_lib.main, arguments) == 0
  said = capsys.readouterr().out
  assert re.search(r'it fits: \d+% of the memory', said)
  assert 'data 2, fsdp 2, memory 2 (rows)' in said
  assert 'all-reduce' in said
  monkeypatch.setattr(compiled, 'room', lambda device: 1000)
  assert cli.run(compile_lib.main, arguments) == 1
  assert 'it does not fit' in capsys.readouterr().out


def test_a_chip_that_is_known_bounds_the_step():
  found = report()
  assert found.seconds() == {}  # nobody says what a CPU can do
  peak = compiled.Device(memory=1e9, bandwidth=1e6, flops=1e15, links=1e15)
  seconds = dataclasses.replace(found, peak=peak).seconds()
  assert max(seconds, key=seconds.get) == 'memory'
  assert seconds['links'] == found.sent_bytes / 1e15


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--config.mesh.data=3'], 'batch_size = 8 must be a multiple of the 3'),
    (['--config.mesh.memory=8'], 'takes 16 devices, which does not divide'),
    (['--config.stream=none'], 'config.stream is missing'),
    (['--topolgy=v5e:4x4'], 'did you mean --topology?'),
    (
      ['--config.memory.num_slots=49', '--config.mesh.data=1'],
      'mesh axis memory = 2 does not divide num_slots = 49',
    ),
  ],
)
def test_bad_input_is_one_line_and_exit_code_2(
  flags, message, tmp_path, capsys
):
  config = many_processes.write_config(
    tmp_path, mesh={'data': 2, 'fsdp': 1, 'memory': 2}
  )
  assert cli.run(compile_lib.main, [f'--config={config}', *flags]) == 2
  said = capsys.readouterr().err.strip().splitlines()
  assert len(said) == 1
  assert message in said[0]


def test_a_config_compiles_without_the_data_it_would_read():
  invocation = cli.parse(['--config=configs/paper_1b.py'])
  experiment = compile_lib._experiment(invocation.config)
  assert experiment.data.documents_file == 'unread'


def test_sent_bytes_are_those_of_rings():
  def sent(kind, devices):
    return traffic.Collective(
      kind=kind, array='f32[8]', num_bytes=32, devices=devices, times=3
    ).sent_bytes

  assert sent('all-reduce', 4) == 3 * 2 * 32 * 3 / 4
  assert sent('all-gather', 4) == 3 * 32 * 3 / 4
  assert sent('reduce-scatter', 4) == 3 * 32 * 3
  assert sent('collective-permute', 4) == 3 * 32
  assert sent('all-reduce', 1) == 0


NO_TPU = importlib.util.find_spec('libtpu') is None


@pytest.mark.skipif(not NO_TPU, reason='libtpu is here')
def test_what_a_topology_needs_is_said(tmp_path, capsys):
  config = many_processes.write_config(tmp_path)
  arguments = [f'--config={config}', '--topology=v5e:2x2']
  assert cli.run(compile_lib.main, arguments) == 2
  assert 'pip install "smft-jax[tpu]"' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(NO_TPU, reason='needs libtpu: pip install "smft-jax[tpu]"')
def test_a_step_compiles_for_a_pod(tmp_path):
  config = many_processes.write_config(tmp_path)

  def run(*flags):
    return subprocess.run(
      [
        *(sys.executable, '-m', 'smft_jax.compile', f'--config={config}'),
        *flags,
      ],
      capture_output=True,
      text=True,
      check=False,
    )

  done = run('--topology=v5e:2x4', '--config.mesh={}')
  assert done.returncode == 2
  assert '--config.mesh.data=8 --config.mesh.memory=1' in done.stderr
  done = run(
    '--topology=v5e:2x4', '--config.mesh.data=4', '--config.mesh.memory=2'
  )
  assert done.returncode == 0, done.stderr
  assert '8 x TPU v5 lite: data 4, fsdp 1, memory 2' in done.stdout
  assert 'estimated' in done.stdout
  done = run('--topology=v9:2x4')
  assert done.returncode == 2
  assert 'v9:2x4 is not known' in done.stderr
