"""Measures what a model knows."""
