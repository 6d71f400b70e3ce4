"""The claims on speed that can be read off the compiled programs.

Times are measured by `python -m benchmarks.NAME`, never here.
"""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import lookup as lookup_benchmark
from benchmarks import search as search_benchmark
from benchmarks import train_step as train_step_benchmark
from benchmarks import update_step
from smft_jax import flops
from smft_jax import lookup
from smft_jax.methods import full
from smft_jax.training import forward
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import decoders
from tests.support import steps

T, A, V, SELECTED = 13, 5, 7, 11


@pytest.fixture
def small(monkeypatch):
  """Benchmarks of a size that takes no time."""
  for module in (lookup_benchmark, update_step):
    monkeypatch.setattr(module, 'TOKENS', T)
    monkeypatch.setattr(module, 'ACCESSES', A)
    monkeypatch.setattr(module, 'VALUE_DIM', V)
  monkeypatch.setattr(update_step, 'SELECTED', SELECTED)
  names = list(update_step.SIZES)
  monkeypatch.setattr(
    update_step, 'SIZES', {n: 1009 * 2**i for i, n in enumerate(names)}
  )
  sizes = {'small': (T, 2, 11, 6, 3)}
  monkeypatch.setattr(search_benchmark, 'SIZES', sizes)
  monkeypatch.setattr('benchmarks.peers.installed', lambda: False)


def update_arguments(num_slots, table):
  """What the steps of the benchmark take."""
  reads = update_step.draw(num_slots)
  drawn = (reads.slot_ids, reads.weights, reads.target)
  return (
    table,
    update_step._SGD.init(table),
    *map(jnp.asarray, (*drawn, reads.document_frequency)),
  )


@pytest.mark.usefixtures('small')
def test_update_makes_nothing_that_grows_with_the_table():
  few, many = 20_011, 80_021  # primes, far more than accesses
  temporaries = set()
  for num_slots in (few, many):
    arguments = update_arguments(num_slots, jnp.zeros((num_slots, V)))
    step = jax.jit(update_step.rows_step, donate_argnums=(0, 1))
    program = step.lower(*arguments).compile()
    sizes = program.memory_analysis()
    temporaries.add(sizes.temp_size_in_bytes)
    assert sizes.alias_size_in_bytes == num_slots * V * 4  # in place
    assert sizes.temp_size_in_bytes < num_slots * 4
    made = re.findall(
      rf'= \w+\[{num_slots}[,\]]\S* ([\w-]+)\(', program.as_text()
    )
    assert 'parameter' in made
    assert not {'copy', 'broadcast', 'multiply', 'add', 'select'} & set(made)
  assert len(temporaries) == 1


@pytest.mark.usefixtures('small')
def test_rows_and_dense_updates_of_the_benchmark_agree():
  table = jax.random.normal(jax.random.key(0), (1009, V))
  arguments = update_arguments(1009, table)
  rows, _ = jax.jit(update_step.rows_step)(*arguments)
  dense, _ = jax.jit(update_step.dense_step)(*arguments)
  np.testing.assert_array_equal(rows != table, dense != table)
  changed = jnp.any(rows != table, axis=1)
  assert int(jnp.sum(changed)) == SELECTED
  np.testing.assert_allclose(rows, dense, rtol=1e-6, atol=1e-7)


def test_reads_make_no_array_of_all_gathered_rows():
  tokens, accesses, value_dim = 2051, 67, 64
  shapes = (
    jax.ShapeDtypeStruct((4099, value_dim), jnp.float32),
    jax.ShapeDtypeStruct((tokens, accesses), jnp.int32),
    jax.ShapeDtypeStruct((tokens, accesses), jnp.float32),
    jax.ShapeDtypeStruct((tokens, value_dim), jnp.float32),
  )

  def read_and_gradient(values, slot_ids, weights, gradient):
    read, pull_back = jax.vjp(
      lambda w: lookup.read_rows(values, slot_ids, w), weights
    )
    return read, pull_back(gradient)

  program = jax.jit(read_and_gradient).lower(*shapes).compile()
  temporaries = program.memory_analysis().temp_size_in_bytes
  assert temporaries < tokens * accesses * value_dim * 4 / 4


def selected_shapes(jaxpr):
  """Shapes of all results of selections in a program, and in those in it."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'select_n':
      yield equation.outvars[0].aval.shape
    for inner in jax.tree.leaves(
      equation.params, is_leaf=lambda leaf: hasattr(leaf, 'eqns')
    ):
      if hasattr(inner, 'eqns'):
        yield from selected_shapes(getattr(inner, 'jaxpr', inner))


def test_a_skipped_step_selects_no_array_by_itself():
  # With hundreds of arrays, selecting each compiles for more than a minute.
  state = state_lib.init(decoders.make_model(), full.make(full.Config()))
  with jax.numpy_dtype_promotion('standard'):  # for Adam of optax
    step = jax.make_jaxpr(step_lib.train_step)(state, steps.make_batch())
  selected = set(selected_shapes(step.jaxpr))
  assert selected  # the walk finds those of attention
  # A vector may have the shape of something else.
  matrices = {x.shape for x in jax.tree.leaves(state.params) if x.ndim > 1}
  assert not selected & matrices


def operations(num_layers, differentiate):
  """Matrix-product operations with memory in the last block only."""
  model = decoders.make_model(
    num_layers=num_layers,
    memory=steps.MEMORY,
    memory_layers=(num_layers - 1,),
  )
  batch = steps.make_batch()
  state = steps.init(model, steps.make_method('rows'))
  if differentiate:
    return flops.matmul_flops(step_lib.train_step, state, batch)
  return flops.matmul_flops(
    forward.loss_and_accesses, state.graphdef, state.params, batch
  )


def test_nothing_below_the_lowest_memory_layer_is_differentiated():
  forward = {n: operations(n, differentiate=False) for n in (1, 2)}
  step = {n: operations(n, differentiate=True) for n in (1, 2)}
  assert forward[2] > forward[1]
  assert step[1] > forward[1]  # the memory's block is, except its attention
  assert step[2] - step[1] == forward[2] - forward[1]


def test_the_steps_compared_train_the_same_model():
  setting = train_step_benchmark.Setting()
  setting._config = dataclasses.replace(
    setting._config, num_layers=1, memory_layers=(0,)
  )
  states = {form: setting.state(form) for form in ('rows', 'full', 'lora')}
  for state in states.values():
    np.testing.assert_array_equal(
      state_lib.value_table(state.params),
      state_lib.value_table(states['rows'].params),
    )
  # SGD keeps no moments, LoRA those of the adapters, full finetuning of all.
  moments = {
    form: sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
    for form, state in states.items()
  }
  assert moments['rows'] == 0
  assert 0 < moments['lora'] < moments['full'] / 10


@pytest.mark.usefixtures('small')
@pytest.mark.parametrize(
  'module',
  [
    lookup_benchmark,
    pytest.param(search_benchmark, marks=pytest.mark.slow),
    pytest.param(update_step, marks=pytest.mark.slow),
  ],
)
def test_benchmarks_write_numbers_and_a_plot(
  module, monkeypatch, tmp_path, capsys
):
  out = tmp_path / 'numbers.json'
  argv = [module.__file__, '--repeats', '1', '--out', str(out)]
  monkeypatch.setattr('sys.argv', argv)
  with jax.numpy_rank_promotion('allow'):  # in the natural forms
    module.main()
  record = json.loads(out.read_text())
  printed = capsys.readouterr().out
  assert record['claims']
  for claim in record['claims']:
    assert claim['measured'] > 0
    assert claim['text'] in printed
  assert record['machine']['cores'] >= 1
  assert out.with_suffix('.svg').read_text().startswith('<svg')
