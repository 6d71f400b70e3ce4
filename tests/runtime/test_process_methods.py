"""Every method with two processes computes what it does with one device."""

import numpy as np
import pytest

from smft_jax import methods
from smft_jax.store import records as records_lib
from tests.support import many_processes
from tests.support import process_results

pytestmark = pytest.mark.slow


def losses_of(workdir):
  """Losses of the stream; only the first run makes the base."""
  records = records_lib.read_records(workdir)
  return [r['loss'] for r in records if r['event'] == 'stream']


RUNS = {name: (f'--config.method.name={name}',) for name in methods.METHODS}
RUNS['sparse_memory'] = ()
# Experts stand beside a dense layer, which the tiny model has none of.
RUNS['experts'] += ('--config.model.memory_placement=beside',)
RUNS['hidden states reused'] = ('--config.stream.steps_per_document=8',)
RUNS['replay beside'] = ('--config.method.replay_fraction=0.25',)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """One config, so that all runs share one cached base."""
  return many_processes.write_config(tmp_path_factory.mktemp('methods'))


@pytest.mark.parametrize('name', RUNS)
def test_two_processes_compute_what_one_device_does(name, config, tmp_path):
  flags = RUNS[name]
  one, two = tmp_path / 'one', tmp_path / 'two'
  process_results.succeeded(
    many_processes.run(config, one, 1, *flags, devices=1)
  )
  process_results.succeeded(
    many_processes.run(config, two, 2, *flags, *many_processes.MESH)
  )
  np.testing.assert_allclose(losses_of(two), losses_of(one), rtol=1e-4)
  mine, theirs = map(process_results.results_of, (two, one))
  for key in ('steps', 'tokens', 'slots_updated'):
    assert mine[key] == theirs[key], key
  assert mine['target']['after'] == pytest.approx(
    theirs['target']['after'], rel=1e-3, abs=1e-6
  )
