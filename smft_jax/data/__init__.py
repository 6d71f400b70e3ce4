"""Texts in: worlds and documents as tasks, tokenizers, batches."""
