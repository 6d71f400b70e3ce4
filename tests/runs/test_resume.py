"""Training states: rows alone where only rows change, exact bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import schema
from smft_jax.runs import resume
from smft_jax.store import checkpoint
from smft_jax.store import checksum
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import steps
from tests.support import train_runs

OWNER = {'base model': 'ab', 'background': 'cd'}


pytestmark = pytest.mark.usefixtures('quick_runs')


def first_state(optimizer='adamw'):
  method = steps.make_method('rows', optimizer=optimizer)
  return steps.init(steps.make_model(), method)


def assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_only_changed_rows_are_stored_and_the_rest_is_the_base(tmp_path):
  table = state_lib.value_table(first_state().params)
  state = first_state()
  resume.save(tmp_path, state, OWNER, base_table=table)
  same, _ = resume.restore(tmp_path, first_state(), OWNER, table)
  assert_same(same, state)
  for seed in (1, 2):
    state, _ = step_lib.train_step(state, steps.make_batch(seed=seed))
  # A bit alone makes another row, even where the numbers compare equal.
  values = state_lib.value_table(state.params)
  changed = int(jnp.sum(jnp.any(values != table, axis=1)))
  resume.save(tmp_path, state, OWNER, {'tokens': 7}, table)
  found = checkpoint.read_newest(tmp_path, train_runs.stored_shapes)
  assert found[0] == 2
  assert not any(name.startswith('params') for name in found[1])
  slots = np.unique(found[1]['changed_slots'])
  assert len(slots) == changed < steps.N
  restored, notes = resume.restore(tmp_path, first_state(), OWNER, table)
  assert_same(restored, state)
  assert notes == {'tokens': 7}
  with pytest.raises(schema.UserError, match='another base model, ab, not ef'):
    resume.restore(tmp_path, first_state(), OWNER | {'base model': 'ef'}, table)
  with pytest.raises(schema.UserError, match='another background, cd, not gh'):
    resume.restore(tmp_path, first_state(), OWNER | {'background': 'gh'}, table)


def test_a_whole_state_comes_back(tmp_path):
  state, _ = step_lib.train_step(first_state(), steps.make_batch())
  resume.save(tmp_path, state, OWNER)
  restored, _ = resume.restore(tmp_path, first_state(), OWNER)
  assert_same(restored, state)
  # A state without moments is another one.
  with pytest.raises(ValueError, match='the model lacks opt_state'):
    resume.restore(tmp_path, first_state('sgd'), OWNER)
  # And so is one of rows alone.
  with pytest.raises(ValueError, match='the model lacks params'):
    resume.restore(
      tmp_path, first_state(), OWNER, state_lib.value_table(state.params)
    )


@pytest.mark.parametrize(
  'dtype', ['float32', 'bfloat16', 'float16', 'int32', 'int8', 'uint16', 'bool']
)
def test_any_bit_changes_the_checksum(dtype):
  array = np.zeros((3, 5), dtype)
  raw = array.view(np.uint8).reshape(-1)
  seen = {checksum.checksums({'a': jnp.asarray(array)})['a']}
  # Booleans have one bit; the least of the first byte, and the next element's.
  places = range(array.nbytes)
  for place in places:
    raw[place] ^= 1
    seen.add(checksum.checksums({'a': jnp.asarray(array)})['a'])
    raw[place] ^= 1
  assert len(seen) == 1 + len(places)


def test_the_checksum_does_not_hang_on_the_devices():
  array = jnp.arange(8 * 13, dtype=jnp.float32).reshape(8, 13)
  mesh = jax.make_mesh((8,), ('x',), (jax.sharding.AxisType.Auto,))
  for spec in (jax.P('x'), jax.P(None)):
    spread = jax.device_put(array, jax.NamedSharding(mesh, spec))
    assert checksum.checksums({'a': spread}) == checksum.checksums({'a': array})


def test_backgrounds_are_told_apart():
  one, other = (steps.make_background(seed) for seed in (1, 2))
  identity = resume.background_identity(one)
  assert identity == resume.background_identity(one)
  assert identity != resume.background_identity(other)
  assert resume.background_identity(None) is None
