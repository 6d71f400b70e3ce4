"""Turns texts into batches."""
