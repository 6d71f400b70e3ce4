"""Fronts against what was worked out by hand."""

import random

import pytest

from smft_jax.sweep.pareto import fronts as pareto_fronts


def test_front_holds_exactly_what_nothing_dominates():
  generator = random.Random(7)
  points = [
    (generator.randrange(11) / 10, generator.randrange(11) / 10)
    for _ in range(43)
  ]

  def dominates(a, b):
    return a[0] >= b[0] and a[1] <= b[1] and a != b

  expected = {b for b in points if not any(dominates(a, b) for a in points)}
  assert pareto_fronts.front(points) == sorted(expected)


def test_front_of_equal_recalls_keeps_the_smaller_drop():
  assert pareto_fronts.front([(0.5, 0.3), (0.5, 0.1)]) == [(0.5, 0.1)]
  assert pareto_fronts.front([(0.5, 0.1), (0.5, 0.1)]) == [(0.5, 0.1)]
  assert pareto_fronts.front([]) == []


def test_a_gain_beats_the_untouched_model():
  points = [(0.0, 0.0), (0.3, -0.01), (0.7, 0.2)]
  assert pareto_fronts.front(points) == [(0.3, -0.01), (0.7, 0.2)]


@pytest.mark.parametrize(
  ('recall', 'drop'),
  [
    (0.1, 0.1),  # below the first point, it costs what that point does
    (0.2, 0.1),
    (0.4, 0.2),
    (0.6, 0.3),
    (0.7, 0.45),
    (0.8, 0.6),
    (0.81, None),
  ],
)
def test_drop_is_linear_between_neighbours(recall, drop):
  front = [(0.2, 0.1), (0.6, 0.3), (0.8, 0.6)]
  found = pareto_fronts.drop_at(front, recall)
  assert found is None if drop is None else found == pytest.approx(drop)


def test_area_is_that_of_steps():
  front = [(0.1, 0.0), (0.5, 0.2), (0.9, 0.6)]
  expected = 0.1 * 1.0 + 0.4 * 0.8 + 0.4 * 0.4
  assert pareto_fronts.area(front) == pytest.approx(expected)


def test_area_clips_drops_and_recalls():
  assert pareto_fronts.area([(0.5, -0.3), (1.2, 0.5), (1.3, 1.7)]) == (
    pytest.approx(0.5 * 1.0 + 0.5 * 0.5)
  )
  assert pareto_fronts.area([]) == 0


@pytest.mark.parametrize(
  ('own', 'other', 'below', 'dominates'),
  [
    ('long', 'short', False, False),
    ('short', 'long', True, False),
    ('long', 'long', False, False),
    ('low', 'long', True, True),
    # Larger between the points of the other.
    ('bent', 'long', False, False),
  ],
)
def test_match_tells_reaching_from_losing_less(own, other, below, dominates):
  fronts = {
    'short': [(0.0, 0.0), (0.5, 0.1)],
    'long': [(0.0, 0.0), (0.8, 0.4)],
    'low': [(0.0, 0.0), (0.8, 0.3)],
    'bent': [(0.0, 0.0), (0.4, 0.3), (0.8, 0.3001)],
  }
  found = pareto_fronts.match(fronts[own], fronts[other])
  assert found == (below, dominates)
