"""Finetunes the memory of a base model on a stream of new documents.

  python -m smft_jax.train --config=configs/docqa.py
  python -m smft_jax.train --config=configs/docqa.py:squad \
      --config.data.data_dir=DIR
  python -m smft_jax.train --config=configs/docqa.py:jsonl \
      --config.data.data_dir=DIR --config.data.documents_file=FILE
  python -m smft_jax.train --config=configs/docqa.py:simpleqa \
      --config.data.data_dir=DIR --config.data.documents_file=PAGES

The base of configs/pretrain.py (for hf that of configs/heal.py) is made first,
unless it is cached.

world (default): 8 minutes on two cores, 1.5 of them after the base. With seed 0
  expect 0.92 recall of the new facts in unseen phrasings and 1% of the known
  facts lost; over seeds 0.83 to 0.92, and up to 3%.
hf: the same stream, for weights that were trained without memory
  (--config.base.path=FOLDER) and are healed first. With weights of
  configs/pretrain.py:plain expect 0.75 recall, and 2% of the known facts lost.
squad, jsonl, simpleqa: real text; docs/numbers.md has results.
"""

import pathlib

from smft_jax.config import file as config_file

VARIANTS = ('world', 'hf', 'squad', 'jsonl', 'simpleqa')


def get_config(variant='world'):
  """Sparse memory finetuning as in the paper: TF-IDF, SGD, t rows a step."""
  source = 'heal.py:world' if variant == 'hf' else f'pretrain.py:{variant}'
  config = config_file.load(str(pathlib.Path(__file__).with_name(source)))
  config.method = dict(
    name='sparse_memory', update='rows', ranking='tf_idf', optimizer='sgd'
  )
  if variant in ('world', 'hf'):
    config.background = dict(num_batches=32, batch_size=256)
    config.stream = dict(steps_per_document=16, batch_size=32)
    rate = 150.0 if variant == 'hf' else 30.0
    config.method.update(dict(t=300, learning_rate=rate))
  else:
    config.background = dict(num_batches=128, batch_size=8)
    config.stream = dict(steps_per_document=4, batch_size=8)
    # Cubed idf: running text reads most slots, and plain idf spares too few.
    config.method.update(
      dict(ranking='tf_idf_cubed', t=4000, learning_rate=300.0)
    )
  config.background.document = 'sequence'
  return config
