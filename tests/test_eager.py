"""Public functions outside jit: each shape compiles once, empty ones work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import counting
from smft_jax import lookup
from smft_jax import optim
from smft_jax import product_keys
from smft_jax import ranking
from smft_jax import selection

N, V = 144, 3


def _arguments(tokens=2, accesses=4):
  rng = np.random.default_rng(tokens)
  slot_ids = rng.integers(0, N, (tokens, accesses), dtype=np.int32)
  return jnp.asarray(slot_ids), jnp.ones((tokens, accesses))


def _search(tokens):
  subkeys = jnp.ones((2, 2, 12, 2))

  def loss(queries, subkeys):
    return jnp.sum(product_keys.product_key_topk(queries, subkeys, 3)[1])

  queries = jnp.ones((tokens, 2, 4))
  return jax.grad(loss, argnums=(0, 1))(queries, subkeys)


def _select(tokens):
  score = functools.partial(ranking.tf_idf, num_documents=9)
  slot_ids, _ = _arguments(tokens)
  return selection.select_slots(
    score, slot_ids, jnp.zeros(N), 5, pointwise=True
  )


def _read_gradient(tokens):
  slot_ids, weights = _arguments(tokens)

  def loss(values, weights):
    return jnp.sum(lookup.read_rows(values, slot_ids, weights))

  return jax.grad(loss, argnums=(0, 1))(jnp.ones((N, V)), weights)


def _row_gradient(tokens):
  gradient = jnp.ones((tokens, V))
  return lookup.row_gradient(gradient, *_arguments(tokens), jnp.arange(5))


def _carried(tokens):
  slot_ids, _ = _arguments(tokens)

  def loss(carrier, reads):
    return jnp.sum(counting.count_carrier(carrier, slot_ids, reads))

  return jax.grad(loss)(counting.make_carrier(N), jnp.ones((tokens, V)))


CALLS = {
  'product_key_topk': _search,
  'select_slots': _select,
  'read_rows': _read_gradient,
  'row_gradient': _row_gradient,
  'count_carrier': _carried,
  'count_accesses': lambda tokens: ranking.count_accesses(
    _arguments(tokens)[0], N, jnp.ones(tokens, bool)
  ),
  'document_frequency': lambda tokens: ranking.document_frequency(
    _arguments(tokens)[0], N
  ),
}


@pytest.fixture(name='compiled')
def _compiled():
  """Lists the programs that XLA compiles."""
  found = []

  def listen(event, _, **names):
    if event == '/jax/core/compile/backend_compile_duration':
      found.append(names.get('fun_name', '?'))

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield found
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize('name', CALLS)
def test_a_second_call_compiles_nothing(name, compiled):
  first = CALLS[name](2)
  assert compiled
  compiled.clear()
  jax.tree.map(np.testing.assert_array_equal, CALLS[name](2), first)
  assert not compiled


def test_a_second_update_compiles_nothing(compiled):
  optimizer = optim.keep_top_slots(4)
  rows = optax_update = None
  for _ in range(2):
    compiled.clear()
    optax_update, _ = optimizer.update(
      jnp.ones((N, V)),
      optimizer.init(jnp.ones((N, V))),
      slot_scores=jnp.arange(N, dtype=jnp.float32),
    )
    rows = ranking.top_slots(jnp.arange(N, dtype=jnp.float32), 4)
  assert not compiled
  assert jnp.flatnonzero(optax_update[:, 0] == 1).tolist() == sorted(
    rows.tolist()
  )


@pytest.mark.parametrize('name', CALLS)
def test_no_tokens(name):
  for leaf in jax.tree.leaves(CALLS[name](0)):
    assert leaf.size in (0, 1) or not np.any(leaf) or np.all(leaf == N)


def test_no_accesses():
  slot_ids, weights = jnp.zeros((2, 0), jnp.int32), jnp.zeros((2, 0))
  values = jnp.ones((N, V))
  assert lookup.read_rows(values, slot_ids, weights).tolist() == [[0] * V] * 2
  gradient = jax.grad(
    lambda values: jnp.sum(lookup.read_rows(values, slot_ids, weights))
  )(values)
  assert gradient.shape == (N, V)
  assert not gradient.any()
  rows = lookup.row_gradient(jnp.ones((2, V)), slot_ids, weights, jnp.arange(3))
  assert rows.tolist() == [[0] * V] * 3


def test_no_slots_selected():
  slot_ids, weights = _arguments()
  none = jnp.zeros(0, jnp.int32)
  rows = lookup.row_gradient(jnp.ones((2, V)), slot_ids, weights, none)
  assert rows.shape == (0, V)
  with pytest.raises(ValueError, match='t = 0 selects no slots'):
    ranking.top_slots(jnp.ones(N), 0)


def test_no_documents():
  nothing = jnp.zeros((0, 5, 2), jnp.int32)
  assert ranking.document_frequency(nothing, 4).tolist() == [0] * 4
  scores = ranking.tf_idf(jnp.ones(4), jnp.zeros(4), 0)
  assert scores.tolist() == [0] * 4
