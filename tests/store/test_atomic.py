"""Whole files: never half-written, nothing but JSON."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax.store import atomic


def test_to_json_converts_scalars_and_arrays():
  for value, expected in (
    (np.float32(0.5), 0.5),
    (np.int64(7), 7),
    (np.bool_(True), True),
    (jnp.float32(0.25), 0.25),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (jnp.array([jnp.nan, 1.0], jnp.float32), [None, 1.0]),
    (-math.inf, None),
    ({3: (1, 'a', None)}, {'3': [1, 'a', None]}),
  ):
    found = atomic.to_json({'key': value})
    assert json.loads(json.dumps(found)) == {'key': expected}
  with pytest.raises(TypeError, match='cannot be written as JSON'):
    atomic.to_json({'x': object()})


def test_write_json_leaves_the_old_file_when_it_fails(tmp_path):
  path = tmp_path / 'results.json'
  atomic.write_json(path, {'a': 1})
  with pytest.raises(TypeError):
    atomic.write_json(path, {'a': object()})
  with pytest.raises(UnicodeEncodeError):
    atomic.write_text(path, 'half of it\ud800')
  assert json.loads(path.read_text()) == {'a': 1}
  assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_not_overwritten(tmp_path):
  path, reader = tmp_path / 'a.json', tmp_path / 'reader'
  atomic.write_json(path, {'a': 1})
  # A reader with the old file open still sees all of it, as this link does.
  reader.hardlink_to(path)
  atomic.write_json(path, {'a': 2})
  assert json.loads(reader.read_text()) == {'a': 1}
  assert json.loads(path.read_text()) == {'a': 2}
