"""Analyses what a run stored in its memory: `python -m smft_jax.analyze`."""
