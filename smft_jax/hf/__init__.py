"""Reads and writes Hugging Face checkpoints; reads GGUF files."""

from __future__ import annotations

from smft_jax.hf.checkpoint import check
from smft_jax.hf.checkpoint import load_config
from smft_jax.hf.checkpoint import load_model
from smft_jax.hf.checkpoint import load_params
from smft_jax.hf.checkpoint import save_model
from smft_jax.hf.tokenizer import load_tokenizer

__all__ = [
  'check',
  'load_config',
  'load_model',
  'load_params',
  'load_tokenizer',
  'save_model',
]
