"""Settings and data that all tests share."""

import os
import pathlib

import jax
import pytest

from tests.support import compilation
from tests.support import repository

# Before any array exists: eight devices so that sharding can be tested, and
# no silent change of dtype or rank anywhere in the library.
jax.config.update('jax_platforms', os.environ.get('JAX_PLATFORMS') or 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')


def pytest_configure(config: pytest.Config) -> None:
  """Compiles quickly in ordinary tests, as users do in slow ones."""
  if config.option.markexpr == 'not slow':
    compilation.use_quick_code()


@pytest.fixture(scope='session')
def data_dir() -> str:
  """The TFDS folder of real data sets; skips where there is none."""
  folder = os.environ.get('SMFT_DATA_DIR')
  if folder is None:
    folder = repository.ROOT.parent / 'shared' / 'data' / 'tfds'
  if not pathlib.Path(folder).is_dir():
    pytest.skip(f'no data sets at {folder}: set SMFT_DATA_DIR')
  return str(folder)


@pytest.fixture(scope='module')
def quick_compilation():
  """`compilation.quick` for a whole module."""
  with compilation.quick():
    yield


@pytest.fixture(scope='module')
def quick_runs(quick_compilation):
  """Compiles quickly, and lets Adam of optax mix dtypes."""
  with jax.numpy_dtype_promotion('standard'):
    yield


@pytest.fixture(scope='session')
def learned_run(tmp_path_factory):
  """A tiny run without its measurements: its workdir, experiment and base."""
  from tests.support import tiny_run  # most tests need no run

  folder = tmp_path_factory.mktemp('learned')
  # Enough slots that its lessons choose different ones.
  config = tiny_run.make(
    base__cache_dir=str(folder / 'cache'), memory__num_slots=289, method__t=11
  )
  with compilation.quick(), jax.numpy_dtype_promotion('standard'):
    return folder / 'run', *tiny_run.learn(folder / 'run', config)
