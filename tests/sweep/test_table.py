"""The row of a point: what counts as forgetting."""

import pytest

from smft_jax.config import command_line
from smft_jax.sweep import plan
from smft_jax.sweep import table
from tests.support import sweep_runs

RESULTS = {
  'seed': 0,
  'held_out': {
    'questions': {'relative_drop': -0.02},
    'known': {'relative_drop': 0.04},
  },
  'answers_unchanged': {'num': 500, 'share': 0.75},
  'locality': {'known': 0.9},
}
WITHOUT_KNOWN = RESULTS | {
  'held_out': {'questions': {'relative_drop': -0.02}},
  'locality': {'questions': 0.8},
}


@pytest.fixture(scope='module')
def point(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sweep')
  sweep_runs.write(folder)
  file = f'{folder}/tiny.py'
  config = command_line.parse([f'--config={file}']).config
  return plan.expand(file, config)[0][0]


@pytest.mark.parametrize(
  ('results', 'forgetting', 'drop', 'locality'),
  [
    (RESULTS, 'known', 0.04, 0.9),
    (RESULTS, 'answers', 0.25, 0.9),
    (WITHOUT_KNOWN, 'known', -0.02, 0.75),
    (WITHOUT_KNOWN, 'answers', 0.25, 0.75),
    ({}, 'answers', None, None),
  ],
)
def test_drop_is_what_counts_as_forgetting(
  point, results, forgetting, drop, locality
):
  row = table.row(point, results, forgetting)
  assert row['drop'] == drop
  assert row['locality'] == locality
