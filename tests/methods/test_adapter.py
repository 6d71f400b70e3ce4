"""Bottleneck adapters: where they stand, what they add, what trains."""

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


def shapes(*places):
  down = {f'blocks/{place}/adapter_down': (14, WIDTH) for place in places}
  up = {f'blocks/{place}/adapter_up': (WIDTH, 14) for place in places}
  return down | up


def test_every_sublayer_gets_an_adapter_and_nothing_else_changes():
  method_steps.check_nothing_else_changes(
    METHOD,
    steps.make_model(),
    shapes('0/attention/out', '0/mlp/down'),
  )


def test_a_block_without_ffn_gets_one_adapter():
  method_steps.check_nothing_else_changes(
    METHOD,
    decoders.make_model(**decoders.WITH_MEMORY),
    shapes('0/attention/out', '0/mlp/down', '1/attention/out'),
  )


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


def test_it_learns_and_keeps_every_bit_of_what_is_frozen():
  method_steps.check_learning(
    METHOD, steps.make_model(), lambda name: 'adapter_' in name
  )


def test_decoding_reads_the_adapters_too():
  method_steps.check_decoding(METHOD, steps.make_model())


def test_rates_are_data_and_widths_are_structure():
  method_steps.check_structure(
    adapter, [{'learning_rate': 0.5}], [{'width': 7}, {'weight_decay': 0.0}]
  )


def test_adapters_are_added_once():
  model = METHOD.add_modules(steps.make_model(), nnx.Rngs(7))
  with pytest.raises(ValueError, match='attention/out was already replaced by'):
    METHOD.add_modules(model, nnx.Rngs(7))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'learning_rate': float('nan')}, 'learning_rate must be above 0'),
    ({'weight_decay': -0.1}, 'weight_decay must be at least 0'),
    ({'width': 0}, 'width must be at least 1, not 0'),
  ],
)
def test_bad_settings_are_named(changes, message):
  method_steps.check_refusal(adapter.Config, changes, message)
