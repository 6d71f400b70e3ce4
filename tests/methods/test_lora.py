"""LoRA: what it adds, what it trains, what it leaves alone."""

import re

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import memory
from smft_jax.methods import full
from smft_jax.methods import lora
from smft_jax.training import step as step_lib
from tests.support import compilation
from tests.support import method_steps
from tests.support import steps

pytestmark = pytest.mark.usefixtures('quick_compilation')

RANK, ALPHA = 13, 5.0
METHOD = lora.make(lora.Config(learning_rate=3e-2, rank=RANK, alpha=ALPHA))


def make_adapted(model=None):
  model = model or steps.make_model()
  return METHOD.add_modules(model, nnx.Rngs(7))


def test_every_projection_gets_an_adapter_and_nothing_else_changes():
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
  method_steps.check_nothing_else_changes(METHOD, steps.make_model(), a | b)


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


def test_decoding_reads_the_adapters_too():
  method_steps.check_decoding(METHOD, steps.make_model())


@pytest.mark.parametrize(
  ('changes', 'adapted'),
  [
    ({'targets': 'all'}, ['attention', 'mlp']),
    ({'targets': 'attention'}, ['attention']),
    ({'pattern': 'mlp/(up|down)$', 'targets': 'attention'}, ['mlp']),
  ],
)
def test_targets_and_patterns_choose_projections(changes, adapted):
  method = lora.make(lora.Config(**changes))
  model = method.add_modules(steps.make_model(), nnx.Rngs(0))
  names = method_steps.variables(nnx.state(model, nnx.LoRAParam))
  assert sorted({name.split('/')[2] for name in names}) == adapted
  if 'pattern' in changes:
    assert {name.split('/')[3] for name in names} == {'up', 'down'}


def products(method, model):
  """Shapes, sorted, of the matrix products and scatters in a compiled step."""
  state = method_steps.init(model, method)
  with steps.optax_promotion():
    step = step_lib.train_step.lower(state, steps.make_batch())
  text = step.compile(compilation.usual_code()).as_text()
  found = re.findall(r'= f32\[([\d,]+)\]\S* (?:dot|scatter)\(', text)
  return {tuple(sorted(map(int, shape.split(',')))) for shape in found}


def test_no_gradient_of_a_frozen_matrix_is_computed():
  model = steps.make_model()
  # The compiler flattens heads: 6 query and 2 key-value heads of 4.
  frozen = {(14, 6 * 4), (2 * 4, 14), (14, 19), (5, 121)}
  made = products(METHOD, make_adapted(model))
  assert {(RANK, 14), (RANK, 19), (RANK, 6 * 4)} <= made
  assert made & frozen == set()
  # So that the line above means something: full training makes them all.
  everything = full.make(full.Config())
  assert frozen <= products(everything, model)


def test_a_pattern_that_matches_nothing_is_refused_with_paths_that_exist():
  method = lora.make(lora.Config(pattern='attention/quary'))
  message = (
    r"^pattern 'attention/quary' matches no projection; there are "
    r'blocks/0/attention/query, [^\n]* and 4 more$'
  )
  with pytest.raises(ValueError, match=message):
    method.add_modules(steps.make_model(), nnx.Rngs(0))


def test_only_projections_without_adapters_are_adapted():
  bare = memory.ProductKeyMemory(steps.MEMORY, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match=r'ProductKeyMemory has no layers\.Proj'):
    lora.add_adapters(bare, rank=3, alpha=6.0, rngs=nnx.Rngs(0))
  message = 'blocks/0/mlp/up was already replaced by AdaptedProjection'
  with pytest.raises(ValueError, match=message):
    lora.add_adapters(
      make_adapted(), rank=3, alpha=6.0, rngs=nnx.Rngs(0), pattern='mlp/up'
    )


def test_bad_arguments_are_named():
  model = steps.make_model()
  with pytest.raises(ValueError, match=r'^rank must be at least 1, not 0'):
    lora.add_adapters(model, rank=0, alpha=6.0, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match=r'^alpha must be above 0 and .* 0\.0'):
    lora.add_adapters(model, rank=3, alpha=0.0, rngs=nnx.Rngs(0))
