"""The program on eight devices from its command line, and its mistakes."""

import pytest

from smft_jax.config import experiment as config_lib
from smft_jax.runs import model as model_lib
from tests.support import tiny_run
from tests.support import train_runs

pytestmark = pytest.mark.usefixtures('quick_runs')

# Sizes that 8, or 2 x 2 x 2, divide.
SIZES = {
  'memory__num_slots': 64,
  'base__batch_size': 8,
  'background__batch_size': 4,
  'stream__batch_size': 4,
  'evaluation__batch_size': 16,
}


@pytest.fixture(scope='module')
def root(tmp_path_factory, quick_runs):
  """A folder with tiny.py, its cached base, and a run on one device."""
  folder = tmp_path_factory.mktemp('mesh')
  tiny_run.write_config(folder, **SIZES)
  assert train_runs.run(folder, 'one') == 0
  return folder


def assert_close(got, want, path='results'):
  """The same numbers: counts exactly, others to rounding."""
  if isinstance(want, dict):
    assert got.keys() == want.keys()
    for key in want:
      assert_close(got[key], want[key], f'{path}.{key}')
  elif isinstance(want, list):
    assert len(got) == len(want)
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
      assert_close(a, b, f'{path}[{index}]')
  elif isinstance(want, float):
    assert got == pytest.approx(want, rel=1e-4, abs=1e-6), path
  else:
    assert got == want, path


MESHES = {
  'memory': ['memory=8'],
  'all axes': ['data=2', 'fsdp=2', 'memory=2', 'split=dims', 'subkeys=heads'],
}


# The steps of a mesh of one axis are in `training/test_sharded_step.py`.
@pytest.mark.parametrize(
  'mesh', [pytest.param('memory', marks=pytest.mark.slow), 'all axes']
)
def test_results_are_those_of_one_device(mesh, root):
  flags = [f'--config.mesh.{setting}' for setting in MESHES[mesh]]
  bases = set((root / 'cache').iterdir())
  assert train_runs.run(root, mesh, *flags) == 0
  assert set((root / 'cache').iterdir()) == bases
  got, want = (train_runs.results_of(root / name) for name in (mesh, 'one'))
  assert want['slots_updated'] > 7
  # A hash of every bit, and sums over devices round in another order.
  for results in (got, want):
    assert results.pop('state_hash')
  assert_close(got, want)


def test_a_base_is_made_on_a_mesh_and_resumed(root, tmp_path):
  more = [
    f'--config.base.cache_dir={tmp_path}',
    '--config.mesh.memory=8',
    '--config.stream=none',
  ]
  with pytest.MonkeyPatch.context() as patch:
    train_runs.interrupt_save(patch, 'pretraining', 4)
    assert train_runs.run(root, 'made', *more) == 130
  assert train_runs.run(root, 'made', *more) == 0
  got, want = (train_runs.results_of(root / name) for name in ('made', 'one'))
  nll = 'general_text'
  assert got['held_out'][nll]['before'] == pytest.approx(
    want['held_out'][nll]['before'], rel=1e-3
  )


MISTAKES = {
  'more devices than there are': (['memory=16'], 'takes 16 devices'),
  'a part of the devices': (['memory=3'], 'does not divide the 8'),
  'slots': (['memory=8'], 'mesh axis memory = 8 does not divide num_slots'),
  'dims': (
    ['memory=4', 'split=dims'],
    'mesh axis memory = 4 does not divide value_dim = 10',
  ),
  'batches': (['data=2'], 'config.base.batch_size = 7 must be a multiple of'),
  'a split': (['split=cols'], "'cols' is not known"),
  'nothing': (['memory=0'], 'config.mesh.memory must be at least 1'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake, tmp_path, capsys):
  settings, part = MISTAKES[mistake]
  tiny_run.write_config(tmp_path)
  flags = [f'--config.mesh.{setting}' for setting in settings]
  assert part in train_runs.refused(capsys, tmp_path, 'workdir', *flags)


def test_no_mesh_is_the_default():
  experiment = config_lib.from_config_dict(tiny_run.make())
  assert experiment.mesh is None
  assert model_lib.config_of(experiment, 7).memory.layout is None
