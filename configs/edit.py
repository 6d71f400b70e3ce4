"""Teaches a pretrained model knowledge edits, one after another.

  python -m smft_jax.train --config=configs/edit.py --config.base.path=PATH \
      --config.data.edits_file=FILE

PATH is a Hugging Face folder or a GGUF file; configs/fit.py fits a memory to
it. FILE has edits in the format that editing toolkits share,
docs/guides/edits.md; examples/edits.py writes one.

Each edit is measured right after it is taught, and again after the last one.
"""

import pathlib

from smft_jax.config import file as config_file


def get_config():
  """Sparse memory finetuning on single edits."""
  source = pathlib.Path(__file__).with_name('fit.py')
  config = config_file.load(f'{source}:edits')
  config.stream = dict(
    steps_per_document=12,
    batch_size=2,
    max_length=96,
    packed=True,
    context_weight=0.0,
  )
  config.method = dict(
    name='sparse_memory',
    update='rows',
    ranking='tf_idf_cubed',
    optimizer='adam',
    select='document',
    grows_background=True,
    t=150,
    learning_rate=1.0,
    schedule='wsd',
  )
  config.evaluation.update(dict(max_entries=50))
  return config
