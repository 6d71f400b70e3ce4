"""LoRA: what it adds, what it trains, what it leaves alone."""

import re

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import memory
from smft_jax import train_step
from smft_jax.methods import full
from smft_jax.methods import lora
from tests import test_train_step
from tests import test_transformer

pytestmark = pytest.mark.usefixtures('quick_compilation')

RANK, ALPHA = 13, 5.0
METHOD = lora.make(learning_rate=3e-2)


def make_adapted(model=None):
  return lora.add_adapters(
    model or test_train_step.make_model(),
    rank=RANK,
    alpha=ALPHA,
    rngs=nnx.Rngs(7),
  )


def variables(state):
  """Arrays by path, such as 'blocks/0/mlp/up/weight'."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.array(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(
      nnx.to_pure_dict(state)
    )
  }


def take_steps(model, batch, count):
  state = test_train_step.init(model, METHOD)
  losses = []
  with test_train_step.optax_promotion():
    for _ in range(count):
      state, metrics = train_step.train_step(state, batch)
      losses.append(float(metrics['loss']))
  return state, losses


def test_every_projection_gets_an_adapter_and_nothing_else_changes():
  model = test_train_step.make_model()
  before = nnx.graphdef(model)
  adapted = make_adapted(model)
  assert nnx.graphdef(model) == before
  old, new = variables(nnx.state(model)), variables(nnx.state(adapted))
  added = {name: array.shape for name, array in new.items() if name not in old}
  for name, array in old.items():
    np.testing.assert_array_equal(array, new[name])
  shapes = {
    'attention/query': ((14,), (6, 4)),
    'attention/key': ((14,), (2, 4)),
    'attention/value': ((14,), (2, 4)),
    'attention/out': ((6, 4), (14,)),
    'mlp/gate': ((14,), (19,)),
    'mlp/up': ((14,), (19,)),
    'mlp/down': ((19,), (14,)),
  }
  a = {f'blocks/0/{n}/lora_a': (*s, RANK) for n, (s, _) in shapes.items()}
  b = {f'blocks/0/{n}/lora_b': (RANK, *s) for n, (_, s) in shapes.items()}
  assert added == a | b


def test_the_model_is_unchanged_until_b_is():
  model = test_train_step.make_model()
  adapted = make_adapted(model)
  tokens = test_transformer.tokens_of(3, 7)
  expected = test_transformer.logits_of(model, tokens)
  np.testing.assert_array_equal(
    test_transformer.logits_of(adapted, tokens), expected
  )
  b = adapted.blocks[0].mlp.up.lora_b
  b[...] = jnp.ones_like(b[...])
  assert np.any(test_transformer.logits_of(adapted, tokens) != expected)


@pytest.mark.parametrize('name', ['query', 'out'])
def test_an_adapter_adds_the_product_of_its_matrices(name):
  projection = getattr(make_adapted().blocks[0].attention, name)
  random = np.random.default_rng(3)
  shape = projection.lora_b.shape
  projection.lora_b[...] = jnp.asarray(random.normal(size=shape), jnp.float32)
  w, a, b = (
    np.asarray(variable[...], np.float64)
    for variable in (projection.weight, projection.lora_a, projection.lora_b)
  )
  w = w + ALPHA / RANK * np.tensordot(a, b, 1)
  x = random.normal(size=(2, 5, *w.shape[: projection.num_in]))
  np.testing.assert_allclose(
    projection(jnp.asarray(x, jnp.float32)),
    np.tensordot(x, w, projection.num_in),
    rtol=1e-5,
    atol=1e-5,
  )


def test_it_learns_and_keeps_every_bit_of_what_is_frozen():
  adapted = make_adapted()
  old = variables(nnx.state(adapted))
  state, losses = take_steps(adapted, test_train_step.make_batch(), 5)
  assert np.all(np.diff(losses) < 0), losses
  new = variables(state.params)
  for name, array in old.items():
    if 'lora' in name:
      assert np.any(array != new[name]), name
    else:
      assert array.tobytes() == new[name].tobytes(), name


def test_decoding_reads_the_adapters_too():
  state, _ = take_steps(make_adapted(), test_train_step.make_batch(), 2)
  trained = nnx.merge(state.graphdef, state.params)
  tokens = test_transformer.tokens_of(3, 7)

  @jax.jit
  def decoded(params):
    model = nnx.merge(state.graphdef, params)
    cache = model.init_cache(3, 7)
    return model.extend(tokens, jnp.ones((3, 7), bool), cache)[0]

  logits = test_transformer.logits_of(trained, tokens)[:, -1]
  np.testing.assert_allclose(
    decoded(state.params), logits, rtol=1e-5, atol=1e-5
  )
  base = test_transformer.logits_of(test_train_step.make_model(), tokens)
  assert np.abs(logits - base[:, -1]).max() > 1e-2


def products(method, model):
  """Shapes, sorted, of the matrix products and scatters in a compiled step."""
  state = test_train_step.init(model, method)
  with test_train_step.optax_promotion():
    step = train_step.train_step.lower(state, test_train_step.make_batch())
  text = step.compile().as_text()
  found = re.findall(r'= f32\[([\d,]+)\]\S* (?:dot|scatter)\(', text)
  return {tuple(sorted(map(int, shape.split(',')))) for shape in found}


def test_no_gradient_of_a_frozen_matrix_is_computed():
  model = test_train_step.make_model()
  # The compiler flattens heads: 6 query and 2 key-value heads of 4.
  frozen = {(14, 6 * 4), (2 * 4, 14), (14, 19), (5, 121)}
  made = products(METHOD, make_adapted(model))
  assert {(RANK, 14), (RANK, 19), (RANK, 6 * 4)} <= made
  assert made & frozen == set()
  # So that the line above means something: full training makes them all.
  everything = full.make(
    steps=7,
    warmup_steps=1,
    learning_rate=1e-3,
    value_learning_rate=1e-3,
    weight_decay=0.1,
  )
  assert frozen <= products(everything, model)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'rank': 0}, 'rank must be at least 1, got 0'),
    ({'alpha': 0.0}, 'alpha must be positive, got 0.0'),
    (
      {
        'model': memory.ProductKeyMemory(
          test_train_step.MEMORY, rngs=nnx.Rngs(0)
        )
      },
      'ProductKeyMemory has no layers.Projection',
    ),
    ({'model': 'adapted'}, 'Transformer has LoRA adapters already'),
  ],
)
def test_what_cannot_be_adapted_is_refused(changes, message):
  model = test_train_step.make_model()
  if changes.get('model') == 'adapted':
    changes = {'model': make_adapted(model)}
  arguments = {'model': model, 'rank': 3, 'alpha': 6.0} | changes
  with pytest.raises(ValueError, match=message):
    lora.add_adapters(**arguments, rngs=nnx.Rngs(0))
