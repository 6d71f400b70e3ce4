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
