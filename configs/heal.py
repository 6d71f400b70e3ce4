"""Adds memory to weights that were trained without it, and heals it.

  python -m smft_jax.train --config=configs/heal.py --config.base.path=FOLDER
  python -m smft_jax.train --config=configs/heal.py:text \
      --config.base.path=FOLDER --config.data.data_dir=DIR

FOLDER holds a Hugging Face checkpoint of the Llama family: config.json,
tokenizer.json, safetensors; a GGUF file does as well. A block gets memory, and
only the memory is trained, on general text. The report has measures before and
after, and how much of the table is used. For a deep model set place and size of
the memory, such as --config.model.memory_layers=11
--config.memory.value_dim=1024.

world (default): trains on the embedded world, with memory in place of the FFN;
  the tokenizer must have the world's words. 400 steps, a third of those of
  configs/pretrain.py. Expect recall of the known facts to return;
  configs/docqa.py:hf continues.
text: trains on the real text of configs/pretrain.py, with memory beside the FFN
  and its gate at zero, so that the model is unchanged at first;
  configs/facts.py:hf continues. Never run; the rates are guesses.
"""

import pathlib

from ml_collections import config_dict

from smft_jax.config import file as config_file

VARIANTS = ('world', 'text')


def get_config(variant='world'):
  """The bases of configs/pretrain.py, from a folder."""
  pretrain = pathlib.Path(__file__).with_name('pretrain.py')
  kind = 'world' if variant == 'world' else 'facts'
  config = config_file.load(f'{pretrain}:{kind}')
  # The folder has the other sizes. A model that knows the healing text by heart
  # needs no memory beside its FFN, and its gates would stay shut.
  config.model = dict(
    memory_layers=config.model.memory_layers,
    memory_placement='replace' if variant == 'world' else 'beside',
  )
  config.base.path = config_dict.placeholder(str, required=True)
  config.base.steps = 400
  config.background = dict(document='sequence', num_batches=32, batch_size=256)
  if variant == 'text':
    config.background.update(dict(num_batches=128, batch_size=8))
  return config
