"""What tests of methods share: steps, and what every method must keep to."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import decoders
from tests.support import steps


def variables(state):
  """Arrays by path, such as 'blocks/0/mlp/up/weight'."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.array(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(
      nnx.to_pure_dict(state)
    )
  }


def init(model, method, extras=None):
  """A state of copies, as steps donate what they are given."""
  graphdef, params = nnx.split(model)
  params, extras = jax.tree.map(
    lambda x: jnp.asarray(np.array(x)), (params, extras)
  )
  return state_lib.init(nnx.merge(graphdef, params), method, extras=extras)


def take_steps(model, method, batch, count, extras=None):
  """The state after some steps on a batch, and the loss before each."""
  state = init(model, method, extras)
  losses = []
  with steps.optax_promotion():
    for _ in range(count):
      state, metrics = step_lib.train_step(state, batch)
      losses.append(float(metrics['loss']))
  return state, losses


def check_nothing_else_changes(method, model, shapes):
  """The model given stays, and gives the same outputs with what is added.

  Args:
    method: Adds modules.
    model: Without them.
    shapes: Of the variables that should be added, by name.
  """
  before = nnx.graphdef(model)
  changed = method.add_modules(model, nnx.Rngs(7))
  assert nnx.graphdef(model) == before
  old, new = variables(nnx.state(model)), variables(nnx.state(changed))
  for name, array in old.items():
    np.testing.assert_array_equal(array, new[name])
  added = {name: array.shape for name, array in new.items() if name not in old}
  assert added == shapes
  trainable = variables(nnx.state(changed, method.trainable))
  assert trainable.keys() == added.keys()
  tokens = decoders.tokens_of(3, 7)
  np.testing.assert_array_equal(
    decoders.logits_of(changed, tokens),
    decoders.logits_of(model, tokens),
  )


def check_decoding(method, model, extras=None):
  """Decoding with a cache reads what was added and trained."""
  changed = method.add_modules(model, nnx.Rngs(7))
  state, _ = take_steps(changed, method, steps.make_batch(), 2, extras)
  trained = nnx.merge(state.graphdef, state.params)
  tokens = decoders.tokens_of(3, 7)
  everything = jnp.ones(tokens.shape, bool)

  @jax.jit
  def extended(params):
    model = nnx.merge(state.graphdef, params)
    hidden, _ = model.extend(tokens, everything, model.init_cache(3, 7))
    return model.logits(hidden[:, -1])

  logits = decoders.logits_of(trained, tokens)[:, -1]
  np.testing.assert_allclose(
    extended(state.params), logits, rtol=1e-5, atol=1e-5
  )
  base = decoders.logits_of(model, tokens)[:, -1]
  assert np.abs(logits - base).max() > 1e-2
  new = decoders.decode(trained, tokens, everything, 3, -1)
  for _ in range(new.shape[1]):
    logits = decoders.logits_of(trained, tokens)[:, -1]
    tokens = jnp.concatenate([tokens, jnp.argmax(logits, -1)[:, None]], axis=1)
  np.testing.assert_array_equal(new, tokens[:, -new.shape[1] :])
