"""A small memory model, its batches and methods, for tests of the step."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import memory
from smft_jax.data import batches
from smft_jax.methods import sparse_memory
from smft_jax.training import forward
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from tests.support import decoders

N, V, T = 121, 5, 7
MEMORY = memory.MemoryConfig(
  model_dim=14, num_slots=N, value_dim=V, num_heads=3, k=2, key_dim=6
)


RATE = 0.7


def make_model(memory_config=MEMORY, num_layers=1):
  """Memory in every layer, each with an FFN beside it, and one table."""
  return decoders.make_model(
    num_layers=num_layers,
    memory=memory_config,
    memory_layers=tuple(range(num_layers)),
    memory_placement='beside',
  )


def make_background(seed=5):
  random = np.random.default_rng(seed)
  frequency = random.integers(0, 8, N).astype(np.float32)
  return method_lib.Background(jnp.asarray(frequency), jnp.float32(7))


def make_batch(shape=(3, 7), lengths=(7, 4, 5), seed=1):
  tokens = np.array(decoders.tokens_of(*shape, seed=seed))
  mask = np.arange(shape[1]) < np.array(lengths)[:, None]
  weights = np.random.default_rng(seed).uniform(0.2, 2.0, shape)
  weights = np.where(mask, weights, 0).astype(np.float32)
  weights[:, 0] = 0
  return batches.Batch(tokens, mask, weights)


def make_method(update, t=T, ranking='tf_idf', optimizer='sgd', **settings):
  return sparse_memory.make(
    sparse_memory.Config(
      update=update,
      ranking=ranking,
      t=t,
      optimizer=optimizer,
      learning_rate=RATE,
      **settings,
    )
  )


def init(model, method, background=None):
  """A state of copies, as steps donate what they are given."""
  graphdef, params = nnx.split(model)
  params, background = jax.tree.map(
    lambda x: jnp.asarray(np.array(x)),
    (params, background or make_background()),
  )
  return state_lib.init(nnx.merge(graphdef, params), method, background)


@functools.partial(jax.jit, static_argnums=0)
def loss_gradient(graphdef, params, batch):
  """The ordinary gradient of the table, and what was read."""
  values, frozen = nnx.split_state(params, memory.MemoryValue, ...)

  def loss(values):
    params = nnx.merge_state(values, frozen)
    return forward.loss_and_accesses(graphdef, params, batch)

  gradient, accesses = jax.grad(loss, has_aux=True)(values)
  return jax.tree.leaves(gradient)[0], accesses


def optax_promotion():
  """Adam of optax mixes dtypes, which the tests forbid elsewhere."""
  return jax.numpy_dtype_promotion('standard')
