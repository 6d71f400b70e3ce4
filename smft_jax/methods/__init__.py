"""Ways of finetuning, one file each.

Each file has a `Config`, a `method.MethodConfig` whose `name` is the key in
`METHODS`, and `make(config) -> method.Method`. A new method is a file and a
line here.
"""

from __future__ import annotations

from smft_jax.methods import adapter
from smft_jax.methods import ewc
from smft_jax.methods import experts
from smft_jax.methods import full
from smft_jax.methods import in_context
from smft_jax.methods import lora
from smft_jax.methods import replay
from smft_jax.methods import sparse_memory
from smft_jax.methods import values_only
from smft_jax.training import method as method_lib

METHODS = {
  'sparse_memory': sparse_memory,
  'full': full,
  'values_only': values_only,
  'lora': lora,
  'adapter': adapter,
  'ewc': ewc,
  'replay': replay,
  'experts': experts,
  'in_context': in_context,
}


def make(config: method_lib.MethodConfig) -> method_lib.Method:
  """Builds the method that a `Config` describes."""
  return METHODS[config.name].make(config)
