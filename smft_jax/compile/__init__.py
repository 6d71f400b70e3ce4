"""Estimates what a step needs of devices: python -m smft_jax.compile."""
