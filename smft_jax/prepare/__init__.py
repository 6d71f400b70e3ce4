"""Tokenises text of any size into shards: python -m smft_jax.prepare."""
