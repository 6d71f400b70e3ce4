"""The paper's scale: its config, and the benchmark that compiles its step."""

import dataclasses
import importlib.util
import json
import math
import types

import jax
import jax.numpy as jnp
import pytest

from benchmarks import paper_1b
from smft_jax.compile import compiled
from smft_jax.compile import shapes
from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.data import task
from smft_jax.runs import base_cache
from smft_jax.runtime import program
from smft_jax.training import state as state_lib

CONFIG = 'configs/paper_1b.py'
DATA = tuple(
  f'--config.data.{name}=x'
  for name in ('running_text', 'held_out_text', 'documents_file')
)


def parse(config=CONFIG, *more):
  invocation = command_line.parse([f'--config={config}', *DATA, *more])
  return config_lib.from_config_dict(invocation.config)


@pytest.mark.parametrize(
  ('variant', 't'), [('facts', 500), ('documents', 10**4)]
)
def test_the_config_is_that_of_the_paper(variant, t):
  experiment = parse(f'{CONFIG}:{variant}')
  assert variant == 'documents' or experiment == parse()
  model, memory = experiment.model, experiment.memory
  assert (model.num_layers, model.model_dim, model.ffn_dim) == (22, 2048, 8192)
  # The twelfth layer, counted from 1.
  assert model.memory_layers == (11,)
  assert model.memory_placement == 'replace'
  assert (memory.num_slots, memory.value_dim) == (1024**2, 1024)
  assert (memory.num_heads, memory.k) == (4, 32)
  method, stream = experiment.method, experiment.stream
  assert (method.ranking, method.optimizer) == ('tf_idf', 'sgd')
  assert (method.t, method.learning_rate) == (t, 2.0)
  assert (stream.batch_size, stream.steps_per_document) == (64, 1)
  assert stream.max_length == (64 if variant == 'facts' else 512)
  assert experiment.data.augmentations == 64
  background = experiment.background
  assert (background.document, background.num_batches) == ('batch', 1000)


def test_it_has_the_parameters_of_the_paper():
  params = shapes.state(paper_1b.load('facts'), 32768).params
  table = state_lib.value_table(params)
  assert table.shape == (1024**2, 1024)
  without_table = paper_1b.count(params) - table.size
  assert without_table == pytest.approx(1.3e9, rel=0.05)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype(jnp.float32)
  }


def test_bases_of_two_dtypes_are_cached_apart():
  empty = task.Task(
    pretraining=(), documents=(), questions={}, texts={}, counts={}
  )
  folders = {
    base_cache.folder(parse(CONFIG, f'--config.model.dtype={dtype}'), empty)
    for dtype in ('bfloat16', 'float32')
  }
  assert len(folders) == 2


@pytest.fixture
def tiny(monkeypatch):
  """The benchmark on a model of the same kind in seconds."""
  sizes = (
    *('model.num_layers=3', 'model.model_dim=14', 'model.ffn_dim=19'),
    *('model.memory_layers=1', 'model.num_heads=2', 'model.num_kv_heads=1'),
    *('model.head_dim=6', 'memory.num_slots=121', 'memory.value_dim=10'),
    *('memory.num_heads=2', 'memory.k=3', 'memory.key_dim=6', 'method.t=7'),
    *('data.tokenizer_vocab_size=263', 'stream.batch_size=5'),
    'stream.max_length=11',
  )
  experiment = parse(CONFIG, *(f'--config.{size}' for size in sizes))
  monkeypatch.setattr(paper_1b, 'load', lambda *_: experiment)
  return experiment


def test_the_benchmark_times_the_step_and_writes_it_down(
  tiny, tmp_path, capsys, quick_compilation
):
  del tiny, quick_compilation
  paper_1b.main(['--repeats=2', f'--out={tmp_path / "numbers.json"}'])
  printed = capsys.readouterr().out
  assert 'median of 2' in printed
  assert 'results not written in place: ' in printed
  results = json.loads((tmp_path / 'numbers.json').read_text())['results']
  assert results['step_s'] > 0
  assert results['memory_bytes']['temporaries'] > 0
  assert (tmp_path / 'numbers.svg').exists()


def test_needed_are_all_matrices_forward_and_those_above_backward(tiny):
  params = shapes.state(tiny, tiny.data.tokenizer_vocab_size).params
  attention = 14 * (12 + 6 + 6) + 12 * 14
  above = attention + 3 * 14 * 19 + 2 * 14
  memory = 14 * 12 + 2 * 2 * 11 * 3 + 2 * 2 * 3 + 2 * 14 * 10
  head = 263 * 14
  forward = 2 * above + attention + 2 * 14 + memory + head + 14
  pairs = 5 * 11 * 11 * 12
  flops, accessed = paper_1b.needed(tiny, params, 11)
  assert flops == (2 * 5 * 11 * (forward + above + head) + 4 * pairs * (3 + 2))
  assert accessed == 4 * (forward + above + head + 5 * 11 * 2 * 3 * 10)


def on_device(array):
  return compiled.on_device(jax.devices()[0], array)


@pytest.mark.parametrize('donated', [True, False])
def test_a_table_written_in_place_is_no_array_made(donated):
  def write(table):
    return table.at[jnp.array([2, 3])].set(jnp.ones((2, 5)))

  step = jax.jit(write, donate_argnums=(0,) if donated else ())
  program = compiled.compile_for(step, on_device(jnp.ones((7, 5))))
  assert (compiled.arrays_made(program.text, (7, 5)) == []) == donated
  in_place = program.memory['results not in place'] == 0
  assert in_place == donated


def test_a_program_that_does_not_fit_is_no_crash():
  def refuse(message):
    def compile():
      raise jax.errors.JaxRuntimeError(message)

    lowered = types.SimpleNamespace(compile=compile)
    return types.SimpleNamespace(lower=lambda *_: lowered)

  refused = compiled.compile_for(
    refuse('RESOURCE_EXHAUSTED: HLO temporaries (2.5G) exceeds 1G.\nmore'),
    on_device(jnp.ones((7, 5))),
  )
  assert refused.run is None
  assert refused.refusal == 'HLO temporaries (2.5G) exceeds 1G.'
  assert refused.peak == 2.5 * 2**30 + 7 * 5 * 4
  unknown = compiled.compile_for(refuse('RESOURCE_EXHAUSTED: '))
  assert unknown.peak == math.inf
  with pytest.raises(jax.errors.JaxRuntimeError, match='a bug'):
    compiled.compile_for(refuse('INTERNAL: a bug'))


def test_bad_input_is_one_line_and_exit_code_2(capsys, monkeypatch):
  with pytest.raises(SystemExit) as exit_:
    paper_1b.main(['--variant=fact'])
  assert exit_.value.code == 2
  assert "invalid choice: 'fact'" in capsys.readouterr().err
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert program.run(paper_1b.main, ['--topology=v5e:1x1']) == 2
  expected = 'error: --topology needs libtpu: pip install "smft-jax[tpu]"\n'
  assert capsys.readouterr().err == expected


def test_an_unknown_tpu_is_refused(capsys, monkeypatch):
  pytest.importorskip('libtpu')
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  assert program.run(paper_1b.main, ['--topology=v9:2x2']) == 2
  assert 'error: --topology=v9:2x2 is unknown;' in capsys.readouterr().err


@pytest.mark.slow
def test_the_step_compiles_for_an_absent_tpu(tiny, capsys, monkeypatch):
  # A table too large for the chip's fast memory, which XLA would copy it to.
  memory = dataclasses.replace(tiny.memory, num_slots=2**20, value_dim=128)
  large = dataclasses.replace(tiny, memory=memory)
  monkeypatch.setattr(paper_1b, 'load', lambda variant: large)
  pytest.importorskip('libtpu')
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  paper_1b.main(['--topology=v5e:1x1'])
  printed = capsys.readouterr().out
  assert "other arrays of the table's size: 0" in printed
  assert 'ms a step' not in printed
