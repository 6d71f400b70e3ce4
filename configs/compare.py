"""Compares sparse memory, full finetuning and LoRA on the same real text.

  python -m smft_jax.sweep --config=configs/compare.py \
      --config.data.data_dir=DIR
  python -m benchmarks.equal_nll runs/compare

Each method runs at several rates; the benchmark compares them at the same loss
on the answers. The base takes 35 minutes on two cores, unless it is cached.

facts (default): 200 facts of configs/facts.py. At half of what sparse memory
  can learn, expect full finetuning to lose 7 to 16 times as much on the
  held-out sets.
squad: 20 paragraphs of configs/docqa.py:squad, in runs/compare-squad.
"""

import pathlib

from smft_jax.config import file as config_file

VARIANTS = ('facts', 'squad')

RATES = {
  'facts': {
    'sparse_memory': (30.0, 100.0, 300.0, 600.0),
    'full': (1e-5, 3e-5, 1e-4, 3e-4),
    'lora': (3e-5, 1e-4, 3e-4, 1e-3),
  },
  'squad': {
    'sparse_memory': (100.0, 300.0, 1000.0),
    'full': (3e-5, 1e-4),
    'lora': (3e-4, 1e-3),
  },
}


def get_config(variant='facts'):
  """configs/facts.py or configs/docqa.py with a shorter stream."""
  here = pathlib.Path(__file__)
  if variant == 'facts':
    config = config_file.load(f'{here.with_name("facts.py")}')
    config.data.num_facts = 200
    # More slots at a lower rate forget less than the 500 of configs/facts.py.
    config.method.t = 2000
  else:
    config = config_file.load(f'{here.with_name("docqa.py")}:squad')
    config.data.num_documents = 20
    config.evaluation.max_entries = 200
  config.evaluation.every_documents = 1000  # only before and after
  return config


def sweep(add, variant='facts'):
  """Adds each method at each of its rates."""
  for method, rates in RATES[variant].items():
    for rate in rates:
      point = {'method.name': method, 'method.learning_rate': rate}
      add(f'{method}-learning_rate={rate:g}', point, method=method)
