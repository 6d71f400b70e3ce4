"""Fixtures of the tests of data."""

import pytest

from smft_jax.data import documents
from tests.support import small_tfds


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
  """A small TFDS folder, not to be changed."""
  root = tmp_path_factory.mktemp('tfds')
  small_tfds.make_folder(root)
  return root


@pytest.fixture(scope='session')
def real_task(data_dir):
  """The task of real documents with the default sizes."""
  return documents.make_task(documents.DocumentsConfig(data_dir=data_dir))
