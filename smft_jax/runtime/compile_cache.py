"""Keeps compiled programs on disk, so that the next run need not compile."""

from __future__ import annotations

import pathlib
from typing import Any

import jax


def use(folder: pathlib.Path) -> None:
  """Keeps programs in a folder, unless the user chose another or none.

  A folder that cannot be written costs a warning of jax, and no run.
  """
  config: Any = jax.config
  if (
    config.jax_enable_compilation_cache and not config.jax_compilation_cache_dir
  ):
    config.update('jax_compilation_cache_dir', str(folder))
