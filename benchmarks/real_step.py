"""A step of a lesson in a pretrained model, against its matrix products.

  python -m benchmarks.real_step [--path PATH] [--dtype DTYPE]
      [--out FILE.json] [--repeats R]

Without --path the weights are random, in the shape of SmolLM2-135M: 30 blocks,
D = 576, a vocabulary of 49,152. The memory is fitted beside one block, and the
batch is that of configs/docqa.py:world,hf. DTYPE is that of computation and
frozen weights, float32 or bfloat16. What the products take is their
operations over the rate of this machine, measured on the largest of them.
"""

from __future__ import annotations

import dataclasses
import time

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from smft_jax import flops
from smft_jax import hf
from smft_jax import memory
from smft_jax.data import batches
from smft_jax.methods import sparse_memory
from smft_jax.models import build
from smft_jax.models import layers
from smft_jax.training import forward
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

SMOLLM2 = layers.TransformerConfig(
  vocab_size=49_152,
  num_layers=30,
  model_dim=576,
  num_heads=9,
  num_kv_heads=3,
  head_dim=64,
  ffn_dim=1536,
  rope_theta=1e5,
)
# Rows, their length, texts that share a row, and tokens that bear a loss.
ROWS, LENGTH, TEXTS, COUNTED = 3, 96, 6, 64


def make_state(path: str | None, dtype: str) -> state_lib.TrainState:
  """Returns the state before a lesson."""
  config = SMOLLM2 if path is None else hf.load_config(path)
  config = dataclasses.replace(
    config,
    dtype=dtype,
    param_dtype=dtype,
    memory=memory.MemoryConfig(
      model_dim=config.model_dim,
      num_slots=512**2,
      num_heads=4,
      k=16,
      key_dim=config.model_dim // 4,
      gated=False,
      quorum=0.3,
    ),
    memory_layers=(config.num_layers // 4,),
    memory_placement='beside',
  )
  graphdef, params = build.make(config, 0)
  if path is not None:
    params = hf.load_params(path, params)
  method = sparse_memory.make(
    sparse_memory.Config(
      ranking='tf_idf_cubed',
      select='document',
      optimizer='adam',
      t=100,
      learning_rate=2.0,
    )
  )
  background = method_lib.Background(jnp.zeros(512**2), jnp.float32(1))
  return state_lib.init(nnx.merge(graphdef, params), method, background)


def make_batch(vocab_size: int) -> batches.Batch:
  """Returns a batch of random tokens."""
  rng = np.random.default_rng(0)
  shape = ROWS, LENGTH
  weights = np.zeros(ROWS * LENGTH, np.float32)
  counted = rng.choice(weights.size, COUNTED, replace=False).astype(np.int32)
  weights[counted] = 1.0
  return batches.Batch(
    rng.integers(0, vocab_size, shape).astype(np.int32),
    np.ones(shape, bool),
    weights.reshape(shape),
    segments=np.broadcast_to(
      1 + np.arange(LENGTH, dtype=np.int32) * TEXTS // LENGTH, shape
    ),
    counted=counted,
  )


def rate_of(config: layers.TransformerConfig) -> float:
  """Measures operations a second of the largest product of a step."""
  rng = np.random.default_rng(0)
  inputs = jnp.asarray(
    rng.standard_normal((ROWS * LENGTH, config.model_dim), np.float32),
    config.dtype,
  )
  shape = 8, config.model_dim, config.ffn_dim
  weights = jnp.asarray(rng.standard_normal(shape, np.float32), config.dtype)

  def products(inputs, weights):
    return jax.lax.map(
      lambda weight: jnp.sum(
        jnp.matmul(inputs, weight, preferred_element_type=jnp.float32)
      ),
      weights,
    )

  program, _ = harness.compile_form(products, inputs, weights)
  seconds = harness.interleave(
    {'products': lambda: jax.block_until_ready(program(inputs, weights))}, 9
  )
  return flops.matmul_flops(products, inputs, weights) / seconds['products']


def main() -> None:
  """Runs the program."""
  options = harness.parse(
    'A step of a lesson in a pretrained model.',
    path={'help': 'folder or GGUF file of the weights', 'default': None},
    dtype={
      'help': 'dtype of computation and frozen weights',
      'choices': ('float32', 'bfloat16'),
      'default': 'float32',
    },
  )
  state = make_state(options.path, options.dtype)
  config = nnx.merge(state.graphdef, state.params).config
  batch = make_batch(config.vocab_size)
  hidden = forward.hidden_below_memory(
    state.graphdef, state.params, batch.tokens, batch.mask, batch.segments
  )
  state = step_lib.begin_document(state, batch, hidden, 1)
  operations = flops.matmul_flops(step_lib.train_step, state, batch, hidden)
  began = time.monotonic()
  step_lib.train_step.lower(state, batch, hidden).compile()
  compile_s = time.monotonic() - began
  take_step = harness.stepper(
    lambda state: step_lib.train_step(state, batch, hidden), state
  )
  seconds = harness.interleave({'step': take_step}, options.repeats)['step']
  rate = rate_of(config)
  products_s = operations / rate
  tokens = int(batch.mask.sum())
  print(
    f'a step of {tokens} tokens in {options.dtype}: {seconds * 1e3:.0f} ms,'
    f' {tokens / seconds:,.0f} tokens/s\n'
    f'its {operations / 1e9:.0f} billion operations in matrix products, at'
    f' {rate / 1e9:.0f} billion a second: {products_s * 1e3:.0f} ms\n'
    f'compiling it: {compile_s:.1f} s'
  )
  times = {'a step': seconds, 'its matrix products': products_s}
  harness.finish(
    'real_step',
    {
      'step_s': seconds,
      'products_s': products_s,
      'operations': operations,
      'operations_per_s': rate,
      'compile_s': compile_s,
    },
    [
      harness.Claim('step / matrix products', seconds / products_s, 1.5),
      harness.Claim('compiling', compile_s, 20.0, unit=' s'),
    ],
    harness.bars('a step of a lesson', times),
    options.out,
  )


if __name__ == '__main__':
  main()
