"""The page tells what the numbers say, and stands alone."""

import html.parser
import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from smft_jax.report import figures
from smft_jax.report import run as report
from smft_jax.report import summary


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


def test_headline_of_recall():
  assert summary.headline(RECALL) == (
    'It answers 84.2% of the questions on the new documents in phrasings it'
    ' never trained on (3.0% before). It lost 4.6% of what it knew.'
  )


def test_headline_says_when_nothing_was_lost():
  held_out = {'known': measure('recall', 0.9, 0.95, -0.05)}
  said = summary.headline(RECALL | {'held_out': held_out})
  assert said.endswith('It lost nothing of what it knew.')


def test_headline_of_losses():
  assert summary.headline(LOSS) == (
    'The loss on the new documents fell by 25.0%, from 4.000 to 3.000 nats per'
    ' token. The loss on wikitext2 test rose by 1.0%.'
  )


def test_headline_leaves_out_what_is_no_number():
  drop = measure('recall', 0.0, 0.1, float('nan'))
  said = summary.headline(RECALL | {'held_out': {'known': drop}})
  assert said.endswith('(3.0% before).')


def test_names_of_losses_are_of_documents_and_answers():
  results = LOSS | {'target_unseen_phrasing': measure('nll', 5.0, 4.0)}
  (only,) = summary.retention_charts(results)
  assert only['series'][0].label == 'the new documents'
  assert summary.headline(results) == summary.headline(LOSS)
  labels = [label for _, label in summary.tiles(results)]
  assert 'NLL on answers about the new documents' in labels


def test_headline_of_a_base_and_of_nothing():
  assert summary.headline(BASE) == 'The base model: recall 99.0% on known.'
  assert summary.headline({}) == 'Nothing was measured.'


class Page(html.parser.HTMLParser):
  """Collects what could reach outside, and whether tags are balanced."""

  void = ('meta', 'br', 'link', 'img')

  def __init__(self):
    super().__init__()
    self.open, self.outside, self.tags = [], [], []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    if tag not in self.void:
      self.open.append(tag)
    self.outside += [v for k, v in attributes if k in ('src', 'href')]

  def handle_startendtag(self, tag, attributes):
    self.tags.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


UNMEASURED = RECALL | {'target': measure('nll', float('nan'), 1.0)}


@pytest.mark.parametrize('results', [RECALL, LOSS, BASE, UNMEASURED, {}])
def test_page_is_whole_and_stands_alone(tmp_path, results):
  text = write(tmp_path, results)
  page = Page()
  page.feed(text)
  assert page.open == []
  assert page.outside == []
  assert not {'script', 'link', 'img'} & set(page.tags)
  assert 'url(' not in text
  assert 'prefers-color-scheme: dark' in text
  assert 'width=device-width' in text
  names = {path.name for path in tmp_path.iterdir()}
  assert names - {'retention.svg'} == {'report.html'}


def test_page_shows_the_numbers(tmp_path):
  (tmp_path / 'config.json').write_text('{"argv": ["--config=a.py"]}')
  config = {'seed': 1, 'method': {'ranking': 'tf_idf', 't': 17}}
  records = [
    {'event': 'pretrain', 'step': step, 'loss': 5.0 - step} for step in range(4)
  ]
  text = write(tmp_path, RECALL, config, records)
  for part in (
    '84.2%', '87.0%', '4.6%', '+1%', '7.34%', '3m07s', '812,345', '1,234',
    'python -m smft_jax.train --config=a.py', '--config.method.t=17',
    'loss, nats per token', 'new facts', '+0.812', '4.60%',
  ):  # fmt: skip
    assert part in text, part
  # The control was never taught, so nothing of it can be lost.
  assert '-66.' not in text


def test_page_holds_all_measures(tmp_path):
  results = RECALL | {
    'metrics_before': {'known': {'f1': 0.9871, 'nll': 0.123}},
    'metrics_after': {'known': {'f1': 0.9113, 'nll': float('nan')}},
  }
  text = write(tmp_path, results)
  for part in ('Everything measured', '0.987', '0.911', '-0.076', '0.123'):
    assert part in text


def test_page_escapes_what_it_is_given(tmp_path):
  results = RECALL | {'method': '<b>&', 'counts': {'<i>': '"<u>"'}}
  text = write(tmp_path, results, {'a': '<script>'})
  assert not re.search('<script>|<b>&|<u>|<i>', text)
  assert '&lt;script&gt;' in text


def test_losses_are_drawn_as_changes_and_apart_from_recall():
  shares, losses = summary.retention_charts(RECALL)
  assert [line.label for line in shares['series']] == [
    'new, unseen phrasings',
    'new, phrasings trained on',
    'known before (held out)',
    'never taught (control)',
  ]
  assert shares['y_range'] == (0.0, 1.0)
  assert shares['series'][0].points[-1] == (35, pytest.approx(0.842))
  # A point that was not measured is left out, and the line goes on.
  assert [x for x, _ in shares['series'][3].points] == [0, 7, 21, 28, 35]
  (line,) = losses['series']
  assert line.points[-1] == (35, pytest.approx(0.01))
  (only,) = summary.retention_charts(LOSS)
  assert only['series'][0].points == ((0, 0.0), (5, -0.25))


def test_a_held_out_set_may_be_called_as_a_key_of_the_results():
  # As a file held_out.txt is.
  held_out = {'held_out': measure('perplexity', 3.0, 3.3, 0.1)}
  curve = [{'documents': x, 'held_out': {'held_out': 3 + x}} for x in (0, 1)]
  (only,) = summary.retention_charts(
    {'held_out': held_out, 'seed': 3, 'retention_curve': curve}
  )
  assert only['series'][0].points == ((0, 0.0), (1, pytest.approx(1 / 3)))


def test_no_chart_of_a_single_measurement():
  results = RECALL | {'retention_curve': RECALL['retention_curve'][:1]}
  assert summary.retention_charts(results) == []
  assert summary.retention_charts(BASE) == []


def test_many_losses_are_thinned_and_the_last_is_kept():
  records = [
    {'event': 'pretrain', 'step': step, 'loss': 1.0} for step in range(10007)
  ]
  (drawn,) = summary.pretraining_charts([*records, {'event': 'evaluation'}])
  points = drawn['series'][0].points
  assert len(points) < 300
  assert points[-1] == (10006, 1.0)


def draw(series, **more):
  return figures.line_chart(
    series, x_label='x', y_label='y', show=lambda y: f'{y:.3g}', **more
  )


def series(*ys, label='a'):
  return figures.Series(
    label=label, points=tuple(enumerate(ys)), color='blue', dashes='6 4'
  )


def numbers(svg, tag, attribute):
  root = ElementTree.fromstring(svg)
  name = '{http://www.w3.org/2000/svg}' + tag
  return [float(e.get(attribute)) for e in root.iter(name)]


@pytest.mark.parametrize('width', [354, 720])
@pytest.mark.parametrize(
  'ys', [(0.0, 1.0), (3.0, 3.0, 3.0), (-0.2, 0.01), (0.0,), (1e6, 2e6)]
)
def test_drawing_stays_on_the_paper(ys, width):
  svg = draw([series(*ys)], width=width, height=300, legend=True)
  for x in numbers(svg, 'circle', 'cx') + numbers(svg, 'text', 'x'):
    assert 0 <= x <= width
  for y in numbers(svg, 'circle', 'cy') + numbers(svg, 'text', 'y'):
    assert 0 <= y <= 300


def test_higher_values_are_drawn_higher_and_later_ones_to_the_right():
  svg = draw([series(1.0, 5.0, 2.0)])
  assert numbers(svg, 'circle', 'cx') == sorted(numbers(svg, 'circle', 'cx'))
  first, high, low = numbers(svg, 'circle', 'cy')
  assert high < low < first


def test_values_at_the_ends_do_not_overlap():
  lines = [series(0.0, y, label=str(y)) for y in (0.5, 0.501, 0.502, 0.9)]
  root = ElementTree.fromstring(draw(lines, y_range=(0.0, 1.0)))
  values = [e for e in root.iter() if e.get('class') == 'value']
  assert [e.text for e in values] == ['0.5', '0.501', '0.502', '0.9']
  heights = sorted(float(e.get('y')) for e in values)
  assert all(b - a >= 13.9 for a, b in itertools.pairwise(heights))


def test_spread_keeps_order_and_centre():
  wanted = [50.0, 49.0, 51.0, 20.0, 64.5]
  placed = figures.spread(wanted, gap=14)
  order = sorted(range(5), key=lambda i: wanted[i])
  assert order == sorted(range(5), key=lambda i: placed[i])
  gaps = [placed[b] - placed[a] for a, b in itertools.pairwise(order)]
  assert all(gap >= 14 - 1e-9 for gap in gaps)
  assert sum(placed) == pytest.approx(sum(wanted))


@pytest.mark.parametrize(
  ('low', 'high'), [(0, 1), (0, 50), (-0.23, 0.023), (0, 0), (0, 7e-5), (3, 4)]
)
def test_ticks_are_few_even_and_enclose(low, high):
  found = figures.ticks(low, high, 5)
  assert 2 <= len(found) <= 8
  assert found[0] <= low
  assert found[-1] >= high
  steps = {round(b - a, 9) for a, b in itertools.pairwise(found)}
  assert len(steps) == 1


def test_standalone_picture_is_xml_with_its_own_style(tmp_path):
  write(tmp_path, RECALL)
  root = ElementTree.parse(tmp_path / 'retention.svg').getroot()
  assert root.tag.endswith('svg')
  assert '--blue' in root[0].text
  texts = [e.text for e in root.iter() if e.tag.endswith('text')]
  assert 'known before (held out)' in texts
  assert '84.2%' in texts


def test_labels_are_escaped():
  svg = draw([series(1.0, 2.0, label='<&">')], legend=True)
  assert '<&' not in svg
  ElementTree.fromstring(svg)
