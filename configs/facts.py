"""Finetunes a base on 1000 TriviaQA facts, one fact a step.

  python -m smft_jax.train --config=configs/facts.py --config.data.data_dir=DIR
  python -m smft_jax.train --config=configs/facts.py:hf \
      --config.base.path=PATH --config.data.data_dir=DIR

The base is made first, unless it is cached.

facts (default): the base of configs/pretrain.py:facts, and the paper's fact
  task (arXiv:2510.15103), sized for two cores: a step has 16 statements of one
  fact, t = 500, SGD. 8 minutes with the base cached. Expect the loss on answers
  to fall by 0.45 nats in phrasings that training shows and by 0.03 in others,
  and the loss on Natural Questions to rise by 0.06. For other methods see
  configs/compare.py.
hf: a pretrained model with a memory fitted to it, configs/fit.py:facts. PATH is
  a Hugging Face folder or a GGUF file. Never run to its end.
heal: the same with a memory that is trained, configs/heal.py:facts. Never run
  to its end; the rates are guesses.
"""

import pathlib

from smft_jax.config import file as config_file

_BASES = {'facts': 'pretrain.py', 'hf': 'fit.py', 'heal': 'heal.py'}
VARIANTS = tuple(_BASES)


def get_config(variant='facts'):
  """Sparse memory finetuning on single facts."""
  source = pathlib.Path(__file__).with_name(_BASES[variant])
  config = config_file.load(f'{source}:facts')
  config.data.num_facts = 1000
  config.stream = dict(steps_per_document=1, batch_size=16)
  config.evaluation.every_documents = config.data.num_facts
  if variant == 'hf':
    config.method = dict(
      name='sparse_memory',
      update='rows',
      ranking='tf_idf_squared',
      optimizer='adam',
      select='document',
      t=100,
      learning_rate=0.4,
    )
    config.stream.update(dict(steps_per_document=16, context_weight=0.0))
    return config
  config.background = dict(document='sequence', num_batches=128, batch_size=8)
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
