"""Teaches a base of real text 1000 TriviaQA facts, one fact a step.

  python -m smft_jax.train --config=configs/facts.py --config.data.data_dir=DIR
  python -m smft_jax.train --config=configs/facts.py:hf \
      --config.base.path=FOLDER --config.data.data_dir=DIR

The base is that of configs/pretrain.py:facts, made first where none is cached.

facts (default): the paper's fact task (arXiv 2510.15103) at the size of two
  cores: each step has 16 statements of one fact, padded, t = 500, SGD. 8
  minutes with the base cached. Expect the loss on answers to fall by 0.45 nats
  in phrasings that training shows and by 0.03 in others, that on Natural
  Questions to rise by 0.06. configs/compare.py has its rivals.
hf: from a folder of weights to a finetuned model: memory is put into them and
  healed, as configs/heal.py:text does and describes, the background counted,
  and the facts taught. Never run to its end; the rates are guesses.
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
    # Cubed idf: running text reads most slots, and idf alone spares too few.
    ranking='tf_idf_cubed',
    optimizer='sgd',
    t=500,
    learning_rate=300.0,
  )
  return config
