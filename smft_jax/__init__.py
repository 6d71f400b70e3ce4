"""Continual learning by sparse memory finetuning, in JAX.

Import the modules, not names from here: `from smft_jax import optim` needs
only jax and optax, `from smft_jax import memory` adds flax, and nothing here
imports anything.
"""

__version__ = '0.1.0'
