"""Ablations fall into the lines and facets that REPORT asks for."""

import pytest

from smft_jax.sweep.pareto import analysis as pareto
from tests.support import pareto_rows

row, line = pareto_rows.row, pareto_rows.line


def analyse(rows, **report):
  return pareto.analyse(rows, report)


_RULES = ('sparse_memory', 'sparse_memory_tf', 'sparse_memory_all_accessed')


def ranking(*drops):
  return [
    {**entry, 'x': t, 'name': f'{entry["name"]}-{t}'}
    for t in (300, 50)
    for method, drop in zip(_RULES, drops, strict=True)
    for entry in line(method, (0.4, drop / 2), (0.8, drop), panels=['ranking'])
  ]


def test_lines_follow_the_order_and_share_its_reach():
  panel = {'title': 'Ranking', 'x_label': 't', 'order': _RULES[::-1]}
  rows = ranking(0.02, 0.1, 0.3)
  rows += line('full', (0.3, 0.1), panels=['ranking'], x=50)
  found = analyse(rows, panels={'ranking': panel})['panels']['ranking']
  assert found['recall'] == 0.8  # full, which is not in the order, has 0.3
  lines = found['lines'][:3]
  assert [line['key'] for line in lines] == list(_RULES[::-1])
  assert lines[1]['label'] == 'sparse memory, TF only'
  drops = [line['drop_mean'] for line in lines]
  assert drops == pytest.approx([0.3, 0.1, 0.02])
  areas = [line['hypervolume']['mean'] for line in lines]
  assert areas == pytest.approx([0.62, 0.74, 0.788])


def test_a_line_that_was_not_measured_has_no_place():
  rows = line('a', (0.5, 0.2), panels=['p'])
  rows.append(row('b', 0, None, None, panels=['p']))
  panel = {'order': ('a', 'b'), 'line_labels': {'b': 'the other'}}
  found = analyse(rows, panels={'p': panel})['panels']['p']
  assert found['recall'] == 0.5
  other = found['lines'][1]
  assert other['label'] == 'the other'
  assert other['drop_mean'] is other['hypervolume']['mean'] is None


def test_points_of_panels_stay_out_of_the_comparison():
  found = analyse(pareto_rows.headline() + ranking(0.5, 0.6, 0.7))
  assert list(found['hypervolume']) == ['sparse_memory', 'full', 'lora']
  assert found['equal_learning']['methods']['sparse_memory']['points'] == 6


def test_a_sweep_goes_by_x():
  measured = ((1000, 0.9, 0.03), (10, 0.2, 0.01), (3000, 0.9, 0.33))
  rows = [
    row('sparse_memory', seed, recall, drop, x=t, panels=['t', 'front'])
    for seed in (0, 1)
    for t, recall, drop in (*measured, (None, 0.5, 0.5))
  ]
  assert analyse(rows)['panels']['t']['kind'] == 'front'  # one has no x
  found = analyse(rows, panels={'t': {'kind': 'sweep', 'x_label': 't'}})
  (line_,) = found['panels']['t']['lines']
  assert [point['x'] for point in line_['points']] == [10, 1000, 3000]
  assert [point['seeds'] for point in line_['points']] == [['0', '1']] * 3


def test_lines_of_a_single_method_are_told_apart_by_x():
  rows = [
    *line('sparse_memory', (0.8, 0.1), panels=['b'], x='pretraining'),
    *line('sparse_memory', (0.8, 0.3), panels=['b'], x='training set'),
  ]
  lines = analyse(rows)['panels']['b']['lines']
  assert [line['key'] for line in lines] == ['pretraining', 'training set']
  assert lines[1]['drop_mean'] == pytest.approx(0.3)


def test_a_setting_can_place_the_points_of_a_panel():
  places = (0.4, 0.1), (0.6, 0.2), (0.8, 0.3)
  rows = line('sparse_memory', *places, panels=['rate'])
  panel = {'x': 'method.learning_rate'}
  found = analyse(rows, panels={'rate': panel})['panels']['rate']
  assert found['kind'] == 'sweep'
  assert found['x_label'] == 'learning rate'
  points = found['lines'][0]['points']
  assert [point['x'] for point in points] == [1, 2, 3]


@pytest.mark.parametrize(
  ('panel', 'kind', 'message'),
  [
    ('empty', 'pie', 'kinds are front, sweep'),
    ('b', 'sweep', "'b' is a sweep, so its x must be"),
  ],
)
def test_a_panel_that_cannot_be_drawn(panel, kind, message):
  rows = line('sparse_memory', (0.8, 0.1), panels=['b'], x='pretraining')
  with pytest.raises(ValueError, match=message):
    analyse(rows, panels={panel: {'kind': kind}})
