"""Exports of runs: with a memory, with adapters, and in ordinary weights."""

import dataclasses
import json

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import export
from smft_jax import hf
from smft_jax import schema
from smft_jax.runs import states
from smft_jax.runtime import program
from tests.support import decoders
from tests.support import hf_folders
from tests.support import tiny_run

pytestmark = pytest.mark.usefixtures('quick_runs')

EMPTY = dataclasses.replace(
  decoders.MEMORY, value_dim=14, gated=False, quorum=0.2
)


def exported(workdir, out, *more):
  argv = [f'--workdir={workdir}', f'--out={out}', *more]
  return program.run(export.main, argv)


def test_adapters_are_added_to_the_weights(learned_run, tmp_path):
  _, experiment, _ = learned_run  # whose base is in the cache
  config = tiny_run.make(
    base__cache_dir=experiment.base.cache_dir,
    memory__num_slots=289,
    method={'name': 'lora', 'learning_rate': 0.1},
  )
  experiment, base = tiny_run.learn(tmp_path / 'run', config)
  assert exported(tmp_path / 'run', tmp_path / 'out') == 0
  state = states.last_state(experiment, base, tmp_path / 'run')
  tokens = decoders.tokens_of(2, 9)
  found, expected, before = (
    np.asarray(decoders.logits_of(model, tokens))
    for model in (
      hf.load_model(tmp_path / 'out'),
      nnx.merge(state.graphdef, state.params),
      hf_folders.merged(base),
    )
  )
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  assert np.abs(found - before).max() > 1e-2
  # An answer ends where the tokenizer says, also in `transformers`.
  generation = (tmp_path / 'out' / 'generation_config.json').read_text()
  ends = {'eos_token_id': list(base.tokenizer.end_ids)}
  assert json.loads(generation) == ends


def test_a_memory_is_not_merged(learned_run, tmp_path, capsys):
  workdir, *_ = learned_run
  assert exported(workdir, tmp_path / 'no', '--format=merged') == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert said.startswith('error: the memory cannot be merged into ordinary')
  assert 'in place of a feed-forward layer; --format=hf keeps it' in said
  assert not (tmp_path / 'no').exists()


def test_a_memory_that_holds_nothing_is_left_out(tmp_path):
  model = decoders.make_model(
    memory=EMPTY, memory_layers=(1,), memory_placement='beside'
  )
  with pytest.raises(schema.UserError, match='it was taught, and every token'):
    export.without_memory(model)
  model.pool[...] = jnp.zeros_like(model.pool[...])
  plain = export.without_memory(model)
  assert plain.config.memory is None
  assert export.without_memory(plain) is plain
  tokens = decoders.tokens_of(2, 9)
  np.testing.assert_array_equal(
    decoders.logits_of(plain, tokens), decoders.logits_of(model, tokens)
  )
  hf.save_model(plain, tmp_path)
  names = {file.name for file in tmp_path.iterdir()}
  assert names == {'config.json', 'model.safetensors'}
