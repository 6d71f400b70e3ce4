"""The PyTorch forms do what ours do, or the comparison would be void."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import peers
from smft_jax import lookup
from smft_jax import optim
from smft_jax import product_keys
from smft_jax import ranking


def test_absence_of_torch_is_one_line(monkeypatch, capsys):
  monkeypatch.setattr(peers.importlib.util, 'find_spec', lambda name: None)
  assert not peers.installed()
  said = capsys.readouterr().out
  assert said == 'torch is not installed: pip install torch\n'


@pytest.fixture(scope='module')
def torch():
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # its own affair
    return pytest.importorskip('torch')


assert_close = functools.partial(
  np.testing.assert_allclose, rtol=1e-5, atol=1e-5
)


def problem(t):
  """An update without ties that matter; slots are read more than once."""
  rng = np.random.default_rng(t)

  def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)

  frequency = rng.choice(997, 97, replace=False)
  frequency[5] = 997  # idf 0: never to be chosen
  return peers.Update(
    table=normal(97, 13),
    slot_ids=rng.integers(0, 48, (31, 7), np.int32),
    weights=normal(31, 7),
    read_gradient=normal(31, 13),
    document_frequency=frequency.astype(np.float32),
    num_documents=997,
    t=t,
    learning_rate=0.1,
  )


def oracle(update):
  """Reads and new table in float64, access by access."""
  table = update.table.astype(np.float64)
  reads = np.einsum('ta,tav->tv', update.weights, table[update.slot_ids])
  counts = np.bincount(update.slot_ids.reshape(-1), minlength=len(table))
  scores = counts * np.log(998 / (update.document_frequency + 1.0))
  best = np.argsort(-scores, kind='stable')[: update.t]
  chosen = {int(slot) for slot in best if scores[slot] > 0}
  for token, slots in enumerate(update.slot_ids):
    for slot, weight in zip(slots, update.weights[token], strict=True):
      if int(slot) in chosen:
        step = update.learning_rate * weight * update.read_gradient[token]
        table[slot] -= step
  return reads, table


def ours(update):
  slot_ids, weights, frequency, read_gradient = map(
    jnp.asarray,
    (
      update.slot_ids,
      update.weights,
      update.document_frequency,
      update.read_gradient,
    ),
  )
  counts = ranking.count_accesses(slot_ids, len(update.table))
  scores = ranking.tf_idf(counts, frequency, update.num_documents)
  slots = ranking.top_slots(scores, update.t)
  gradients = lookup.row_gradient(read_gradient, slot_ids, weights, slots)
  sgd, table = optax.sgd(update.learning_rate), jnp.array(update.table)
  table, _ = optim.update_rows(sgd, sgd.init(table), table, slots, gradients)
  # Waits: the peers then write into the array that this one was copied from.
  return np.asarray(table)


# 60 is more than are read, 97 are all.
@pytest.mark.parametrize('t', [1, 11, 60, 97])
@pytest.mark.parametrize('form', ['mask', 'hook', 'sparse_gradient', 'hand'])
def test_peers_make_the_same_update(torch, form, t):
  update = problem(t)
  run = getattr(peers, f'update_by_{form}')(update)
  for _ in range(2):
    before = update.table.copy()
    reads, table = oracle(update)
    expected = ours(update)
    assert_close(run().numpy(), reads)
    assert_close(update.table, table)
    assert_close(update.table, expected)
    same = np.all(table == before, axis=1)
    assert same.any()
    assert not same.all()
    np.testing.assert_array_equal(update.table[same], before[same])


def test_peers_read_the_same(torch):
  update = problem(1)
  arrays = update.table, update.slot_ids, update.weights
  expected, backward = jax.vjp(
    lambda weights: lookup.read_rows(*map(jnp.asarray, arrays[:2]), weights),
    jnp.asarray(update.weights),
  )
  read = peers.lookup(*arrays)()
  assert_close(read.numpy(), expected)
  run = peers.lookup_and_gradient(*arrays, update.read_gradient)
  for _ in range(2):
    again, gradient = run()
    np.testing.assert_array_equal(again.numpy(), read.numpy())
    (expected,) = backward(jnp.asarray(update.read_gradient))
    assert_close(gradient.numpy(), expected)


@pytest.mark.parametrize('k', [1, 5, 11])
def test_peers_find_the_same(torch, k):
  rng = np.random.default_rng(k)
  queries = rng.standard_normal((17, 3, 10)).astype(np.float32)
  subkeys = rng.standard_normal((3, 2, 11, 5)).astype(np.float32)
  ids, scores = product_keys.product_key_topk(
    jnp.asarray(queries), jnp.asarray(subkeys), k
  )
  found_ids, found_scores = peers.search(queries, subkeys, k)()
  assert_close(found_scores.numpy(), scores)
  np.testing.assert_array_equal(found_ids.numpy(), ids)
