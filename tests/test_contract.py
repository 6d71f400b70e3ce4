"""`sparse_memory_finetuning` under wrappers and around optimizers of optax.

Whatever it is combined with: t rows change, and no other number anywhere. The
table in docs/guides/trainer.md lists what is tried here.
"""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from smft_jax import counting
from smft_jax import lookup
from smft_jax import optim
from smft_jax import ranking
from tests.support import value_tables as tables

pytestmark = pytest.mark.usefixtures('quick_compilation')

N, V, T = tables.N, tables.V, tables.T


def _finetuning(inner=None):
  inner = optax.adamw(0.1, weight_decay=0.1) if inner is None else inner
  return optim.sparse_memory_finetuning(
    tables.lenient(inner),
    T,
    document_frequency=tables.FREQUENCY,
    num_documents=7,
  )


WRAPPERS = {
  'nothing': _finetuning,
  'clip_by_global_norm before': lambda: optax.chain(
    optax.clip_by_global_norm(1e-2), _finetuning()
  ),
  'apply_if_finite': lambda: optax.apply_if_finite(_finetuning(), 3),
  'MultiSteps': lambda: optax.MultiSteps(
    _finetuning(), 2
  ).gradient_transformation(),
  'contrib.reduce_on_plateau after': lambda: optax.chain(
    _finetuning(), optax.contrib.reduce_on_plateau(patience=1, factor=0.5)
  ),
  'inject_hyperparams inside': lambda: _finetuning(
    optax.inject_hyperparams(optax.adamw)(0.1, weight_decay=0.1)
  ),
  'contrib.schedule_free inside': lambda: _finetuning(
    optax.contrib.schedule_free_adamw(0.1, weight_decay=0.1)
  ),
  'contrib.muon inside': lambda: _finetuning(
    optax.contrib.muon(0.1, weight_decay=0.1)
  ),
  'adafactor inside': lambda: _finetuning(
    optax.adafactor(0.1, weight_decay_rate=0.1, min_dim_size_to_factor=2)
  ),
}


class _Model(nnx.Module):
  def __init__(self):
    self.values = nnx.Param(tables.table())
    self.access_counts = nnx.Param(counting.make_carrier(N))
    self.head = nnx.Param(jnp.ones((V,)))

  def loss(self, slot_ids, weights, targets, mask):
    reads = lookup.read_rows(self.values[...], slot_ids, weights)
    reads = counting.count_carrier(
      self.access_counts[...], slot_ids, reads, mask
    )
    head = self.head[...].reshape(1, 1, -1)
    return tables.loss(reads * head, targets, mask)


def _train(optimizer, batch, by):
  """Takes ten steps; returns the parameters before and after."""
  model = _Model()
  graphdef, params = nnx.split(model)
  before = jax.tree.map(jnp.copy, params)
  if by == 'nnx.Optimizer':
    trainer = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

    @nnx.jit
    def step(model, trainer):
      value, gradients = nnx.value_and_grad(lambda m: m.loss(*batch))(model)
      trainer.update(model, gradients, value=value)

    for _ in range(10):
      step(model, trainer)
    return before, nnx.state(model)

  @jax.jit
  def plain_step(params, state):
    value, gradients = jax.value_and_grad(
      lambda params: nnx.merge(graphdef, params).loss(*batch)
    )(params)
    updates, state = optax.with_extra_args_support(optimizer).update(
      gradients, state, params, value=value
    )
    return optax.apply_updates(params, updates), state

  state = optimizer.init(params)
  for _ in range(10):
    params, state = plain_step(params, state)
  return before, params


@pytest.mark.parametrize('by', ['optax', 'nnx.Optimizer'])
@pytest.mark.parametrize('name', WRAPPERS)
def test_t_rows_change_and_nothing_else(name, by):
  batch = tables.accesses(0)
  with (
    jax.numpy_dtype_promotion('standard'),
    jax.numpy_rank_promotion('allow'),
  ):
    before, after = _train(WRAPPERS[name](), batch, by)
  selected = ranking.top_slots(tables.slot_scores(batch[0], batch[3]), T)
  old, new = before['values'][...], after['values'][...]
  changed = np.flatnonzero(np.any(np.asarray(old != new), axis=1)).tolist()
  assert changed == sorted(selected.tolist())
  assert np.all(np.isfinite(new))
  for other in ('access_counts', 'head'):
    np.testing.assert_array_equal(before[other][...], after[other][...])
  if name != 'MultiSteps':  # which turns -0.0 into +0.0
    assert tables.changed(old, new) == changed
