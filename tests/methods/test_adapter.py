"""Bottleneck adapters: where they stand, what they add, what trains."""

import functools

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax.methods import adapter
from tests.support import decoders
from tests.support import method_steps
from tests.support import steps

pytestmark = pytest.mark.usefixtures('quick_compilation')

WIDTH = 11
METHOD = adapter.make(adapter.Config(learning_rate=1e-2, width=WIDTH))


@pytest.mark.parametrize(
  ('make_model', 'places'),
  [
    (steps.make_model, ['0/attention/out', '0/mlp/down']),
    # The second block has memory in place of its FFN.
    (
      functools.partial(decoders.make_model, **decoders.WITH_MEMORY),
      ['0/attention/out', '0/mlp/down', '1/attention/out'],
    ),
  ],
)
def test_every_sublayer_gets_an_adapter_and_nothing_else_changes(
  make_model, places
):
  down = {f'blocks/{place}/adapter_down': (14, WIDTH) for place in places}
  up = {f'blocks/{place}/adapter_up': (WIDTH, 14) for place in places}
  method_steps.check_nothing_else_changes(METHOD, make_model(), down | up)


@pytest.mark.parametrize('path', ['attention/out', 'mlp/down'])
def test_an_adapter_adds_a_small_network_of_the_output(path):
  model = METHOD.add_modules(steps.make_model(), nnx.Rngs(7))
  block, name = path.split('/')
  projection = getattr(getattr(model.blocks[0], block), name)
  random = np.random.default_rng(3)
  up = random.normal(size=(WIDTH, 14))
  projection.adapter_up[...] = jnp.asarray(up, jnp.float32)
  w, down = (
    np.asarray(variable[...], np.float64)
    for variable in (projection.weight, projection.adapter_down)
  )
  x = random.normal(size=(2, 5, *w.shape[:-1]))
  y = np.tensordot(x, w, projection.num_in)
  inner = y @ down
  expected = y + inner / (1 + np.exp(-inner)) @ up
  np.testing.assert_allclose(
    projection(jnp.asarray(x, jnp.float32)), expected, rtol=1e-4, atol=1e-4
  )


def test_decoding_reads_the_adapters_too():
  method_steps.check_decoding(METHOD, steps.make_model())


def test_adapters_are_added_once():
  model = METHOD.add_modules(steps.make_model(), nnx.Rngs(7))
  with pytest.raises(ValueError, match='attention/out was already replaced by'):
    METHOD.add_modules(model, nnx.Rngs(7))
