"""How the tests compile."""

import contextlib

import jax


@contextlib.contextmanager
def quick(wanted: bool = True):
  """Compiles in half the time what is run only once or twice."""
  name = 'jax_disable_most_optimizations'
  before = jax.config.values[name]
  jax.config.update(name, wanted)
  yield
  jax.config.update(name, before)
