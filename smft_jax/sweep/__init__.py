"""Runs many points of one config: python -m smft_jax.sweep."""
