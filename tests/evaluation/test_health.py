"""Memory health against plain arithmetic."""

import numpy as np
import pytest

from smft_jax.evaluation import health


def test_measures_are_those_of_a_plain_recount():
  counts = np.random.default_rng(3).poisson(1.0, 251)
  counts[17] = 400
  measured = health.measure(counts)
  ordered = sorted(counts.tolist(), reverse=True)
  assert measured['reads'] == sum(ordered)
  assert measured['slots'] == 251
  assert measured['dead_slots'] == ordered.count(0) > 0
  assert measured['usage'] == sum(map(bool, ordered)) / 251
  assert measured['top_1_percent_share'] == sum(ordered[:3]) / sum(ordered)
  p = np.array([c for c in ordered if c]) / sum(ordered)
  entropy = -np.sum(p * np.log(p))
  assert measured['kl_to_uniform'] == pytest.approx(np.log(251) - entropy)


def test_the_ends_of_the_scale():
  even, one = np.full(169, 7), np.eye(169)[5] * 9999
  even, one = map(health.measure, (even, one))
  assert even['kl_to_uniform'] == pytest.approx(0, abs=1e-12)
  assert one['kl_to_uniform'] == pytest.approx(np.log(169))
  assert (even['usage'], one['usage']) == (1.0, 1 / 169)
  assert one['top_1_percent_share'] == 1.0


@pytest.mark.parametrize('counts', [[0, 0], [3, -1], [[1, 2]], [1, np.nan]])
def test_counts_that_are_none_are_refused(counts):
  with pytest.raises(ValueError, match=r'^counts must be \[N\]'):
    health.measure(counts)
