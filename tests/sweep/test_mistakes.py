"""A mistake on the command line of a sweep is one line and leaves nothing."""

import pytest

from tests.support import sweep_runs


@pytest.mark.parametrize(
  ('flag', 'part'),
  [
    ('--point=3', 'there are 3 points, from 0 to 2'),
    ('--point=-1', '--point=-1 is out of range'),
    ('--point=one', '--point must be a whole number'),
    ('--pint=1', 'did you mean --point?'),
    ('--config.metod.t=3', 'did you mean config.method.t?'),
    ('--config.data.num_new=0', "point 'bad': there is no document"),
    ('--config.memory.num_slots=50', '49 and 64'),
  ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, capsys, flag, part):
  sweep_runs.write(tmp_path)
  assert part in sweep_runs.error_of(tmp_path, capsys, flag)


def test_help_explains_points(capsys):
  assert sweep_runs.run('nowhere', '--help') == 0
  out = capsys.readouterr().out
  assert '--point=' in out
  assert 'every point' in out
