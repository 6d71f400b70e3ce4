"""The table of methods at the same loss on the answers."""

import json

import pytest

from benchmarks import equal_nll
from smft_jax.runtime import program


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


def test_losses_are_read_off_at_shares_of_what_sparse_memory_learned(
  tmp_path, capsys
):
  write_point(tmp_path, 'sparse_memory', 0.1, 4.0, {'nq': 0.01, 'gsm8k': 0.0})
  write_point(tmp_path, 'sparse_memory', 0.2, 3.0, {'nq': 0.03, 'gsm8k': 0.02})
  write_point(tmp_path, 'full', 0.3, 3.5, {'nq': 0.4, 'gsm8k': 0.1})
  # Dominated: it learns less and loses more.
  write_point(tmp_path, 'full', 0.4, 4.5, {'nq': 0.9, 'gsm8k': 0.9})
  assert program.run(equal_nll.main, [str(tmp_path)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == 'Held out, before: nq 2, gsm8k 2.'
  # Half way between the untouched model and its first point, at it, past it.
  assert [line for line in lines if '| sparse_memory |' in line] == [
    '| 5.000 to 4.500 | sparse_memory | +0.50% | +0.00% |',
    '| 5.000 to 4.000 | sparse_memory | +1.00% | +0.00% |',
    '| 5.000 to 3.000 | sparse_memory | +3.00% | +2.00% |',
  ]
  assert [line for line in lines if '| full |' in line] == [
    '| 5.000 to 4.500 | full | +13.33% | +3.33% |',
    '| 5.000 to 4.000 | full | +26.67% | +6.67% |',
    '| 5.000 to 3.000 | full | not reached | not reached |',
  ]
  assert (
    'full: 2 points, lowest loss 3.500, F1 0.000 to 0.400 at best.' in lines
  )


def test_a_sweep_without_sparse_memory_is_refused(tmp_path, capsys):
  write_point(tmp_path, 'full', 0.3, 3.5, {'nq': 0.4})
  assert program.run(equal_nll.main, [str(tmp_path)]) == 2
  assert 'has no sparse_memory, only full' in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [[], ['nowhere'], ['a', 'b']])
def test_mistakes_are_one_line(arguments, capsys):
  assert program.run(equal_nll.main, arguments) == 2
  assert capsys.readouterr().err.count('\n') == 1
