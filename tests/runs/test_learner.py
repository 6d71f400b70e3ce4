"""Learning a document."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax.config import experiment as config_lib
from smft_jax.runs import finetune
from smft_jax.runs import learner as learner_lib
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.training import state as state_lib
from tests.support import steps
from tests.support import tiny_run

# Enough steps that each row of a document is seen several times.
STEPS = 6


@pytest.fixture(scope='module')
def experiment(tmp_path_factory, quick_compilation):
  cache = tmp_path_factory.mktemp('learner') / 'cache'
  return config_lib.from_config_dict(
    tiny_run.make(
      base__cache_dir=str(cache),
      model__num_layers=2,
      model__memory_layers=(1,),
      stream__steps_per_document=STEPS,
    )
  )


@pytest.fixture(scope='module')
def base(experiment, tmp_path_factory):
  with steps.optax_promotion():
    return saved_run.load_base(experiment, tmp_path_factory.mktemp('none'))


def with_method(experiment, **settings):
  return config_lib.from_config_dict(
    config_lib.to_dict(experiment) | {'method': settings}
  )


def test_reused_hidden_states_learn_the_same(experiment, base):
  tables = []
  for reuses in (True, False):
    student = finetune.make_learner(experiment, base)
    assert student._reuses_hidden
    student._reuses_hidden = reuses
    state = states.first_state(experiment, base)
    for index in range(2):
      state, _ = student.learn(state, index)
    tables.append(state_lib.value_table(state.params))
    assert jnp.any(tables[-1] != state_lib.value_table(base.params))
  # XLA fuses the two programs differently: bits are equal under jax 0.10, and
  # differ in the last place under 0.12.
  np.testing.assert_allclose(tables[0], tables[1], rtol=1e-5, atol=1e-5)


def test_hidden_states_are_counted_once_a_document(experiment, base):
  student = finetune.make_learner(experiment, base)
  state = states.first_state(experiment, base)
  reused = student.flops(state)
  student._reuses_hidden = False
  assert 0 < reused < student.flops(state)


@pytest.mark.parametrize(
  ('settings', 'steps', 'reuses'),
  [
    ({'name': 'sparse_memory', 't': 7}, STEPS, True),
    ({'name': 'values_only'}, STEPS, True),
    ({'name': 'full'}, STEPS, False),
    ({'name': 'sparse_memory', 't': 7, 'replay_fraction': 0.4}, STEPS, False),
    # Rows that no second step sees are not worth storing.
    ({'name': 'sparse_memory', 't': 7}, 1, False),
  ],
)
def test_hidden_states_are_reused_where_that_is_exact_and_saves_work(
  experiment, base, settings, steps, reuses
):
  changed = with_method(experiment, **settings)
  stream = dataclasses.replace(changed.stream, steps_per_document=steps)
  changed = dataclasses.replace(changed, stream=stream)
  student = finetune.make_learner(changed, base)
  assert student._reuses_hidden == reuses


@pytest.mark.parametrize(
  ('schedule', 'last'), [('constant', [1, 1, 1]), ('wsd', [1, 1, 2 / 3])]
)
def test_a_rate_that_decays_falls_over_the_last_quarter_of_the_steps(
  experiment, base, monkeypatch, schedule, last
):
  changed = with_method(
    experiment,
    name='sparse_memory',
    t=7,
    learning_rate=2.0,
    schedule=schedule,
  )
  student, rates = finetune.make_learner(changed, base), []
  take = learner_lib.step_lib.train_step

  def recorded(state, *args):
    rates.append(float(state.extras['learning_rate']))
    return take(state, *args)

  monkeypatch.setattr(learner_lib.step_lib, 'train_step', recorded)
  state = states.first_state(changed, base)
  for index in range(2):
    state, _ = student.learn(state, index)
  wanted = [2.0] * (STEPS - 3) + [2.0 * share for share in last]
  np.testing.assert_allclose(rates, wanted * 2)
