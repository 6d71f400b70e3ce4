"""Ways of training, one file each. Adding one is a file and a line here."""

from __future__ import annotations

from smft_jax.methods import sparse_memory

METHODS = {'sparse_memory': sparse_memory.make}
