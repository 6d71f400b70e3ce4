"""EWC: its Fisher information, its penalty, and what they hold in place."""

import functools
import itertools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax.data import batches
from smft_jax.methods import ewc
from smft_jax.training import forward
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import method_steps
from tests.support import steps

pytestmark = pytest.mark.usefixtures('quick_compilation')

SEQUENCES = 5
METHOD = ewc.make(
  ewc.Config(learning_rate=1e-2, strength=3.0, num_sequences=SEQUENCES)
)


def old_texts():
  """Two batches of three, padded; the sixth sequence is one too many."""
  yield steps.make_batch(lengths=(7, 3, 3), seed=11)
  yield steps.make_batch(lengths=(3, 7, 7), seed=12)
  raise AssertionError('more batches taken than needed')


def begin(model):
  return METHOD.begin(*nnx.split(model), old_texts())


def flat(state):
  """All numbers of a state, end to end."""
  arrays = method_steps.variables(state)
  return np.concatenate([a.ravel() for _, a in sorted(arrays.items())])


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(graphdef, params, batch):
  """Of the loss alone, by all parameters."""
  return jax.value_and_grad(
    lambda params: forward.loss_and_accesses(graphdef, params, batch)[0]
  )(params)


def reference(model, texts):
  """Fisher information in a plain loop, of rows without their padding."""
  rows = []
  for batch in texts:
    for row, length in enumerate(batch.mask.sum(axis=1)):
      alone = batches.Batch(*(x[row : row + 1, :length] for x in batch[:3]))
      _, gradient = loss_and_gradient(*nnx.split(model), alone)
      rows.append(method_steps.variables(gradient))
  return {
    name: sum(row[name].astype(np.float64) ** 2 for row in rows) / len(rows)
    for name in rows[0]
  }


def check_fisher(fisher, expected):
  fisher = method_steps.variables(fisher)
  assert fisher.keys() == expected.keys()
  for name, array in expected.items():
    assert fisher[name].dtype == np.float32
    np.testing.assert_allclose(
      fisher[name], array, rtol=1e-4, atol=1e-6 * array.max(), err_msg=name
    )


def first_rows(batch, count):
  return batches.Batch(*(x[:count] for x in batch[:3]))


def test_fisher_is_the_mean_of_squared_gradients_of_single_sequences():
  model = steps.make_model()
  first, second = itertools.islice(old_texts(), 2)
  expected = reference(model, [first, first_rows(second, 2)])
  check_fisher(begin(model)['fisher'], expected)
  # A batch's gradient is another thing, or this would show nothing.
  _, whole = loss_and_gradient(*nnx.split(model), first)
  squared = flat(whole) ** 2
  assert sum(a.sum() for a in expected.values()) > 1.5 * squared.sum()


def test_fisher_takes_as_many_sequences_as_asked_for():
  model = steps.make_model()
  [first] = itertools.islice(old_texts(), 1)
  fisher = ewc.fisher_information(*nnx.split(model), iter([first]), 2)
  check_fisher(fisher, reference(model, [first_rows(first, 2)]))
  message = '^num_sequences is 4, but there are only 3 pretraining sequences$'
  with pytest.raises(ValueError, match=message):
    ewc.fisher_information(*nnx.split(model), iter([first]), 4)


def test_the_anchor_is_the_model_and_outlives_it():
  model = steps.make_model()
  extras = begin(model)
  old = method_steps.variables(nnx.state(model))
  # The step donates the model's own arrays.
  state = state_lib.init(model, METHOD, extras=extras)
  with steps.optax_promotion():
    state, _ = step_lib.train_step(state, steps.make_batch())
  assert state_lib.value_table(nnx.state(model)).is_deleted()
  anchor = method_steps.variables(state.extras['anchor'])
  assert anchor.keys() == old.keys()
  for name, array in anchor.items():
    assert array.tobytes() == old[name].tobytes(), name


def test_the_penalty_and_its_gradient_are_those_of_the_paper():
  random = np.random.default_rng(3)
  shapes = {'w': (5, 3), 'b': (7,)}
  theta, fisher, anchor = (
    {k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    for _ in range(3)
  )
  fisher = {k: v**2 for k, v in fisher.items()}
  extras = {'strength': np.float32(3.0), 'fisher': fisher, 'anchor': anchor}
  value, gradient = jax.value_and_grad(ewc.penalty)(
    jax.tree.map(jnp.asarray, theta), jax.tree.map(jnp.asarray, extras)
  )
  expected = sum(
    np.sum(fisher[k].astype(np.float64) * (theta[k] - anchor[k]) ** 2)
    for k in shapes
  )
  np.testing.assert_allclose(value, 1.5 * expected, rtol=1e-6)
  for k in shapes:
    np.testing.assert_allclose(
      gradient[k],
      3.0 * fisher[k] * (theta[k] - anchor[k]),
      rtol=1e-5,
      atol=1e-6,
    )


def test_the_step_follows_the_loss_and_the_penalty():
  model, batch = steps.make_model(), steps.make_batch()
  graphdef, params = nnx.split(model)
  extras = begin(model)
  expected, loss = loss_and_gradient(graphdef, params, batch)
  # From elsewhere than the anchor, where the penalty has no slope.
  extras['anchor'] = jax.tree.map(lambda x: x + 0.5, extras['anchor'])
  total = flat(loss) + 3.0 * flat(extras['fisher']) * -0.5
  state, losses = method_steps.take_steps(model, METHOD, batch, 1, extras)
  moved = flat(state.params) - flat(params)
  # The first step of Adam goes by the sign alone.
  clear = np.abs(total) > 1e-4
  turned = clear & (np.sign(total) != np.sign(flat(loss)))
  assert turned.sum() > 100
  np.testing.assert_allclose(
    moved[clear], -1e-2 * np.sign(total[clear]), rtol=1e-3
  )
  # What is reported is the loss itself, to compare with other methods.
  np.testing.assert_allclose(losses[0], expected, rtol=1e-6)


def test_strength_holds_what_the_old_texts_need():
  model, batch = steps.make_model(), steps.make_batch()
  extras = begin(model)
  fisher, start = flat(extras['fisher']), flat(extras['anchor'])
  needed = fisher > np.quantile(fisher[fisher > 0], 0.9)
  free = fisher == 0
  assert needed.sum() > 50
  distances = {}
  for strength in (0.0, 100.0, 1e4):
    method = ewc.make(
      ewc.Config(learning_rate=3e-3, strength=strength, num_sequences=SEQUENCES)
    )
    state, _ = method_steps.take_steps(model, method, batch, 20, extras)
    distances[strength] = np.abs(flat(state.params) - start)
  means = [distance[needed].mean() for distance in distances.values()]
  assert means[0] > 1.1 * means[1] > 2 * means[2], means
  # What no old text needs is free to move, however strong the penalty.
  moves = distances[1e4][free]
  assert moves.max() > 3 * means[2]
