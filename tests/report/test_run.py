"""The page and the table of a run show its numbers and load nothing."""

import html
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree

import pytest

from smft_jax.report import run as report
from smft_jax.report import summary
from tests.support import html_page


def measure(metric, before, after, drop=None):
  found = {'metric': metric, 'before': before, 'after': after}
  return found if drop is None else found | {'relative_drop': drop}


RECALL = {
  'method': 'sparse_memory',
  'seed': 1,
  'steps': 800,
  'wall_s': 187.0,
  'tokens': 812345,
  'slots_updated': 1234,
  'params_changed_fraction': 0.0734,
  'target': measure('recall', 0.02, 0.87),
  'target_unseen_phrasing': measure('recall', 0.03, 0.842),
  'held_out': {
    'known': measure('recall', 1.0, 0.954, 0.046),
    'never_seen': measure('recall', 0.03, 0.05, -2 / 3),
    'general_text': measure('nll', 2.0, 2.02, 0.01),
  },
  'retention_curve': [
    {
      'documents': 7 * i,
      'target': 0.02 + 0.17 * i,
      'target_unseen_phrasing': 0.03 + 0.1624 * i,
      'held_out': {
        'known': 1.0 - 0.0092 * i,
        'never_seen': None if i == 2 else 0.03,
        'general_text': 2.0 + 0.004 * i,
      },
    }
    for i in range(6)
  ],
  'counts': {'new_facts': 300},
  'environment': {'device': 'cpu'},
}
LOSS = {
  'method': 'sparse_memory',
  'seed': 0,
  'target': measure('nll', 4.0, 3.0),
  'held_out': {
    'known': measure('answer_nll', 2.0, 1.9, -0.05),
    'wikitext2_test': measure('nll', 2.0, 2.02, 0.01),
  },
  'retention_curve': [
    {'documents': 0, 'target': 4.0, 'held_out': {'known': 2.0}},
    {'documents': 5, 'target': 3.0, 'held_out': {'known': 1.9}},
  ],
}
BASE = {
  'method': None,
  'seed': 0,
  'held_out': {'known': measure('recall', 0.99, None)},
}


def write(folder, results, config=None, records=()):
  report.write_report(folder, results, config or {}, records)
  return (folder / 'report.html').read_text()


def losses(count):
  """Returns the records of a base's pretraining."""
  return [
    {'event': 'pretrain', 'step': step, 'loss': 5.0 - step}
    for step in range(count)
  ]


def test_rows_are_targets_and_held_out_sets():
  assert summary.rows(RECALL) == [
    ('new, unseen phrasings', 'recall', '3.0%', '84.2%', ''),
    ('new, phrasings trained on', 'recall', '2.0%', '87.0%', ''),
    ('known before (held out)', 'recall', '100.0%', '95.4%', '4.60%'),
    # The control was never taught, so nothing of it can be lost.
    ('never taught (control)', 'recall', '3.0%', '5.0%', ''),
    ('general text', 'NLL', '2.000', '2.020', '1.00%'),
  ]
  assert summary.rows(BASE) == [
    ('known before (held out)', 'recall', '99.0%', '', '')
  ]


def test_losses_are_named_by_their_text():
  results = LOSS | {'target_unseen_phrasing': measure('nll', 5.0, 4.0)}
  names = [row[0] for row in summary.rows(results)]
  assert names[:2] == ['answers about the new documents', 'the new documents']
  assert f'NLL: {names[0]}' in [label for _, label in summary.tiles(results)]
  (only,) = report.retention_charts(results)
  assert only['series'][0].label == names[1]


def test_lines_end_with_the_memory():
  health = {'slots': 49, 'usage': 0.5, 'top_1_percent_share': 0.25}
  results = RECALL | {'memory_health': health | {'kl_to_uniform': 0.125}}
  *table, memory = summary.lines(results)
  assert [line.split()[-1] for line in table] == [
    'lost', '84.2%', '87.0%', '4.60%', '5.0%', '1.00%',
  ]  # fmt: skip
  assert len({line.index('recall') for line in table[1:-1]}) == 1
  for part in ('49', '50.0%', '25.0%', '0.12 nats'):
    assert part in memory
  assert summary.lines({}) == ['nothing was measured']


UNMEASURED = RECALL | {'target': measure('nll', float('nan'), 1.0)}


@pytest.mark.parametrize('results', [RECALL, LOSS, BASE, UNMEASURED, {}])
def test_page_is_whole_and_stands_alone(tmp_path, results):
  text = write(tmp_path, results)
  html_page.Page(text)
  assert 'prefers-color-scheme: dark' in text
  assert 'width=device-width' in text
  names = {path.name for path in tmp_path.iterdir()}
  assert names - {'retention.svg'} == {'report.html'}


def test_page_shows_the_numbers(tmp_path):
  (tmp_path / 'config.json').write_text('{"argv": ["--config=a.py"]}')
  config = {'seed': 1, 'method': {'ranking': 'tf_idf', 't': 17}}
  records = losses(4)
  results = RECALL | {
    'metrics_before': {'known': {'f1': 0.9871, 'nll': 0.123}},
    'metrics_after': {'known': {'f1': 0.9113, 'nll': float('nan')}},
  }
  text = write(tmp_path, results, config, records)
  for part in (
    '84.2%', '87.0%', '1.00%', '7.34%', '3m07s', '812,345', '1,234',
    'python -m smft_jax.train --config=a.py', '--config.method.t=17',
    'loss, nats per token', 'new facts', '4.60%',
    'Everything measured', '0.987', '0.911', '-0.076', '0.123',
  ):  # fmt: skip
    assert part in text, part
  assert '-66.' not in text


def test_page_escapes_what_it_is_given(tmp_path):
  curve = [{'documents': x, 'held_out': {'<em>': x}} for x in (0, 1)]
  results = RECALL | {
    'method': '<b>&',
    'counts': {'<i>': '"<u>"'},
    'held_out': {'<em>': measure('recall', 1.0, 0.5, 0.5)},
    'retention_curve': curve,
  }
  text = write(tmp_path, results, {'a': '<script>'})
  assert not re.search('<script>|<b>&|<u>|<i>|<em>', text)
  assert '&lt;script&gt;' in text
  assert '<em>' not in (tmp_path / 'retention.svg').read_text()


def test_losses_are_drawn_as_changes_and_apart_from_recall():
  shares, losses = report.retention_charts(RECALL)
  labels = [line.label for line in shares['series']]
  assert labels == [row[0] for row in summary.rows(RECALL)][:4]
  assert shares['y_range'] == (0.0, 1.0)
  assert shares['series'][0].points[-1] == (35, pytest.approx(0.842))
  # A point that was not measured is skipped.
  assert [x for x, _ in shares['series'][3].points] == [0, 7, 21, 28, 35]
  (line,) = losses['series']
  assert line.points[-1] == (35, pytest.approx(0.01))
  (only,) = report.retention_charts(LOSS)
  assert only['series'][0].points == ((0, 0.0), (5, -0.25))


def test_questions_may_be_on_the_documents_only():
  unseen = [
    {**at, 'target_unseen_phrasing': y}
    for at, y in zip(LOSS['retention_curve'], (0.1, 0.8), strict=True)
  ]
  shares, losses = report.retention_charts(
    LOSS
    | {'target_unseen_phrasing': measure('f1', 0.1, 0.8)}
    | {'retention_curve': unseen}
  )
  assert shares['y_label'] == 'F1'
  assert shares['series'][0].points == ((0, 0.1), (5, 0.8))
  assert losses['series'][0].points == ((0, 0.0), (5, -0.25))


def test_a_held_out_set_may_have_the_name_of_a_key_of_the_results():
  # A file may be called held_out.txt.
  held_out = {'held_out': measure('perplexity', 3.0, 3.3, 0.1)}
  curve = [{'documents': x, 'held_out': {'held_out': 3 + x}} for x in (0, 1)]
  results = {'held_out': held_out, 'seed': 3, 'retention_curve': curve}
  (only,) = report.retention_charts(results)
  assert only['series'][0].points == ((0, 0.0), (1, pytest.approx(1 / 3)))


def test_a_single_measurement_is_no_chart():
  results = RECALL | {'retention_curve': RECALL['retention_curve'][:1]}
  assert report.retention_charts(results) == []
  assert report.retention_charts(BASE) == []


def test_many_losses_are_thinned_and_the_last_is_kept():
  records = [*losses(10007), {'event': 'evaluation'}]
  (drawn,) = report.pretraining_charts(records)
  points = drawn['series'][0].points
  assert len(points) < 300
  assert points[-1] == (10006, -10001.0)


def test_retention_svg_is_xml_with_its_own_style(tmp_path):
  write(tmp_path, RECALL)
  root = ElementTree.parse(tmp_path / 'retention.svg').getroot()
  assert root.tag.endswith('svg')
  assert '--blue' in root[0].text
  texts = {e.text for e in root.iter() if e.tag.endswith('text')}
  assert {'known before (held out)', '84.2%'} <= texts


def test_commands_can_be_pasted_into_a_shell(tmp_path):
  argv = [
    '--config=my configs/run.py:jsonl,hf',
    '--config.data.known_questions=()',
    "--config.data.held_out_text=O'Hara.txt",
  ]
  (tmp_path / 'config.json').write_text(json.dumps({'argv': argv}))
  config = {'data': {'held_out_questions': ["./it's.jsonl"], 'seed': 1}}
  report.write_report(tmp_path, RECALL, config, [])
  text = html.unescape((tmp_path / 'report.html').read_text())
  (command,) = re.findall('<pre>(python -m smft_jax.train .*)</pre>', text)
  assert shlex.split(command)[3:] == argv
  assert shlex.split(report.flags(config)) == [
    '--config.data.held_out_questions=["./it\'s.jsonl"]',
    '--config.data.seed=1',
  ]
