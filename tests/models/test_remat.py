"""Blocks whose activations are computed again for their gradients."""

from flax import nnx
import jax
import numpy as np
import pytest

from smft_jax.methods import full
from smft_jax.methods import lora
from smft_jax.training import forward
from smft_jax.training import step as step_lib
from tests.support import decoders
from tests.support import steps

pytestmark = pytest.mark.usefixtures('quick_compilation')

METHODS = {
  'rows': lambda: steps.make_method('rows'),
  'full': lambda: full.make(full.Config()),
  'lora': lambda: lora.make(lora.Config()),
}


def make_state(method, remat):
  model = decoders.make_model(
    num_layers=4,
    memory=steps.MEMORY,
    memory_layers=(0,),
    memory_placement='beside',
    remat=remat,
  )
  if method.add_modules is not None:
    model = method.add_modules(model, nnx.Rngs(1))
  return steps.init(model, method)


@pytest.mark.parametrize('name', METHODS)
def test_the_step_is_the_same(name):
  method, results = METHODS[name](), []
  for remat in (False, True):
    state = make_state(method, remat)
    for _ in range(2):
      with steps.optax_promotion():
        state, metrics = step_lib.train_step(state, steps.make_batch())
    results.append((jax.device_get(state.params), float(metrics['loss'])))
  (kept, loss), (again, loss_again) = results
  np.testing.assert_allclose(loss_again, loss, rtol=1e-5)
  for a, b in zip(*map(jax.tree.leaves, (kept, again)), strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_it_keeps_less_for_the_gradient():
  batch = steps.make_batch((16, 33), (33,) * 16)
  sizes = []
  for remat in (False, True):
    state = make_state(METHODS['full'](), remat)

    def loss(params, state=state):
      return forward.loss_and_accesses(state.graphdef, params, batch)[0]

    # What CPUs keep is not told by their compiler, which puts speed first.
    _, gradient = jax.eval_shape(lambda p: jax.vjp(loss, p), state.params)
    kept = jax.tree.leaves(gradient)
    sizes.append(sum(leaf.size for leaf in kept))
  assert sizes[1] < 0.5 * sizes[0]
