"""Tensors of a checkpoint, read whole or in part."""

import numpy as np
import pytest

from smft_jax.hf import tensors as hf_tensors


class Recorder:
  """An array that knows how much of it was asked for."""

  def __init__(self, array):
    self.array = array

  def __getitem__(self, index):
    part = self.array[index]
    self.read = part.size
    return part


@pytest.mark.parametrize(
  ('path', 'shape'),
  [
    (('embedding',), (11, 4)),
    (('final_norm', 'scale'), (5,)),
    (('blocks', 3, 'attention', 'query', 'weight'), (4, 6, 5)),
    (('blocks', 3, 'attention', 'out', 'weight'), (6, 5, 4)),
    (('blocks', 3, 'attention', 'key_bias'), (6, 5)),
    (('blocks', 3, 'mlp', 'down', 'weight'), (7, 4)),
    (('blocks', 3, 'memory', 'subkeys'), (3, 2, 5, 4)),
  ],
)
def test_any_part_can_be_read_by_itself(path, shape):
  place = hf_tensors.place_of(path, shape)
  whole = np.arange(np.prod(shape)).reshape(shape)
  stored = Recorder(place.write(whole))
  assert stored.array.shape == place.stored_shape
  full = [slice(None)] * len(shape)
  np.testing.assert_array_equal(place.read(stored, full), whole)
  for axis, size in enumerate(shape):
    index = [*full]
    index[axis] = slice(1, size - 1)
    part = place.read(stored, index)
    np.testing.assert_array_equal(part, whole[tuple(index)])
    is_first = any(group[0] == axis for group in place.groups)
    assert stored.read == (part.size if is_first else whole.size)
