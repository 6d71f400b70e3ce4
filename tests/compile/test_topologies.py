"""Steps compiled for pods that are not there."""

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.support import many_processes

NO_TPU = importlib.util.find_spec('libtpu') is None


def compile_for(config, *flags):
  """Runs the program in a process, as it chooses the platform."""
  return subprocess.run(
    [*(sys.executable, '-m', 'smft_jax.compile', f'--config={config}'), *flags],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
@pytest.mark.skipif(NO_TPU, reason='needs libtpu: pip install "smft-jax[tpu]"')
@pytest.mark.parametrize(
  ('topology', 'kind', 'data', 'memory'),
  [
    ('v5e:2x4', 'TPU v5 lite', 4, 2),
    ('v5p:4x4x4', 'TPU v5', 8, 8),  # eight: no whole axis of its torus
  ],
)
def test_a_step_compiles_for_a_pod(topology, kind, data, memory, tmp_path):
  config = many_processes.write_config(tmp_path)
  flags = f'--config.mesh.data={data}', f'--config.mesh.memory={memory}'
  done = compile_for(config, f'--topology={topology}', *flags)
  assert done.returncode == 0, done.stderr
  assert f'on {kind}: data {data} x fsdp 1' in done.stdout
  assert re.search(r'estimated \S+ ms at least, bound by \w+', done.stdout)
  assert not done.stderr
  if topology == 'v5e:2x4':
    refused = compile_for(config, f'--topology={topology}')
    assert refused.returncode == 2
    assert '--config.mesh.data=8 --config.mesh.memory=1' in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(NO_TPU, reason='needs libtpu: pip install "smft-jax[tpu]"')
@pytest.mark.parametrize(
  ('topology', 'message'),
  [
    *((t, 'is unknown;') for t in ('v9:2x4', 'v5e', 'v5e:3x3x3', 'v5e:')),
    ('v4:2x2x1', 'use v5e, v5p or v6e'),
  ],
)
def test_an_unknown_topology_is_refused(topology, message, tmp_path):
  done = compile_for(
    many_processes.write_config(tmp_path), f'--topology={topology}'
  )
  assert done.returncode == 2
  assert done.stderr.startswith(f'error: --topology={topology} ')
  assert message in done.stderr
  assert done.stderr.count('\n') == 1
