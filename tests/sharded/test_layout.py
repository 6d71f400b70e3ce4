"""Meshes, and how a layout splits a batch."""

import pytest

from smft_jax.sharded import layout as layout_lib
from tests.support import shards


def test_impossible_meshes_are_refused():
  with pytest.raises(ValueError, match='memory must be at least 1'):
    layout_lib.make_mesh(memory=0)
  with pytest.raises(ValueError, match='takes 3 devices, which does not divi'):
    layout_lib.make_mesh(data=3)
  assert layout_lib.make_mesh(data=2).devices.shape == (2, 1, 1)


def test_a_batch_that_replicas_cannot_share_is_whole():
  layout = shards.make_layout('rows, keys')
  assert layout.batch_axes((3, 7)) == ()
  assert layout.batch_axes((4, 3)) == ('data',)
