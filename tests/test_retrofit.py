"""Memory added to foreign models: outputs, gradients, paths."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import memory
from smft_jax import retrofit

pytestmark = pytest.mark.usefixtures('quick_compilation')

CONFIG = memory.MemoryConfig(
  model_dim=10, num_slots=49, value_dim=6, num_heads=2, k=3, key_dim=4
)
PLACES = ('first/mlp', 'blocks/1/mlp', 'ffns/0')


class Mlp(nnx.Module):
  """A typical block, with an extra argument."""

  def __init__(self, rngs):
    self.up = nnx.Linear(10, 13, rngs=rngs)
    self.down = nnx.Linear(13, 10, rngs=rngs)

  def __call__(self, x, scale=1.0):
    return self.down(jax.nn.relu(self.up(x))) * scale


class Block(nnx.Module):
  """Calls its FFN with more than x."""

  def __init__(self, rngs):
    self.mlp = Mlp(rngs)

  def __call__(self, x):
    return x + self.mlp(x, scale=0.5)


class Foreign(nnx.Module):
  """Blocks as attributes and in a list, and FFNs in a list."""

  def __init__(self, rngs):
    self.first = Block(rngs)
    self.blocks = nnx.List([Block(rngs), Block(rngs)])
    self.ffns = nnx.List([Mlp(rngs)])

  def __call__(self, x):
    x = self.first(x)
    for block in self.blocks:
      x = block(x)
    return x + self.ffns[0](x)


@pytest.fixture(scope='module')
def model():
  return Foreign(nnx.Rngs(3))


@pytest.fixture(scope='module')
def x():
  return jax.random.normal(jax.random.key(1), (2, 5, 10))


@functools.partial(jax.jit, static_argnames='graphdef')
def call(graphdef, params, x):
  return nnx.merge(graphdef, params)(x)


def outputs(model, x):
  return np.asarray(call(*nnx.split(model), x))


@pytest.fixture(scope='module')
def retrofitted(model):
  return retrofit.add_memory(model, CONFIG, PLACES, rngs=nnx.Rngs(7))


def test_beside_leaves_outputs_and_the_model_unchanged(model, retrofitted, x):
  np.testing.assert_array_equal(outputs(retrofitted, x), outputs(model, x))
  np.testing.assert_array_equal(retrofitted(x), model(x))
  kinds = [type(m) for _, m in nnx.iter_modules(retrofitted)]
  assert kinds.count(retrofit.MemoryBeside) == len(PLACES)
  assert all(
    not isinstance(m, retrofit.MemoryBeside) for _, m in nnx.iter_modules(model)
  )


def test_every_layer_has_its_own_table(retrofitted):
  tables = jax.tree.leaves(nnx.state(retrofitted, memory.MemoryValue))
  assert [t.shape for t in tables] == [(49, 6)] * len(PLACES)
  assert len({t.tobytes() for t in map(np.asarray, tables)}) == len(PLACES)


def test_an_open_gate_adds_the_memorys_output(model, x):
  changed = retrofit.add_memory(model, CONFIG, ['ffns/0'], rngs=nnx.Rngs(7))
  layer = changed.ffns[0].memory
  gate = np.linspace(-1.0, 2.0, 10, dtype=np.float32)
  layer.output_gate[...] = jnp.asarray(gate)
  plain = memory.ProductKeyMemory(CONFIG, rngs=nnx.Rngs(0))
  for name in ('subkeys', 'query', 'gate', 'out', 'query_scale', 'values'):
    getattr(plain, name)[...] = getattr(layer, name)[...]
  inner = x
  for block in (model.first, *model.blocks):
    inner = block(inner)
  expected = outputs(model, x) + gate * np.asarray(plain(inner))
  np.testing.assert_allclose(outputs(changed, x), expected, rtol=1e-5)


def test_healing_trains_only_the_memory(retrofitted, x):
  graphdef, memories, frozen = nnx.split(retrofitted, memory.MemoryParam, ...)
  target = jnp.roll(x, 1, axis=-1)

  @jax.jit
  def gradient(memories):
    def loss(memories):
      y = nnx.merge(graphdef, memories, frozen)(x)
      return jnp.mean((y - target) ** 2)

    return jax.grad(loss)(memories)

  def moves(gradients):
    return {
      path[-1] for path, g in nnx.to_flat_state(gradients) if np.any(g[...])
    }

  first = gradient(memories)
  assert moves(first) == {'output_gate'}
  memories = jax.tree.map(lambda p, g: p - 10 * g, memories, first)
  parts = {'subkeys', 'query', 'gate', 'out', 'output_gate', 'query_scale'}
  assert moves(gradient(memories)) == parts | {'values'}
  paths = ['/'.join(map(str, p)) for p, _ in nnx.to_flat_state(frozen)]
  assert not any('memory' in path for path in paths)
  assert 'first/mlp/ffn/up/kernel' in paths


def test_replace_drops_the_block(model, x):
  changed = retrofit.add_memory(
    model, CONFIG, ['ffns/0'], placement='replace', rngs=nnx.Rngs(7)
  )
  assert isinstance(changed.ffns[0], memory.ProductKeyMemory)
  assert isinstance(model.ffns[0], Mlp)
  assert np.abs(outputs(changed, x) - outputs(model, x)).max() > 1e-3
  _, slots = nnx.capture(changed, memory.SlotIds)(x)
  assert [s.shape for s in jax.tree.leaves(slots)] == [(2, 5, 6)]


@pytest.mark.parametrize(
  ('paths', 'message'),
  [
    (['blocks/1/mpl'], r"^no module at 'blocks/1/mpl'; there is blocks/1/mlp"),
    (['blocks/2/mlp'], r"^no module at 'blocks/2/mlp'; there is blocks/"),
    (['ffns/0', 'ffns/0'], "'ffns/0' is repeated"),
    (['first', 'first/mlp'], "'first/mlp' and 'first' contains the other"),
    ([], 'paths must be a list'),
    ('first/mlp', 'paths must be a list'),
  ],
)
def test_bad_paths_are_refused_in_one_line(model, paths, message):
  with pytest.raises(ValueError, match=message) as error:
    retrofit.add_memory(model, CONFIG, paths, rngs=nnx.Rngs(7))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('path', ['first/mlp', 'first/mlp/ffn', 'first'])
def test_memory_is_added_once(retrofitted, path):
  with pytest.raises(ValueError, match=f"'{path}' already has memory, at"):
    retrofit.add_memory(retrofitted, CONFIG, [path], rngs=nnx.Rngs(7))


def test_a_wrong_placement_or_width_is_refused(model, x):
  with pytest.raises(ValueError, match="'beside' or 'replace', got 'after'"):
    retrofit.add_memory(
      model, CONFIG, PLACES, placement='after', rngs=nnx.Rngs(7)
    )
  narrow = memory.MemoryConfig(
    model_dim=8, num_slots=49, value_dim=6, num_heads=2, k=3, key_dim=4
  )
  changed = retrofit.add_memory(model, narrow, ['ffns/0'], rngs=nnx.Rngs(7))
  with pytest.raises(ValueError, match='model_dim = 8 got 10 channels'):
    changed(x)


class Named(nnx.Module):
  """Calls `mlp` twice, and `other` only if asked."""

  def __init__(self, rngs):
    self.mlp = nnx.Linear(10, 10, rngs=rngs)
    self.other = nnx.Linear(10, 10, rngs=rngs)

  def __call__(self, x, more=None):
    x = self.mlp(self.mlp(x))
    return x if more is None else self.other(x)


FITTED = memory.MemoryConfig(
  model_dim=10, num_slots=25, value_dim=10, num_heads=2, k=3, key_dim=4,
  gated=False, quorum=0.2,
)  # fmt: skip


def test_a_block_that_is_called_twice_is_fitted_to_both_inputs():
  model = Named(nnx.Rngs(3))
  x = jax.random.normal(jax.random.key(0), (31, 10))
  fitted = retrofit.fit_memory(model, FITTED, ['mlp'], [(x,)])

  class Once(nnx.Module):
    def __init__(self):
      self.mlp = model.mlp

    def __call__(self, x):
      return self.mlp(x)

  both = jnp.concatenate([x, model.mlp(x)])
  expected = retrofit.fit_memory(Once(), FITTED, ['mlp'], [(both,)])
  np.testing.assert_allclose(
    fitted.mlp.memory.query[...], expected.mlp.memory.query[...], atol=1e-5
  )
  np.testing.assert_array_equal(fitted(x), model(x))


@pytest.mark.parametrize(
  ('background', 'message'),
  [
    ([(jnp.ones((31, 10)),)], 'other/memory: the model never calls it'),
    ([jnp.ones((31, 10))], 'must give tuples of arguments, such as .tokens,.'),
    ([(jnp.full((31, 10), jnp.nan), 1)], 'inputs that are not finite numbers'),
    ([], 'the background is empty'),
  ],
)
def test_a_background_that_keys_cannot_be_fitted_to(background, message):
  model = Named(nnx.Rngs(3))
  with pytest.raises(ValueError, match=message):
    retrofit.fit_memory(model, FITTED, ['mlp', 'other'], background)
