"""Shows what a finished run stored in its memory: python -m smft_jax.analyze."""
