"""The quorum: which tokens read, and what the others compute."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import memory
from smft_jax import overlay as overlay_lib
from smft_jax import quorum
from smft_jax import retrofit

pytestmark = pytest.mark.usefixtures('quick_compilation')

CONFIG = memory.MemoryConfig(
  model_dim=12,
  num_slots=64,
  num_heads=2,
  k=4,
  key_dim=6,
  gated=False,
  quorum=0.4,
)


class Block(nnx.Module):
  """A residual block with a feed-forward layer."""

  def __init__(self, rngs):
    self.mlp = nnx.Linear(12, 12, use_bias=False, rngs=rngs)

  def __call__(self, x):
    return x + self.mlp(x)


@pytest.fixture(scope='module')
def block():
  return Block(nnx.Rngs(0))


def background(count=200, seed=1):
  # Directions of very different size, as hidden states have.
  drawn = jax.random.normal(jax.random.key(seed), (count, 12))
  return drawn * jnp.logspace(0, 2, 12)[None]


@pytest.fixture(scope='module')
def fitted(block):
  return retrofit.fit_memory(block, CONFIG, ['mlp'], [(background(),)])


def teach(model, slots, lessons):
  """A copy of a model with rows of ones in some slots."""
  model = nnx.clone(model)
  layer = model.mlp.memory
  slots = jnp.asarray(slots)
  layer.values[...] = layer.values[...].at[slots].set(1.0)
  layer.lessons[...] = layer.lessons[...].at[slots].set(jnp.asarray(lessons))
  return model


def test_a_token_reads_its_largest_lesson_alone():
  rng = np.random.default_rng(0)
  lessons = rng.integers(0, 4, (200, 9))
  weights = rng.random((200, 9)).astype(np.float32)
  shares = np.stack(
    [np.where(lessons == number, weights, 0).sum(1) for number in (1, 2, 3)]
  )
  largest = shares.argmax(0) + 1
  met = shares.max(0) >= 2.0
  assert 20 < met.sum() < 180
  wanted = np.where(
    (lessons == largest[:, None]) & met[:, None], weights, np.float32(0)
  )
  found = quorum.read_one_lesson(
    jnp.asarray(lessons), jnp.asarray(weights), 2.0
  )
  np.testing.assert_array_equal(found, wanted)


def test_a_fitted_memory_changes_no_bit(block, fitted):
  x = background(seed=2)
  np.testing.assert_array_equal(fitted(x), block(x))


def test_fitting_leaves_its_model_as_it_was(fitted):
  before = fitted.mlp.memory.query[...]
  other = retrofit.fit_keys(fitted, [(background(seed=5),)], seed=1)
  assert not np.array_equal(other.mlp.memory.query[...], before)
  np.testing.assert_array_equal(fitted.mlp.memory.query[...], before)


def test_fitted_keys_spread_reads_over_slots(block, fitted):
  x = background(1000, seed=2)
  random = retrofit.add_memory(block, CONFIG, ['mlp'], rngs=nnx.Rngs(0))

  def used(model):
    ids, _ = model.mlp.memory.search(x)
    counts = np.sort(np.bincount(np.ravel(ids), minlength=64))
    return counts[-6:].sum() / counts.sum()  # share of a tenth of the slots

  assert used(fitted) < 0.8 * used(random)


def test_fitting_is_deterministic_and_needs_no_single_batch(block):
  x = background()
  parts = [(x[:70],), (x[70:],)]
  one, two, other = (
    nnx.state(retrofit.fit_memory(block, CONFIG, ['mlp'], parts, seed=seed))
    for seed in (0, 0, 1)
  )
  query = one['mlp']['memory']['query'][...]
  np.testing.assert_array_equal(query, two['mlp']['memory']['query'][...])
  assert not np.array_equal(query, other['mlp']['memory']['query'][...])


def test_masked_tokens_are_not_fitted_to(block):
  x = background()
  noise = jnp.full((30, 12), 1e3)
  found = retrofit.fit_memory(
    block,
    CONFIG,
    ['mlp'],
    [(jnp.concatenate([x, noise]),)],
    mask_of=lambda arguments: np.arange(len(arguments[0])) < 200,
  )
  wanted = retrofit.fit_memory(block, CONFIG, ['mlp'], [(x,)])
  np.testing.assert_array_equal(
    found.mlp.memory.query[...], wanted.mlp.memory.query[...]
  )


def test_only_tokens_that_reach_the_quorum_read(block, fitted):
  x = background(seed=3)
  slots = np.arange(0, 64, 3)
  taught = teach(fitted, slots, np.ones(len(slots), np.int32))
  ids, weights = fitted.mlp.memory.search(x)
  share = np.where(np.isin(ids, slots), weights, 0).sum(-1) / 2
  reads = share >= 0.4
  assert 20 < reads.sum() < 180
  changed = np.any(np.asarray(taught(x) != block(x)), axis=-1)
  np.testing.assert_array_equal(changed, reads)


def test_shares_of_different_lessons_do_not_add_up(block, fitted):
  x = background(seed=3)
  slots = np.arange(64)
  each = teach(fitted, slots, slots + 1)
  ids, weights = fitted.mlp.memory.search(x)
  merged = [
    max(np.bincount(row, w, minlength=64)) / 2
    for row, w in zip(np.asarray(ids), np.asarray(weights), strict=True)
  ]
  changed = np.any(np.asarray(each(x) != block(x)), axis=-1)
  np.testing.assert_array_equal(changed, np.array(merged) >= 0.4)


def test_rows_of_other_lessons_are_not_read(block, fitted):
  x = background(seed=3)
  slots = np.arange(0, 64, 2)
  two = teach(fitted, slots, np.where(slots % 4 == 0, 1, 2))
  ids, weights = fitted.mlp.memory.search(x)
  shares = np.stack(
    [
      np.where(np.asarray(ids) % 4 == rest, weights, 0).sum(-1) / 2
      for rest in (0, 2)
    ]
  )
  met = shares.max(0) >= 0.4
  assert np.any(met & (shares.min(0) > 0))
  # Rows are ones, so the read is the share of the lesson that is read.
  read = np.asarray(two.mlp(x) - block.mlp(x))[:, 0] / 2
  wanted = np.where(met, shares.max(0), 0)
  np.testing.assert_allclose(read, wanted, atol=1e-4)


def test_tokens_below_the_quorum_have_no_gradient(fitted):
  x = background(seed=3)
  slots = np.arange(0, 64, 3)
  taught = teach(fitted, slots, np.ones(len(slots), np.int32))

  found = nnx.grad(
    lambda model: jnp.sum(model(x) ** 2),
    argnums=nnx.DiffState(0, memory.MemoryValue),
  )(taught)
  (gradient,) = jax.tree.leaves(found)
  ids, weights = fitted.mlp.memory.search(x)
  share = np.where(np.isin(ids, slots), weights, 0).sum(-1) / 2
  read = np.intersect1d(np.asarray(ids)[share >= 0.4], slots)
  np.testing.assert_array_equal(
    np.flatnonzero(np.any(np.asarray(gradient) != 0, axis=1)), read
  )


def test_an_overlay_brings_its_lessons():
  lessons = jnp.array([0, 5, 0, 0])
  rows = np.ones((2, 3), np.float32)
  overlay = overlay_lib.make(
    [(np.array([1, 3]), rows, np.array([0, 7]))], which=[-1, 0]
  )
  ids = jnp.array([[1, 3], [1, 3]])
  found = overlay_lib.read_lessons(lessons, overlay, ids)
  assert found.tolist() == [[5, 0], [0, 7]]


def test_what_cannot_be_fitted_is_refused(block):
  gated = memory.MemoryConfig(
    model_dim=12, num_slots=64, value_dim=12, num_heads=2, k=4, key_dim=6
  )
  with pytest.raises(ValueError, match='mlp/memory: keys are fitted for'):
    retrofit.fit_memory(block, gated, ['mlp'], [(background(),)])
  with pytest.raises(ValueError, match='7 tokens, fewer than the 8 sub-keys'):
    retrofit.fit_memory(block, CONFIG, ['mlp'], [(background(7),)])
  with pytest.raises(ValueError, match='the background is empty'):
    retrofit.fit_memory(block, CONFIG, ['mlp'], [])
  with pytest.raises(ValueError, match='no memory layer'):
    retrofit.fit_keys(block, [(background(),)])
