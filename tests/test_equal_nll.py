"""The table of methods at the same loss on the answers."""

import json

import pytest

from benchmarks import equal_nll
from smft_jax import cli


def write_point(workdir, method, rate, after, drops):
  folder = workdir / 'points' / f'{method}-{rate}'
  folder.mkdir(parents=True)
  results = {
    'method': method,
    'metrics_before': {'target_unseen_phrasing': {'nll': 5.0, 'f1': 0.0}},
    'metrics_after': {'target_unseen_phrasing': {'nll': after, 'f1': rate}},
    'held_out': {
      name: {'metric': 'nll', 'before': 2.0, 'relative_drop': drop}
      for name, drop in drops.items()
    },
  }
  (folder / 'results.json').write_text(json.dumps(results))


def test_losses_are_read_off_where_the_weakest_method_comes_to(
  tmp_path, capsys
):
  write_point(tmp_path, 'sparse_memory', 0.1, 4.0, {'nq': 0.01, 'gsm8k': 0.0})
  write_point(tmp_path, 'sparse_memory', 0.2, 3.0, {'nq': 0.03, 'gsm8k': 0.02})
  write_point(tmp_path, 'full', 0.3, 3.5, {'nq': 0.4, 'gsm8k': 0.1})
  # Dominated: it learns less and loses more.
  write_point(tmp_path, 'full', 0.4, 4.5, {'nq': 0.9, 'gsm8k': 0.9})
  assert cli.run(equal_nll.main, [str(tmp_path)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == 'At a loss of 3.500 on the answers, 5.000 before:'
  assert '| full | 2 | 3.500 | 0.400 | +40.00% | +10.00% |' in lines
  # Half way between its two points.
  assert '| sparse_memory | 2 | 3.000 | 0.200 | +2.00% | +1.00% |' in lines
  assert lines[-1] == 'Before: nq 2, gsm8k 2.'


@pytest.mark.parametrize('arguments', [[], ['nowhere'], ['a', 'b']])
def test_mistakes_are_one_line(arguments, capsys):
  assert cli.run(equal_nll.main, arguments) == 2
  assert capsys.readouterr().err.count('\n') == 1
