"""Examples of the real data sets, as they lie in the files."""

from smft_jax.data.sources import problems
from smft_jax.data.sources import tfds_files


def examples(name: str, split: str, data_dir: str) -> list[dict]:
  """All examples of a split, text decoded."""
  found = tfds_files.read_examples(
    name, split, data_dir, problems.Problems('refuse')
  )
  return [dict(row.fields) for row in found]
