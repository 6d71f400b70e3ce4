"""Finetunes a base of real text on 1000 TriviaQA facts, one fact a step.

  python -m smft_jax.train --config=configs/facts.py --config.data.data_dir=DIR
  python -m smft_jax.train --config=configs/facts.py:hf \
      --config.base.path=FOLDER --config.data.data_dir=DIR

The base of configs/pretrain.py:facts is made first, unless it is cached.

facts (default): the paper's fact task (arXiv:2510.15103), sized for two cores:
  a step has 16 statements of one fact, t = 500, SGD. 8 minutes with the base
  cached. Expect the loss on answers to fall by 0.45 nats in phrasings that
  training shows and by 0.03 in others, and the loss on Natural Questions to
  rise by 0.06. For other methods see configs/compare.py.
hf: starts from a folder of weights: adds memory and heals it as
  configs/heal.py:text does, then learns the facts. Never run to its end; the
  rates are guesses.
"""

import pathlib

from smft_jax.config import file as config_file

VARIANTS = ('facts', 'hf')


def get_config(variant='facts'):
  """Sparse memory finetuning on single facts."""
  source = 'heal.py:text' if variant == 'hf' else 'pretrain.py:facts'
  config = config_file.load(str(pathlib.Path(__file__).with_name(source)))
  config.data.num_facts = 1000
  config.background = dict(document='sequence', num_batches=128, batch_size=8)
  config.stream = dict(steps_per_document=1, batch_size=16)
  config.evaluation.every_documents = config.data.num_facts
  config.method = dict(
    name='sparse_memory',
    update='rows',
    # Cubed idf: running text reads most slots, and plain idf spares too few.
    ranking='tf_idf_cubed',
    optimizer='sgd',
    t=500,
    learning_rate=300.0,
  )
  return config
