"""Adds memory to weights that were trained without it, and heals it.

  python -m smft_jax.train --config=configs/heal.py --config.base.path=PATH
  python -m smft_jax.train --config=configs/heal.py:jsonl \
      --config.base.path=PATH --config.data.documents_file=FILE

PATH is a Hugging Face folder of the Llama family or a GGUF file. A block gets
memory, and only the memory is trained. The report has measures before and
after, and how much of the table is used. configs/fit.py needs no training and
leaves the model as it was; see docs/guides/checkpoint.md. For a deep model set
place and size of the memory, such as --config.model.memory_layers=11
--config.memory.value_dim=1024.

world (default): for a model of the embedded world, as of
  configs/pretrain.py:plain, with memory in place of the FFN; the tokenizer must
  have the world's words. 400 steps, a third of those of configs/pretrain.py.
  Expect recall of the known facts to return; configs/docqa.py:world,heal
  continues.
squad, jsonl, simpleqa, facts: for a model that knows a language, with memory
  beside the FFN and its gate at zero, so that the model is unchanged at first.
  Trains on the background of configs/fit.py; configs/docqa.py:jsonl,heal and
  configs/facts.py:heal continue. Never run; the rates are guesses.
"""

import pathlib

from ml_collections import config_dict

from smft_jax.config import file as config_file

VARIANTS = ('world', 'squad', 'jsonl', 'simpleqa', 'facts')


def get_config(variant='world'):
  """Pretrained weights, with a memory that was trained."""
  here = pathlib.Path(__file__)
  pretrain = config_file.load(f'{here.with_name("pretrain.py")}:{variant}')
  if variant == 'world':
    config = pretrain
    batches = dict(num_batches=32, batch_size=256)
  else:
    config = config_file.load(f'{here.with_name("fit.py")}:{variant}')
    config.memory = pretrain.memory
    config.base = pretrain.base
    batches = dict(num_batches=128, batch_size=8)
  # The weights have the other sizes. A model that knows the healing text by
  # heart needs no memory beside its FFN, and its gates would stay shut.
  config.model = dict(
    memory_layers=pretrain.model.memory_layers,
    memory_placement='replace' if variant == 'world' else 'beside',
  )
  config.base.path = config_dict.placeholder(str, required=True)
  config.base.steps = 400
  config.background = dict(document='sequence', **batches)
  return config
