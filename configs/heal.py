"""Puts memory into weights that were trained without, and heals it.

  python -m smft_jax.train --config=configs/heal.py --config.base.path=FOLDER
  python -m smft_jax.train --config=configs/heal.py:people \
      --config.base.path=FOLDER
  python -m smft_jax.train --config=configs/heal.py:text \
      --config.base.path=FOLDER --config.data.data_dir=DIR

FOLDER holds a Hugging Face checkpoint of the Llama family: config.json,
tokenizer.json, safetensors. The memory stands beside an FFN with its gate at
zero, so the model is at first what it was; then only the memory is trained, on
general text, and its health is told.

world (default): on the embedded world, whose words the tokenizer must have.
people: the same, then background and the stream of configs/docqa.py.
text: WikiText-2, SQuAD paragraphs and questions, as configs/pretrain.py has
  them; configs/facts.py:hf goes on from there. Never run to its end.
"""

import pathlib

from ml_collections import config_dict

from smft_jax import config_file

VARIANTS = ('world', 'people', 'text')

# What the weights say themselves.
SIZES = (
  'num_layers',
  'model_dim',
  'num_heads',
  'num_kv_heads',
  'head_dim',
  'ffn_dim',
)


def get_config(variant='world'):
  """The data of the other configs, their model from a folder."""
  files = {'world': 'docqa.py:world', 'people': 'docqa.py:world'}
  source = files.get(variant, 'facts.py:facts')
  config = config_file.load(str(pathlib.Path(__file__).with_name(source)))
  heal(config)
  if variant != 'people':
    del config.stream, config.method
  return config


def heal(config):
  """Takes the model of a config from a folder instead of making it."""
  for name in SIZES:
    del config.model[name]
  config.model.memory_placement = 'beside'
  config.base.path = config_dict.placeholder(str, required=True)
