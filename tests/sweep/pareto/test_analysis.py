"""Equal learning and domination against results worked out by hand."""

import pytest

from smft_jax.sweep.pareto import analysis as pareto
from smft_jax.sweep.pareto import table as pareto_table
from tests.support import pareto_rows

row, line = pareto_rows.row, pareto_rows.line


def analyse(rows, **report):
  return pareto.analyse(rows, report)


def learned(found):
  return found['equal_learning']['methods']


def test_equal_learning_of_a_table_with_known_answers():
  rows = [
    *line('sparse_memory', (0.4, 0.01), (0.8, 0.03), seeds=(0, 1)),
    row('full', 0, 0.9, 0.45),
    row('full', 1, 0.6, 0.20),
    row('lora', 0, 0.7, 0.14),
    row('lora', 1, 0.7, 0.07),
    row('adapter', 0, 0.65, 0.13),
    row('adapter', 1, 0.5, 0.1),
    row('ewc', 0, 0.2, 0.1, tuned=None),
  ]
  found = analyse(rows)
  table = found['equal_learning']
  assert table['target'] == 0.6  # full's worst seed
  methods = table['methods']
  means = {name: method['drop_mean'] for name, method in methods.items()}
  assert means == pytest.approx(
    dict(sparse_memory=0.02, full=0.25, lora=0.09, adapter=0.12, ewc=None)
  )
  assert methods['full']['drops'] == pytest.approx({'0': 0.3, '1': 0.2})
  assert methods['sparse_memory']['drop_std'] == pytest.approx(0)
  assert methods['full']['drop_std'] == pytest.approx(0.05 * 2**0.5)
  assert methods['adapter']['drop_std'] is None  # one seed
  ratios = [methods[name]['ratio'] for name in ('full', 'adapter', 'ewc')]
  assert ratios == pytest.approx([12.5, 6, None])
  counted = ('seeds', 'seeds_run', 'reached', 'points', 'settings', 'tuned')
  assert [methods['adapter'][key] for key in counted] == [1, 2, False, 2, 2, 7]
  assert [methods['ewc'][key] for key in counted] == [0, 1, False, 1, 1, None]
  assert methods['ewc']['best_recall_mean'] == 0.2
  assert [methods['full'][key] for key in counted[:3]] == [2, 2, True]


def test_own_reach_where_sparse_memory_gets_further():
  rows = pareto_rows.headline() + line('sparse_memory', (0.9, 0.05))
  table = analyse(rows)['equal_learning_at_own_reach']
  assert table['target'] == 0.9
  lora = table['methods']['lora']
  assert table['methods']['sparse_memory']['drop_mean'] == pytest.approx(0.05)
  assert lora['drop_mean'] is None
  assert lora['best_recall_mean'] == pytest.approx(0.8)
  assert analyse(pareto_rows.headline())['equal_learning_at_own_reach'] is None


def test_ratio_is_over_the_seeds_that_both_have():
  rows = [
    row('sparse_memory', 0, 0.8, 0.01),
    row('sparse_memory', 1, 0.8, 0.03),
    row('full', 1, 0.8, 0.3),
  ]
  full = learned(analyse(rows))['full']
  assert full['ratio'] == pytest.approx(10)  # 15 over the mean of both


def test_costs_are_those_of_the_setting_that_gets_there_at_the_least_loss():
  rows = [
    *line('sparse_memory', (0.8, 0.02)),
    *line('full', (0.85, 0.5), (0.82, 0.3), (0.3, 0.1)),
    *line('adapter', (0.1, 0.1), (0.5, 0.3), (0.4, 0.2)),
  ]
  for entry in rows:
    entry['flops'] = entry['recall'] * 100
  methods = learned(analyse(rows))
  assert methods['full']['at']['flops'] == pytest.approx(82)
  assert methods['full']['at']['settings']['method.learning_rate'] == 2.0
  assert methods['adapter']['at']['flops'] == pytest.approx(50)
  assert 'seed' not in methods['full']['at']['settings']


def test_hypervolume_over_seeds():
  rows = [row('full', 0, 0.5, 0.2), row('full', 1, 0.5, 0.4)]
  volume = analyse(rows)['hypervolume']['full']
  assert volume['mean'] == pytest.approx(0.35)
  assert volume['std'] == pytest.approx(0.05 * 2**0.5)
  assert volume['seeds'] == pytest.approx({'0': 0.4, '1': 0.3})


def test_the_untouched_model_belongs_to_every_front():
  rows = [row('full', 0, 0.5, 0.2, recall_before=0.03)]
  fronts = analyse(rows)['fronts']['full']
  assert fronts['seeds'] == {'0': [[0.03, 0.0], [0.5, 0.2]]}
  assert fronts['mean'] == [[0.03, 0.0], [0.5, 0.2]]


def test_points_that_differ_by_seed_alone_are_one():
  rows = line('full', (0.5, 0.2), (0.7, 0.3))
  rows[1]['drop'] = 0.6
  rows[1]['settings']['world.seed'] = 13
  points = analyse(rows)['points']
  assert [point['seeds'] for point in points] == [['0', '1', '2']] * 2
  assert points[1]['drop_mean'] == pytest.approx(0.4)
  assert points[1]['drop_std'] == pytest.approx(0.03**0.5)


@pytest.mark.parametrize('drop', [0.3, -0.01], ids=['rival', 'neither'])
def test_nothing_lost_has_no_ratio(drop):
  rows = line('sparse_memory', (0.8, -0.01)) + line('full', (0.8, drop))
  assert learned(analyse(rows))['full']['ratio'] is None


def test_a_ratio_needs_seeds_in_common():
  rows = [row('sparse_memory', 0, 0.8, 0.02), row('full', 1, 0.8, 0.3)]
  found = analyse(rows)
  assert learned(found)['full']['ratio'] is None
  assert found['domination']['full'] == {'everywhere': False, 'seeds': {}}


def test_domination_is_seed_by_seed():
  rows = pareto_rows.headline()
  assert all(d['everywhere'] for d in analyse(rows)['domination'].values())
  (better,) = (r for r in rows if r['method'] == 'lora' and r['seed'] == 1)
  better['drop'] = 0.001
  found = analyse(rows)['domination']
  assert found['full']['everywhere']
  assert not found['lora']['everywhere']
  seeds = found['lora']['seeds']
  assert [seeds[s]['dominates'] for s in '012'] == [True, False, True]


def test_a_front_that_is_lower_but_shorter_does_not_dominate():
  rows = line('sparse_memory', (0.8, 0.02)) + line('full', (0.9, 0.5))
  seeds = {seed: {'below': True, 'dominates': False} for seed in '012'}
  expected = {'everywhere': False, 'seeds': seeds}
  assert analyse(rows)['domination']['full'] == expected


# What may be missing.


def test_a_part_of_a_sweep_names_what_is_missing():
  found = analyse(line('full', (0.8, 0.4)) + line('ewc', (0.9, 0.4)))
  assert found['missing'] == ['sparse_memory', 'lora']
  assert found['equal_learning']['target'] == 0.8
  assert found['domination'] == {}
  # None of the headline leaves the others.
  found = analyse(line('ewc', (0.9, 0.4)) + line('adapter', (0.7, 0.4)))
  assert found['equal_learning']['target'] == 0.7
  # Only ablations have finished.
  found = analyse(line('sparse_memory', (0.8, 0.1), panels=['t'], x=3))
  assert found['equal_learning'] == {'target': None, 'methods': {}}
  assert found['equal_learning_at_own_reach'] is None


def test_rows_without_measures_count_as_points_and_nowhere_else():
  bare = {'name': 'full-b', 'method': 'full', 'seed': 0, 'recall': None}
  odd = {**bare, 'name': 'full-c', 'recall': 0.99, 'drop': float('nan')}
  lost = {'name': 'ewc-a', 'method': 'ewc', 'seed': 0}
  found = analyse([*pareto_rows.headline(), bare, odd, lost])
  full, ewc = learned(found)['full'], learned(found)['ewc']
  assert full['points'] == 8
  assert full['best_recall_mean'] == pytest.approx(0.8)
  assert ewc['drop_mean'] is ewc['at'] is None
  assert found['hypervolume']['ewc']['mean'] is None


def test_a_reference_has_a_point_and_no_front():
  found = analyse(pareto_rows.headline() + line('in_context', (0.3, None)))
  assert found['equal_learning']['target'] == 0.8
  for part in ('fronts', 'hypervolume', 'domination'):
    assert 'in_context' not in found[part]
  reference = found['references']['in_context']
  assert reference['recall_mean'] == pytest.approx(0.3)
  assert reference['drop_mean'] == 0


def test_collapse_averages_what_shares_a_seed():
  rows = [row('full', 0, 0.2, 0.1), row('full', 0, 0.4, 0.3)]
  (point,) = pareto_table.collapse(rows, lambda row: None)
  assert point['recall'] == pytest.approx([0.3])
  assert point['recall_std'] is None
