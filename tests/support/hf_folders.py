"""The Hugging Face folders among the fixtures."""

from flax import nnx
import numpy as np

from smft_jax import hf
from smft_jax.models import transformer
from tests.support import decoders
from tests.support import repository

FOLDER = repository.ROOT / 'tests' / 'fixtures' / 'hf'
NAMES = ('llama', 'llama_3', 'llama_bf16', 'qwen2', 'qwen3')


def bits_of(model):
  return {
    path: np.asarray(variable.get_value()).tobytes()
    for path, variable in nnx.to_flat_state(nnx.state(model))
  }


def memory_model(placement):
  return decoders.make_model(
    num_layers=1,
    memory=decoders.MEMORY,
    memory_layers=(0,),
    memory_placement=placement,
    qkv_bias=True,
    tie_embeddings=False,
  )


def save_random(config, folder):
  """Saves a random decoder without memory, as others publish one."""
  hf.save_model(transformer.Transformer(config, rngs=nnx.Rngs(5)), folder)


def merged(base, params=None):
  """The model of a base, with its own or other parameters."""
  return nnx.merge(base.graphdef, base.params if params is None else params)
