"""Every method, through the program: it learns, keeps what it freezes, reports.

What is particular to one method is in its own test file.
"""

import dataclasses

import pytest

from smft_jax import memory
from smft_jax import methods
from smft_jax.config import experiment as config_lib
from smft_jax.runs import base as base_lib
from smft_jax.runs import finetune
from smft_jax.runs import measurements
from smft_jax.runs import states
from smft_jax.store import records as records_lib
from tests.support import method_steps
from tests.support import tiny_run
from tests.support import train_runs

pytestmark = pytest.mark.usefixtures('quick_runs')

TRAINED = sorted(methods.METHODS.keys() - {'in_context'})
# So tiny a model needs larger steps than the defaults, which are for docqa.py.
RATES = {'sparse_memory': 30.0}
SETTINGS = {
  'sparse_memory': {'t': 7},
  'experts': {'num_experts': 3},
  # Barely trained, it has far more Fisher information.
  'ewc': {'strength': 1.0},
}


# Some methods need an FFN, which memory takes the place of.
MODEL = {'model__num_layers': 2, 'model__memory_layers': (1,)}


@pytest.fixture(scope='module')
def root(tmp_path_factory, quick_runs):
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


@pytest.mark.parametrize('name', methods.METHODS)
def test_a_method_is_what_its_config_declares(name):
  config = methods.METHODS[name].Config()
  method = methods.make(config)
  assert config.name == method.name == name
  assert config.only_values == (method.trainable is memory.MemoryValue)
  assert config.adds_parameters == (method.add_modules is not None)
  assert config.ranks_slots == (method.score is not None)
  assert not config.needs_background or config.ranks_slots


# What trains, by its path; everything by other methods.
TRAINS = {
  'sparse_memory': 'pool',
  'values_only': 'pool',
  'lora': 'lora_',
  'adapter': 'adapter_',
  'experts': 'expert_',
}


@pytest.mark.parametrize('name', TRAINED)
def test_it_learns_and_keeps_every_bit_of_what_it_freezes(root, base, name):
  experiment = make_experiment(root, settings(name))
  state = states.first_state(experiment, base)
  sets = measurements.make(
    base,
    experiment.evaluation,
    max_documents=None,
    max_length=experiment.base.max_length,
    seed=experiment.seed,
  )
  first = method_steps.variables(state.params)
  student = finetune.make_learner(experiment, base)
  for index in range(len(sets.documents)):
    state, _ = student.learn(state, index)
  texts = [text for d in sets.documents for text in d.augmentations]
  learned = dataclasses.replace(sets.evaluator, graphdef=state.graphdef)
  before = sets.evaluator.text_nll(base.params, texts)
  # Rounding moves it by some 1e-7 of a nat.
  assert learned.text_nll(state.params, texts) < before - 5e-5
  last = method_steps.variables(state.params)
  changed = {p for p in first if first[p].tobytes() != last[p].tobytes()}
  assert changed == {p for p in last if TRAINS.get(name, '') in p}
  # What the base had keeps its place, and its bits until it trains.
  for path, array in method_steps.variables(base.params).items():
    assert array.tobytes() == first[path].tobytes(), path


# Those of sparse memory finetuning are tested in `runs/test_train.py`; the
# slow ones take the paths of others.
@pytest.mark.parametrize(
  'name',
  [
    *('lora', 'ewc', 'experts', 'in_context'),
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in ('full', 'replay', 'values_only', 'adapter')
    ),
  ],
)
def test_its_results_have_the_keys_that_others_rely_on(root, base, name):
  trains = name != 'in_context'
  changes = settings(name) if trains else {'name': name}
  flags = {f'--config.method.{k}={v}' for k, v in changes.items()}
  assert train_runs.run(root, name, *flags) == 0
  results = train_runs.check_results(root / name, name, trains)
  if trains:
    return
  # It forgets nothing.
  assert results['params_changed'] == 0
  assert set(results['locality'].values()) == {1.0}
  for measure in results['held_out'].values():
    assert measure['before'] == measure['after']
  # It did read: the answers' likelihood is another with the document there.
  before, after = results['metrics_before'], results['metrics_after']
  assert before['target']['nll'] != after['target']['nll']
  assert before['known'] == after['known']


# Changes of numbers, which share a program with the default; of structure,
# which do not; and settings that are refused.
SETTINGS_OF = {
  'adapter': (
    [{'learning_rate': 0.5}],
    [{'width': 7}, {'weight_decay': 0.0}],
    [({'width': 0}, 'width must be at least 1, not 0')],
  ),
  'ewc': (
    [{'learning_rate': 0.5}, {'strength': 7.0}],
    [{'weight_decay': 0.1}, {'num_sequences': 7}],
    [
      ({'strength': -1.0}, 'strength must be at least 0, not -1.0'),
      ({'strength': float('nan')}, 'strength must be at least 0, not nan'),
      ({'num_sequences': 0}, 'num_sequences must be at least 1, not 0'),
    ],
  ),
  'experts': (
    [{'learning_rate': 0.5}],
    [{'width': 7}, {'num_experts': 2}, {'weight_decay': 0.0}],
    [
      ({'width': 0}, 'width must be at least 1, not 0'),
      ({'num_experts': 0}, 'num_experts must be at least 1, not 0'),
    ],
  ),
  'lora': (
    [{'learning_rate': 0.5}, {'replay_fraction': 0.5}],
    [{'rank': 7}, {'alpha': 3.0}, {'targets': 'attention'}, {'pattern': 'up'}],
    [
      (
        {'replay_fraction': 1.0},
        'replay_fraction must be at least 0 and below',
      ),
      ({'rank': 0}, 'rank must be at least 1, not 0'),
      ({'alpha': 0.0}, 'alpha must be above 0 and finite, not 0.0'),
      ({'pattern': '['}, r"pattern '\[' is not a regular expression: untermin"),
    ],
  ),
  'values_only': (
    [{'learning_rate': 0.5}],
    [{'optimizer': 'sgd'}, {'weight_decay': 0.1}],
    [
      (
        {'optimizer': 'adam'},
        "optimizer must be one of sgd, adamw, not 'adam'",
      ),
    ],
  ),
}


REFUSED = [
  *(
    ({'learning_rate': rate}, 'learning_rate must be above 0')
    for rate in (0.0, -1.0, float('nan'))
  ),
  ({'weight_decay': -0.1}, 'weight_decay must be at least 0'),
]


@pytest.mark.parametrize('name', SETTINGS_OF)
def test_numbers_share_a_program_and_bad_settings_are_named(name):
  numbers, structures, refused = SETTINGS_OF[name]
  config = methods.METHODS[name].Config
  default = methods.make(config())
  for changes in numbers:
    method = methods.make(config(**changes))
    assert method == default, changes
    assert hash(method) == hash(default), changes
    [(key, value)] = changes.items()
    held = method.hyperparameters | {'replay_fraction': method.replay_fraction}
    assert held[key] == value
  for changes in structures:
    method = methods.make(config(**changes))
    assert method != default, changes
    assert method == methods.make(config(**changes))
  for changes, message in [*REFUSED, *refused]:
    with pytest.raises(ValueError, match=f'^{message}'):
      config(**changes)
