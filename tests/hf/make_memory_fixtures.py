"""Makes the checkpoints of tests/fixtures/hf_memory, with what PyTorch gives.

  SMFT_TORCH_PYTHON=PYTHON python -m tests.hf.make_memory_fixtures

PYTHON is an interpreter with torch and transformers. Those here are of torch
2.14.1 and transformers 5.24. Make them anew when modeling_smft.py changes.
"""

import dataclasses
import hashlib
import pathlib
import shutil
import tempfile

from flax import nnx
import jax.numpy as jnp
import numpy as np

from smft_jax import hf
from smft_jax import memory
from smft_jax import retrofit
from smft_jax.hf import memory_file
from smft_jax.models import transformer
from tests.support import by_transformers
from tests.support import hf_folders
from tests.support import repository

FOLDER = repository.ROOT / 'tests' / 'fixtures' / 'hf_memory'
NAMES = ('fitted', 'trained', 'shared')
LENGTH, COUNT = 24, 8

SIZES = {'model_dim': 16, 'num_slots': 49, 'num_heads': 2, 'k': 4, 'key_dim': 6}


def make(name):
  """A small random model with memory, which changes most of its logits."""
  if name == 'fitted':
    config = memory.MemoryConfig(**SIZES, gated=False, quorum=0.4)
    model = _retrofitted('llama_3', config, ['blocks/0/mlp', 'blocks/1/mlp'])
  elif name == 'trained':
    config = memory.MemoryConfig(**SIZES, value_dim=6, qk_norm=False)
    model = _retrofitted('qwen3', config, ['blocks/1/mlp'])
  else:
    config = memory.MemoryConfig(**SIZES, quorum=0.2, value_dtype='bfloat16')
    folder = hf_folders.FOLDER / 'qwen2'
    decoder = dataclasses.replace(
      hf.load_config(folder), memory=config, memory_layers=(0, 1)
    )
    graphdef, fresh = nnx.split(
      transformer.Transformer(decoder, rngs=nnx.Rngs(0))
    )
    model = nnx.merge(graphdef, hf.load_params(folder, fresh))
  random = np.random.default_rng(0)

  def fill(_, variable):
    value = variable.get_value()
    if isinstance(variable, memory.SlotLessons):
      array = random.integers(0, 3, value.shape)
    elif isinstance(variable, memory.MemoryParam):
      array = random.normal(size=value.shape)
    else:
      return variable
    return variable.replace(jnp.asarray(array, value.dtype))

  graphdef, state = nnx.split(model)
  return nnx.merge(graphdef, nnx.map_state(fill, state))


def _retrofitted(name, config, paths):
  model = hf.load_model(hf_folders.FOLDER / name)
  return retrofit.add_memory(model, config, paths, rngs=nnx.Rngs(0))


def code_digest():
  return hashlib.sha256(memory_file.CODE.read_bytes()).hexdigest()


def prompts(vocab_size):
  """Tokens and mask, with padding on the left of the second row."""
  random = np.random.default_rng(1)
  mask = np.ones((2, LENGTH), bool)
  mask[1, :9] = False
  tokens = random.integers(1, vocab_size, mask.shape)
  return np.where(mask, tokens, 0), mask


def main() -> None:
  """Writes a folder for each model."""
  shutil.rmtree(FOLDER, ignore_errors=True)
  for name in NAMES:
    model = make(name)
    tokens, mask = prompts(model.config.vocab_size)
    folder = FOLDER / name
    hf.save_model(model, folder)
    with tempfile.TemporaryDirectory() as place:
      found = by_transformers.run(
        folder, pathlib.Path(place), tokens, mask, COUNT
      )
    (folder / memory_file.CODE.name).unlink()
    np.savez_compressed(
      folder / 'logits.npz',
      tokens=tokens,
      mask=mask,
      logits=found['logits'],
      answers=found['answers'],
      code=code_digest(),
    )


if __name__ == '__main__':
  main()
