"""A run that is disturbed for ten minutes ends as one left alone."""

import json

import pytest

from benchmarks import soak


@pytest.mark.slow
def test_ends_as_a_run_left_alone(tmp_path):
  # It compares the arrays, the ways in which starts end and what they say.
  soak.main(['--minutes', '10', '--out', str(tmp_path / 'soak.json')])
  found = {
    row['fault'] for row in json.loads((tmp_path / 'soak.json').read_text())
  }
  assert found == set(soak.FAULTS)
