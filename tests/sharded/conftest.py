"""Fixtures of the tests of sharded functions."""

import pytest

from tests.support import compilation
from tests.support import shards


@pytest.fixture(autouse=True)
def quickly(request):
  """Compiles quickly, except for tests of what the compiler makes."""
  with compilation.quick('sends' not in request.node.name):
    yield


@pytest.fixture(params=shards.LAYOUTS)
def layout(request):
  return shards.make_layout(request.param)
