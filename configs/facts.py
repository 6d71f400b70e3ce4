"""Teaches a base of real text 1000 TriviaQA facts, one fact a step.

  python -m smft_jax.train --config=configs/facts.py --config.data.data_dir=DIR

The base is that of configs/pretrain.py:facts, made first where none is cached.

The paper's fact task (arXiv 2510.15103) at the size of two cores: each step has
16 statements of one fact, padded, t = 500, SGD. configs/compare.py has its
rivals.
"""

import pathlib

from smft_jax import config_file


def get_config():
  """Sparse memory finetuning on single facts."""
  pretrain = pathlib.Path(__file__).with_name('pretrain.py')
  config = config_file.load(f'{pretrain}:facts')
  config.data.num_facts = 1000
  config.background = dict(document='sequence', num_batches=128, batch_size=8)
  config.stream = dict(steps_per_document=1, batch_size=16)
  config.evaluation.every_documents = config.data.num_facts
  config.method = dict(
    name='sparse_memory',
    update='rows',
    # Cubed idf: running text reads most slots, and idf alone spares too few.
    ranking='tf_idf_cubed',
    optimizer='sgd',
    t=500,
    learning_rate=300.0,
  )
  return config
