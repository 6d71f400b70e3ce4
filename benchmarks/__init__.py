"""Programs that measure: python -m benchmarks.NAME [--out FILE]."""
