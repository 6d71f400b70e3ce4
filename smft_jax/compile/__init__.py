"""Prints what a step needs of devices that are not here: python -m smft_jax.compile."""
