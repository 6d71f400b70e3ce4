"""What is said of a comparison, goals missed included, and of ablations."""

import itertools

import pytest

from smft_jax.sweep.pareto import analysis as pareto
from tests.support import pareto_rows

row, line = pareto_rows.row, pareto_rows.line
verdicts = pareto_rows.of_kind


def analyse(rows, **report):
  return pareto.analyse(rows, report)


def test_goals_that_are_met():
  found = analyse(pareto_rows.headline())
  full, lora = verdicts(found, 'drop_ratio')
  assert full['met']
  assert full['ratio'] == pytest.approx(20)
  assert full['sentence'] == (
    'At a recall of 80.0% of the new facts, sparse memory lost 2.0% ± 0.0 of'
    ' what it knew and full finetuning 40.0% ± 0.0: 20 times as much, so the'
    ' goal of 5 times is met (over seeds 20 to 20 times).'
  )
  assert lora['met']
  assert 'LoRA 20.0% ± 0.0: 10.0 times as much' in lora['sentence']
  assert verdicts(found, 'dominates', rival='lora')[0]['sentence'] == (
    'Sparse memory loses less than LoRA at every recall that LoRA came to, in'
    ' all 3 seeds.'
  )
  assert all(verdict['met'] for verdict in verdicts(found, 'dominates'))


@pytest.mark.parametrize(('drop', 'met'), [(0.0999, False), (0.1001, True)])
def test_the_goal_is_five_times(drop, met):
  rows = line('sparse_memory', (0.8, 0.02)) + line('full', (0.8, drop))
  (verdict,) = verdicts(analyse(rows), 'drop_ratio')
  assert verdict['met'] is met
  assert (
    f'goal of 5 times is {"met" if met else "missed"}' in (verdict['sentence'])
  )


def test_a_rival_that_loses_less_is_said_to():
  rows = line('sparse_memory', (0.8, 0.2)) + line('full', (0.9, 0.1))
  found = analyse(rows)
  (ratio,) = verdicts(found, 'drop_ratio')
  assert ratio['met'] is False
  assert (
    '0.4 times as much, so the goal of 5 times is missed' in (ratio['sentence'])
  )
  (front,) = verdicts(found, 'dominates')
  assert front['met'] is False
  assert front['sentence'] == (
    'Sparse memory does not lose less than full finetuning everywhere; it does'
    ' in 0 of 3 seeds. At worst, full finetuning came to a recall of 90.0%'
    ' where sparse memory came to 80.0% and at a recall of 80.0%, full'
    ' finetuning lost 11 percentage points less.'
  )


def test_a_front_that_is_better_but_shorter_is_told_apart():
  rows = line('sparse_memory', (0.8, 0.02)) + line('full', (0.9, 0.5))
  (verdict,) = verdicts(analyse(rows), 'dominates')
  assert verdict['met'] is False
  assert verdict['sentence'] == (
    'Sparse memory loses less than full finetuning at every recall that both'
    ' came to, in all 3 seeds, but full finetuning came to a recall of 90.0%'
    ' where sparse memory came to 80.0%.'
  )


def test_one_seed_out_of_three_breaks_everywhere():
  rows = pareto_rows.headline()
  next(r for r in rows if r['method'] == 'lora' and r['seed'] == 1)['drop'] = (
    0.001
  )
  found = analyse(rows)
  (verdict,) = verdicts(found, 'dominates', rival='lora')
  assert verdict['met'] is False
  assert 'it does in 2 of 3 seeds' in verdict['sentence']
  assert '1.9 percentage points less' in verdict['sentence']
  assert verdicts(found, 'dominates', rival='full')[0]['met']


@pytest.mark.parametrize(
  ('drop', 'met', 'words'),
  [(0.3, True, 'did, so the goal'), (-0.01, False, 'neither, so the goal')],
)
def test_nothing_lost_has_no_ratio(drop, met, words):
  rows = line('sparse_memory', (0.8, -0.01)) + line('full', (0.8, drop))
  (verdict,) = verdicts(analyse(rows), 'drop_ratio')
  assert verdict['ratio'] is None
  assert verdict['met'] is met
  assert words in verdict['sentence']


def test_seeds_in_common_are_needed_for_a_ratio():
  rows = [row('sparse_memory', 0, 0.8, 0.02), row('full', 1, 0.8, 0.3)]
  (verdict,) = verdicts(analyse(rows), 'drop_ratio')
  assert verdict['met'] is None
  assert 'no seed in common' in verdict['sentence']
  assert not verdicts(analyse(rows), 'dominates')


def test_a_rival_short_of_our_own_reach():
  rows = pareto_rows.headline() + line('sparse_memory', (0.9, 0.05))
  verdict = verdicts(
    analyse(rows), 'drop_ratio', at='equal_learning_at_own_reach'
  )[0]
  assert verdict['met'] is None
  assert verdict['sentence'].endswith(
    'full finetuning does not get there: its best recall is 80.0%.'
  )


# Ablations.

_RULES = ('sparse_memory', 'sparse_memory_tf', 'sparse_memory_all_accessed')


def ranking(*drops):
  return [
    {**entry, 'x': t, 'name': f'{entry["name"]}-{t}'}
    for t in (300, 50)
    for method, drop in zip(_RULES, drops, strict=True)
    for entry in line(method, (0.4, drop / 2), (0.8, drop), panels=['ranking'])
  ]


@pytest.mark.parametrize(
  'drops', list(itertools.permutations([0.02, 0.1, 0.3]))
)
def test_order_of_the_rankings(drops):
  panel = {'title': 'Ranking', 'x_label': 't', 'order': _RULES}
  found = analyse(ranking(*drops), panels={'ranking': panel})
  assert [f['value'] for f in found['panels']['ranking']['facets']] == [50, 300]
  told = verdicts(found, 'order', panel='ranking')
  assert [verdict['facet'] for verdict in told] == [50, 300]
  for verdict in told:
    assert verdict['met'] is (drops == (0.02, 0.1, 0.3))
    assert verdict['recall'] == 0.8
  if told[0]['met']:
    assert told[0]['sentence'] == (
      'Ranking (t = 50): at a recall of 80.0%, sparse memory lost 2.0% ± 0.0'
      ' (area 0.788), sparse memory, TF only lost 10.0% ± 0.0 (area 0.740),'
      ' sparse memory, all accessed lost 30.0% ± 0.0 (area 0.620); the expected'
      ' order holds, by drop and by area.'
    )


def test_order_by_drop_alone_is_not_enough():
  a = line('a', (0.5, 0.2), panels=['p'])
  b = line('b', (0.5, 0.21), (0.9, 0.3), panels=['p'])
  found = analyse(a + b, panels={'p': {'order': ('a', 'b')}})
  (verdict,) = verdicts(found, 'order')
  assert (verdict['by_drop'], verdict['by_area']) == (True, False)
  assert verdict['met'] is False


def test_order_stays_open_where_a_line_is_missing():
  rows = [r for r in ranking(0.1, 0.2, 0.3) if r['method'] != _RULES[1]]
  found = analyse(rows, panels={'ranking': {'order': _RULES}})
  for verdict in verdicts(found, 'order'):
    assert verdict['met'] is None
    assert 'there is no sparse memory, TF only' in verdict['sentence']


def test_order_stays_open_where_a_line_was_not_measured():
  rows = line('a', (0.5, 0.2), panels=['p']) + [
    row('b', 0, None, None, panels=['p'])
  ]
  panel = {'order': ('a', 'b'), 'line_labels': {'b': 'the other'}}
  (verdict,) = verdicts(analyse(rows, panels={'p': panel}), 'order')
  assert verdict['met'] is None
  assert verdict['sentence'].endswith('as there is no the other.')


def test_points_of_panels_stay_out_of_the_comparison():
  found = analyse(pareto_rows.headline() + ranking(0.5, 0.6, 0.7))
  assert list(found['hypervolume']) == ['sparse_memory', 'full', 'lora']
  assert found['equal_learning']['methods']['sparse_memory']['points'] == 6


def test_a_sweep_goes_from_left_to_right_and_tells_its_cliff():
  rows = [
    row('sparse_memory', seed, recall, drop, x=t, panels=['t', 'front'])
    for seed in (0, 1)
    for t, recall, drop in [
      (1000, 0.9, 0.03),
      (10, 0.2, 0.01),
      (3000, 0.9, 0.33),
      (None, 0.5, 0.5),
    ]
  ]
  found = analyse(rows)
  panel = found['panels']['t']
  assert panel['kind'] == 'front'  # one has no x
  found = analyse(rows, panels={'t': {'kind': 'sweep', 'x_label': 't'}})
  (line_,) = found['panels']['t']['facets'][0]['lines']
  assert [point['x'] for point in line_['points']] == [10, 1000, 3000]
  assert [point['seeds'] for point in line_['points']] == [['0', '1']] * 3
  (verdict,) = verdicts(found, 'sweep')
  assert verdict['sentence'] == (
    't: from 10 (recall 20.0%, lost 1.0%) to 3000 (recall 90.0%, lost 33.0%).'
    ' The largest step of loss is from 1000 (3.0%) to 3000 (33.0%).'
  )


def test_lines_of_a_single_method_are_told_apart_by_x():
  rows = [
    *line('sparse_memory', (0.8, 0.1), panels=['b'], x='pretraining'),
    *line('sparse_memory', (0.8, 0.3), panels=['b'], x='training set'),
  ]
  (facet,) = analyse(rows)['panels']['b']['facets']
  assert facet['value'] is None
  assert [line['key'] for line in facet['lines']] == [
    'pretraining',
    'training set',
  ]
  assert facet['lines'][1]['drop_mean'] == pytest.approx(0.3)


def test_a_setting_can_place_the_points_of_a_panel():
  rows = line('sparse_memory', (0.4, 0.1), (0.6, 0.2), (0.8, 0.3))
  for entry in rows:
    entry['panels'] = ['rate']
  panel = {'x': 'method.learning_rate'}
  found = analyse(rows, panels={'rate': panel})['panels']['rate']
  assert found['kind'] == 'sweep'
  assert found['x_label'] == 'learning rate'
  points = found['facets'][0]['lines'][0]['points']
  assert [point['x'] for point in points] == [1, 2, 3]


def test_a_kind_of_panel_that_does_not_exist():
  with pytest.raises(ValueError, match='kinds are front, sweep'):
    analyse(pareto_rows.headline(), panels={'p': {'kind': 'pie'}})
