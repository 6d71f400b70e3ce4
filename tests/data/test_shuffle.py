"""Orders of rows that are never in memory as a whole."""

import numpy as np
import pytest

from smft_jax.data import batches
from smft_jax.data import shuffle


@pytest.mark.parametrize('num_rows', [1, 2, 3, 5, 16, 17, 1000, 4096, 4097])
def test_an_order_has_every_row_once(num_rows):
  places = np.arange(num_rows)
  orders = [
    shuffle.shuffled(places, num_rows, seed, epoch).tolist()
    for seed, epoch in ((0, 0), (0, 1), (1, 0))
  ]
  assert all(sorted(order) == places.tolist() for order in orders)
  if num_rows >= 16:
    assert len({*map(tuple, orders)}) == 3


def test_a_row_does_not_depend_on_the_places_asked_with_it():
  whole = shuffle.shuffled(np.arange(500), 500, seed=7, epoch=3)
  some = np.array([499, 3, 250, 3])
  found = shuffle.shuffled(some, 500, seed=7, epoch=3)
  assert found.tolist() == whole[some].tolist()


def test_orders_are_as_random_as_those_of_numpy():
  num_rows = 4096
  order = shuffle.shuffled(np.arange(num_rows), num_rows, seed=5, epoch=0)
  # Neighbours are a third of the rows apart in the mean, and nothing is left
  # of the order before.
  apart = np.abs(np.diff(order)).mean() / num_rows
  assert apart == pytest.approx(1 / 3, abs=0.02)
  assert abs(np.corrcoef(order, np.arange(num_rows))[0, 1]) < 0.05
  # Where each eighth of the rows went: 63 degrees of freedom, so about 63.
  went = np.histogram2d(np.arange(num_rows), order, bins=8)[0]
  assert np.sum((went - 64) ** 2 / 64) < 110


def test_batches_of_many_rows_are_epochs_end_to_end(monkeypatch):
  monkeypatch.setattr(batches, '_MOST_ORDERED', 10)
  drawn = [batches.row_indices(23, step, 7, seed=5) for step in range(14)]
  epochs = np.concatenate(drawn)[: 23 * 4].reshape(4, 23)
  assert all(sorted(epoch) == list(range(23)) for epoch in epochs.tolist())
  assert epochs[0].tolist() != epochs[1].tolist()
  monkeypatch.undo()
  few = [batches.row_indices(23, step, 7, seed=5) for step in range(4)]
  assert np.concatenate(few).tolist() != np.concatenate(drawn[:4]).tolist()


def test_a_batch_of_a_trillion_rows_takes_no_memory():
  found = batches.row_indices(10**12, 10**9, 64, seed=0)
  assert len(set(found.tolist())) == 64
  assert 0 <= found.min() < found.max() < 10**12
  # Epoch 0 has 15,625,000,000 steps; the next one has another order.
  last = batches.row_indices(10**12, 15_625_000_000 - 1, 64, seed=0)
  first = batches.row_indices(10**12, 15_625_000_000, 64, seed=0)
  assert not set(last.tolist()) & set(first.tolist())
