"""Runs an experiment: makes its base, streams its documents, measures it."""
