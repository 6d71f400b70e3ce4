"""Every method, through the program: it learns, keeps what it freezes, reports.

What is particular to one method is in its own test file.
"""

import dataclasses
import json

from flax import nnx
import jax
import numpy as np
import pytest

from smft_jax import memory
from smft_jax import methods
from smft_jax import train
from smft_jax.config import experiment as config_lib
from smft_jax.runs import base as base_lib
from smft_jax.runs import finetune
from smft_jax.runs import measurements
from smft_jax.runs import states
from smft_jax.runtime import program
from smft_jax.store import records as records_lib
from tests.support import tiny_run

pytestmark = pytest.mark.usefixtures('quick_compilation')

TRAINED = sorted(methods.METHODS.keys() - {'in_context'})
# So tiny a model needs larger steps than the defaults, which are for docqa.py.
RATES = {'sparse_memory': 30.0}
SETTINGS = {
  'sparse_memory': {'t': 7},
  'experts': {'num_experts': 3},
  # Barely trained, it has far more Fisher information.
  'ewc': {'strength': 1.0},
}


@pytest.fixture(autouse=True, scope='module')
def promotion():
  """Adam of optax mixes dtypes."""
  with jax.numpy_dtype_promotion('standard'):
    yield


# Some methods need an FFN, which memory takes the place of.
MODEL = {'model__num_layers': 2, 'model__memory_layers': (1,)}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder with tiny.py, whose base is made by the first that needs it."""
  folder = tmp_path_factory.mktemp('methods')
  tiny_run.write_config(folder, **MODEL)
  return folder


def settings(name):
  rate = RATES.get(name, 1e-2)
  return {'name': name, 'learning_rate': rate, **SETTINGS.get(name, {})}


def make_experiment(root, method):
  return config_lib.from_config_dict(
    tiny_run.make(
      base__cache_dir=str(root / 'cache'),
      method=method,
      **MODEL,
    )
  )


@pytest.fixture(scope='module')
def base(root):
  experiment = make_experiment(root, {'name': 'full'})
  task = base_lib.make_task(experiment)
  with records_lib.MetricsWriter(root) as writer:
    return base_lib.find_or_make(experiment, task, writer)


def variables(state):
  """Arrays by path."""
  return {
    jax.tree_util.keystr(path): np.array(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }


@pytest.mark.parametrize('name', methods.METHODS)
def test_a_method_is_what_its_config_declares(name):
  config = methods.METHODS[name].Config()
  method = methods.make(config)
  assert config.name == method.name == name
  assert config.only_values == (method.trainable is memory.MemoryValue)
  assert config.adds_parameters == (method.add_modules is not None)
  assert config.ranks_slots == (method.score is not None)
  assert not config.needs_background or config.ranks_slots


@pytest.mark.parametrize('name', TRAINED)
def test_it_learns_and_keeps_every_bit_of_what_it_freezes(root, base, name):
  experiment = make_experiment(root, settings(name))
  state = states.first_state(experiment, base)
  sets, _ = measurements.measure_base(
    base,
    experiment.evaluation,
    max_documents=None,
    max_length=experiment.base.max_length,
    seed=experiment.seed,
  )
  first = variables(state.params)
  student = finetune.make_learner(experiment, base)
  for index in range(len(sets.documents)):
    state, _ = student.learn(state, index)
  texts = [text for d in sets.documents for text in d.augmentations]
  learned = dataclasses.replace(sets.evaluator, graphdef=state.graphdef)
  before = sets.evaluator.text_nll(base.params, texts)
  # Rounding moves it by some 1e-7 of a nat.
  assert learned.text_nll(state.params, texts) < before - 5e-5
  trained, frozen = nnx.split_state(state.params, state.method.trainable, ...)
  for path, array in variables(frozen).items():
    assert array.tobytes() == first[path].tobytes(), path
  changed = [
    path
    for path, array in variables(trained).items()
    if np.any(array != first[path])
  ]
  assert changed
  # What the base had keeps its place, and its bits where it is frozen.
  originals = variables(base.params)
  assert originals.keys() <= first.keys()
  for path, array in originals.items():
    assert array.tobytes() == first[path].tobytes(), path


# The others' runs take the paths of these.
PLAIN = ('full', 'replay', 'values_only', 'adapter')


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow) if name in PLAIN else name
    for name in methods.METHODS
  ],
)
def test_its_results_have_the_keys_that_others_rely_on(root, name, capsys):
  flags = {f'--config.method.{k}={v}' for k, v in settings(name).items()}
  if name == 'in_context':
    flags = {'--config.method.name=in_context'}
  workdir = root / name
  argv = [f'--config={root}/tiny.py', f'--workdir={workdir}', *flags]
  assert program.run(train.main, argv) == 0, capsys.readouterr().err
  results = json.loads((workdir / 'results.json').read_text())
  trains = name != 'in_context'
  assert results['method'] == name
  assert results['steps'] == (3 * 2 if trains else 0)
  assert results['seed'] == 3
  for key in ('wall_s', 'tokens', 'slots_updated', 'params_changed_fraction'):
    assert results[key] >= 0, key
  for key in ('target', 'target_unseen_phrasing'):
    assert results[key].keys() == {'metric', 'before', 'after'}
  for measure in results['held_out'].values():
    assert measure.keys() == {'metric', 'before', 'after', 'relative_drop'}
  done = [point['documents'] for point in results['retention_curve']]
  assert done == ([0, 1, 2, 3] if trains else [0, 3])
  assert np.shape(results['accuracy_matrix']) == (len(done), len(done) - 1)
  assert results['locality'].keys() == {'known', 'never_seen'}
  assert (results['params_changed'] > 0) == trains
  assert results['bytes_changed'] == 4 * results['params_changed']
  assert (results['lesson']['flops'] > 0) == trains
  assert (results['lesson']['wall_s'] is not None) == trains
  outputs = json.loads((workdir / 'outputs_before.json').read_text())
  assert len(outputs['known']) == 13


def test_reading_in_context_forgets_nothing(root):
  results = json.loads((root / 'in_context' / 'results.json').read_text())
  assert results['params_changed'] == 0
  assert set(results['locality'].values()) == {1.0}
  for measure in results['held_out'].values():
    assert measure['before'] == measure['after']
  # It did read: the answers' likelihood is another with the document there.
  before, after = results['metrics_before'], results['metrics_after']
  assert before['target']['nll'] != after['target']['nll']
  assert before['known'] == after['known']
