"""Everything that takes an Experiment: making a base, streaming, measuring."""
