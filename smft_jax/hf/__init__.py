"""Reads and writes Hugging Face checkpoints."""

from __future__ import annotations

from smft_jax.hf.checkpoint import load_config
from smft_jax.hf.checkpoint import load_model
from smft_jax.hf.checkpoint import load_params
from smft_jax.hf.checkpoint import save_model

__all__ = ['load_config', 'load_model', 'load_params', 'save_model']
