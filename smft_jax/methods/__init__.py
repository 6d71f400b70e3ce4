"""Ways of finetuning, one file each. Adding one is a file and a line here.

A file has a `Config`, a frozen dataclass whose `name` is the method's, and
`make(config) -> method.Method`.
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
