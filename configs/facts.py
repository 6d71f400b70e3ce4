"""Teaches a base of real text 1000 TriviaQA facts, one fact a step.

  python -m smft_jax.train --config=configs/facts.py --config.data.data_dir=DIR
  python -m smft_jax.train --config=configs/facts.py:hf \
      --config.base.path=FOLDER --config.data.data_dir=DIR
  python -m smft_jax.sweep --config=configs/facts.py:compare \
      --config.data.data_dir=DIR

The base is that of configs/pretrain.py:facts, made first where none is cached.

facts (default): the paper's fact task (arXiv 2510.15103) at the size of two
  cores: each step has 16 statements of one fact, padded, t = 500, SGD.
hf: from a folder of weights to a finetuned model: memory is put into them and
  healed, as configs/heal.py:text does and describes, the background counted,
  and the facts taught. Never run to its end; the rates are guesses.
compare: sparse memory, full finetuning and LoRA at several rates each, on 300
  facts; `python -m benchmarks.equal_nll runs/facts-compare` puts them side by
  side at the same loss on the answers. Never run; the rates are guesses.
"""

import pathlib

from smft_jax import config_file

VARIANTS = ('facts', 'hf', 'compare')

RATES = {
  'sparse_memory': (30.0, 100.0, 300.0, 1000.0),
  'full': (1e-5, 3e-5, 1e-4, 3e-4),
  'lora': (1e-4, 3e-4, 1e-3, 3e-3),
}


def get_config(variant='facts'):
  """Sparse memory finetuning on single facts."""
  source = 'heal.py:text' if variant == 'hf' else 'pretrain.py:facts'
  config = config_file.load(str(pathlib.Path(__file__).with_name(source)))
  config.data.num_facts = 300 if variant == 'compare' else 1000
  config.background = dict(document='sequence', num_batches=128, batch_size=8)
  config.stream = dict(steps_per_document=1, batch_size=16)
  config.evaluation.every_documents = config.data.num_facts
  config.method = dict(
    name='sparse_memory',
    update='rows',
    ranking='tf_idf',
    optimizer='sgd',
    t=500,
    learning_rate=300.0,
  )
  return config


def sweep(add, variant='compare'):
  """Adds each method at each of its rates."""
  for method, rates in RATES.items():
    for rate in rates:
      add(
        f'{method}-learning_rate={rate:g}',
        {'method.name': method, 'method.learning_rate': rate},
        method=method,
      )
