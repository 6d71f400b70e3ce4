"""Steps whose batch is differentiated in parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import schema
from smft_jax.config import sections
from smft_jax.data import batches
from smft_jax.methods import full
from smft_jax.training import forward
from smft_jax.training import micro_batches
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import decoders
from tests.support import meshes
from tests.support import steps

pytestmark = pytest.mark.usefixtures('quick_compilation')

BATCH = steps.make_batch((6, 7), (7, 4, 5, 6, 7, 3))


def full_method():
  return dataclasses.replace(
    full.make(full.Config()), penalty=ewc_like, hyperparameters=RATES
  )


RATES = {'learning_rate': 0.1}


def ewc_like(trainable, extras):
  """A penalty, which counts once however many parts there are."""
  del extras
  return 0.01 * sum((x**2).sum() for x in jax.tree.leaves(trainable))


METHODS = {
  'rows': lambda: steps.make_method('rows', optimizer='momentum'),
  'dense': lambda: steps.make_method('dense', optimizer='momentum'),
  'full': full_method,
}


@pytest.mark.parametrize('size', [1, 2, 3])
@pytest.mark.parametrize('name', METHODS)
def test_parts_take_the_step_of_the_whole_batch(name, size):
  method, results = METHODS[name](), []
  for micro in (None, size):
    state = steps.init(steps.make_model(num_layers=2), method)
    for _ in range(2):
      with steps.optax_promotion():
        state, metrics = step_lib.train_step(
          state, BATCH, micro_batch_size=micro
        )
    results.append((jax.device_get(state.params), metrics))
  (whole, want), (parts, found) = results
  for a, b in zip(*map(jax.tree.leaves, (whole, parts)), strict=True):
    np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5)
  assert sorted(found) == sorted(want)
  for key in want:
    np.testing.assert_allclose(found[key], want[key], rtol=1e-5)


def test_hidden_states_and_places_are_those_of_each_part():
  model = decoders.make_model(
    num_layers=2,
    memory=steps.MEMORY,
    memory_layers=(1,),
    memory_placement='beside',
  )
  batch = steps.make_batch((4, 20), (20, 9, 12, 3))
  weights = np.where(np.arange(20) % 9 == 4, batch.loss_weights, 0)
  batch = batch._replace(loss_weights=weights)
  state = steps.init(model, steps.make_method('rows'))
  hidden = forward.hidden_below_memory(
    state.graphdef, state.params, batch.tokens, batch.mask
  )
  listed = batches.counting(batch, most=3, num_parts=2)
  assert listed.counted.shape == (2, 16)
  tables = []
  for given in ((batch, None, None), (listed, hidden, 2)):
    state = steps.init(model, steps.make_method('rows'))
    old = np.array(state_lib.value_table(state.params))
    state, _ = step_lib.train_step(state, *given)
    tables.append(np.asarray(state_lib.value_table(state.params)))
  assert (tables[0] != old).any()
  np.testing.assert_allclose(tables[1], tables[0], rtol=1e-5, atol=1e-6)


def test_a_mesh_takes_parts_as_one_device_does():
  method, tables = steps.make_method('rows', optimizer='momentum'), []
  batch = steps.make_batch((8, 7), (7, 4, 5, 7, 1, 6, 7, 3))
  for name, size in (('one device', None), ('rows, replicas', 4)):
    layout = meshes.make_layout(name)
    config = dataclasses.replace(meshes.MEMORY, layout=layout)
    model = decoders.make_model(
      num_layers=2, memory=config, memory_layers=(0, 1)
    )
    background = steps.make_background()._replace(
      document_frequency=jnp.arange(config.num_slots, dtype=jnp.float32) % 8
    )
    state = steps.init(model, method, background)
    state, _ = step_lib.train_step(state, batch, micro_batch_size=size)
    tables.append(np.asarray(state_lib.value_table(state.params)))
  np.testing.assert_allclose(tables[1], tables[0], rtol=1e-5, atol=1e-6)


def test_parts_are_every_nth_row_and_come_back_in_order():
  seen = []

  def function(part, hidden):
    seen.append(part.tokens.shape)
    return part.tokens.sum(), (part.tokens, hidden)

  hidden = np.arange(6.0)[:, None]
  total, (tokens, back) = micro_batches.apply(function, BATCH, hidden, 2)
  assert int(total) == BATCH.tokens.sum()
  np.testing.assert_array_equal(tokens, BATCH.tokens)
  np.testing.assert_array_equal(back, hidden)
  assert set(seen) == {(2, 7)}


def test_activations_of_one_part_are_kept():
  model = decoders.make_model(
    num_layers=3, memory=steps.MEMORY, memory_layers=(0,)
  )
  batch = steps.make_batch((16, 33), (33,) * 16)
  sizes = []
  for micro in (None, 2):
    state = steps.init(model, steps.make_method('rows'))
    program = step_lib.train_step.lower(state, batch, micro_batch_size=micro)
    sizes.append(program.compile().memory_analysis().temp_size_in_bytes)
  assert sizes[1] < 0.5 * sizes[0]


def test_a_size_that_does_not_divide_the_batch_is_named():
  with pytest.raises(schema.UserError) as error:
    sections.StreamConfig(
      steps_per_document=1, batch_size=18, micro_batch_size=4
    )
  assert str(error.value) == (
    'micro_batch_size = 4 does not divide batch_size = 18'
  )
