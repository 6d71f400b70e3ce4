"""Puts memory into weights that were trained without, and heals it.

  python -m smft_jax.train --config=configs/heal.py --config.base.path=FOLDER
  python -m smft_jax.train --config=configs/heal.py:text \
      --config.base.path=FOLDER --config.data.data_dir=DIR

FOLDER holds a Hugging Face checkpoint of the Llama family: config.json,
tokenizer.json, safetensors. Memory is put into a block, and only the memory is
trained, on general text. Told are the measures before and after, and whether
the table is used. For a deep model say where memory goes, and how large it is:
--config.model.memory_layers=11, --config.memory.value_dim=1024.

world (default): the texts of the embedded world, whose words the tokenizer must
  have; the FFN's place is taken. Expect what was known to be known again.
  configs/docqa.py:hf goes on from there.
text: WikiText-2, SQuAD paragraphs and questions, as in configs/pretrain.py;
  beside the FFN, with a gate at zero, so that the model is at first what it
  was. configs/facts.py:hf goes on from there. Never run: its rates are guesses.
"""

import pathlib

from ml_collections import config_dict

from smft_jax.config import file as config_file

VARIANTS = ('world', 'text')


def get_config(variant='world'):
  """The bases of configs/pretrain.py, out of a folder."""
  pretrain = pathlib.Path(__file__).with_name('pretrain.py')
  kind = {'world': 'world', 'text': 'facts'}[variant]
  config = config_file.load(f'{pretrain}:{kind}')
  # The weights say the rest. A model that knows the healing text by heart needs
  # no memory beside its FFN, and its gates stay shut.
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
