"""Values-only finetuning: what moves, and that SGD is sparse memory's."""

from flax import nnx
import numpy as np
import pytest

from smft_jax.data import batches
from smft_jax.methods import values_only
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib
from tests.support import compilation
from tests.support import method_steps
from tests.support import steps

N = steps.N


@pytest.fixture(autouse=True)
def quickly(request):
  """But for the test of bits, which is of the steps that are run in earnest."""
  with compilation.quick('sparse_memory' not in request.node.name):
    yield


def make_method(optimizer, rate=steps.RATE, weight_decay=0.0):
  return values_only.make(
    values_only.Config(
      learning_rate=rate, optimizer=optimizer, weight_decay=weight_decay
    )
  )


def table_of(state):
  return np.array(state_lib.value_table(state.params))


def take_steps(method, seeds):
  """Tables before and after each of some steps on different batches."""
  state = steps.init(steps.make_model(), method)
  tables = [table_of(state)]
  with steps.optax_promotion():
    for seed in seeds:
      batch = steps.make_batch(seed=seed)
      state, _ = step_lib.train_step(state, batch)
      tables.append(table_of(state))
  return tables


def rows_read(seed):
  """Slots that the loss of a batch reaches, as bool [N]."""
  batch = steps.make_batch(seed=seed)
  model = steps.make_model()
  gradient, _ = steps.loss_gradient(*nnx.split(model), batch)
  return np.asarray(gradient).any(axis=-1)


def test_sgd_is_sparse_memory_finetuning_of_all_accessed_slots():
  start, *tables = take_steps(make_method('sgd'), seeds=(1, 2, 3))
  for update in ('dense', 'rows'):
    sparse = steps.make_method(update, t=N, ranking='all_accessed')
    _, *others = take_steps(sparse, seeds=(1, 2, 3))
    for table, other in zip(tables, others, strict=True):
      assert np.any(table != start)
      if update == 'dense':
        assert table.tobytes() == other.tobytes()
      else:
        np.testing.assert_allclose(table, other, rtol=1e-6, atol=1e-6)


def test_adamw_moves_rows_read_before_and_decay_moves_all():
  read = [rows_read(seed) for seed in (1, 2)]
  before = read[0] & ~read[1]
  never = ~read[0] & ~read[1]
  assert before.any()
  assert never.any()

  def moved(*settings):
    _, first, second = take_steps(make_method(*settings), seeds=(1, 2))
    return (first != second).any(axis=-1)

  sgd = moved('sgd')
  assert not sgd[before | never].any()
  np.testing.assert_array_equal(sgd, read[1])
  adamw = moved('adamw', 1e-2)
  assert adamw[before].all()
  assert not adamw[never].any()
  assert moved('adamw', 1e-2, 0.1).all()
  assert moved('sgd', 1e-2, 0.1).all()


def test_padding_does_not_count():
  method = make_method('adamw', 1e-2)
  batch = steps.make_batch()
  wider = batches.Batch(*(np.pad(x, ((0, 0), (0, 4))) for x in batch[:3]))
  model = steps.make_model()
  tables = [
    table_of(method_steps.take_steps(model, method, each, 1)[0])
    for each in (batch, wider)
  ]
  np.testing.assert_allclose(*tables, rtol=1e-6, atol=1e-5)
