"""Rows made once, and a copy of them."""

import shutil

import pytest

from tests.support import prepared_rows


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder with texts, a tokenizer and `rows`, not to be changed."""
  folder = tmp_path_factory.mktemp('prepare')
  prepared_rows.make(folder)
  return folder


@pytest.fixture
def mine(root, tmp_path):
  """A copy of it."""
  shutil.copytree(root, tmp_path, dirs_exist_ok=True)
  return tmp_path
