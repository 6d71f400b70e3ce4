"""A sweep leaves numbers, a picture and one page in its folder."""

import html
import json
import struct

import pytest

from smft_jax.sweep.pareto import analysis as pareto
from smft_jax.sweep.pareto import report as pareto_report
from tests.support import html_page
from tests.support import pareto_rows

line = pareto_rows.line

REPORT = {
  'title': 'Learning against <forgetting>',
  'text': 'What was done.\n\nAnd how.',
  'labels': {'evil': '<script src="http://evil.example/x.js"></script>'},
  'panels': {
    'ranking': {
      'title': 'Ranking rule',
      'text': 'By which score slots are chosen.',
      'x_label': 't',
      'order': ('sparse_memory', 'full'),
    },
    'cliff': {'title': 'The <cliff>', 'kind': 'sweep', 'x_label': 't'},
    'corpus': {'title': 'Corpus'},
    'empty': {'title': 'What did not run'},
  },
}


def table():
  rows = pareto_rows.headline()
  rows += line('evil', (0.5, 0.2), (0.7, 0.3))
  rows += line('adapter', (0.8, 0.1), seeds=(0,))
  rows += line('in_context', (0.6, None))
  for t in (50, 300):
    for method, drop in (('sparse_memory', 0.1), ('full', 0.2)):
      rows += line(method, (0.7, drop), panels=['ranking'], x=t)
  for t in (10, 100, 1000):
    rows += line('sparse_memory', (t / 2000, t / 1e4), panels=['cliff'], x=t)
  for corpus in ('pretraining', 'training set'):
    rows += line('sparse_memory', (0.7, -0.01), panels=['corpus'], x=corpus)
  return rows


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Everything, written once."""
  folder = tmp_path_factory.mktemp('sweep')
  pareto.write(table(), folder, REPORT, ['lora-9', '<b>bold</b>'])
  return folder


@pytest.fixture(scope='module')
def page(folder):
  return html_page.Page((folder / 'report.html').read_text())


def test_pareto_json_has_what_is_promised(folder):
  found = json.loads((folder / 'pareto.json').read_text())
  table = found['equal_learning']
  assert table['target'] == pytest.approx(0.8)
  assert {'sparse_memory', 'full', 'lora', 'adapter'} < set(table['methods'])
  promised = {'drop_mean', 'drop_std', 'seeds', 'points', 'reached', 'tuned'}
  for method in table['methods'].values():
    assert promised | {'best_recall_mean'} < set(method)
  assert table['methods']['full']['drop_mean'] == pytest.approx(0.4)
  assert table['methods']['full']['seeds'] == 3
  assert set(found['hypervolume']['lora']) > {'mean', 'std'}
  assert set(found['fronts']) == set(table['methods'])
  assert found['failed'] == ['lora-9', '<b>bold</b>']


def test_the_picture_is_a_png_and_the_same_again(folder, tmp_path):
  assert [path.name for path in folder.glob('*.png')] == ['pareto.png']
  data = (folder / 'pareto.png').read_bytes()
  assert data[:8] == b'\x89PNG\r\n\x1a\n'
  width, height = struct.unpack('>II', data[16:24])
  assert 1000 < width < 2000
  assert 500 < height < 2000
  analysis = json.loads((folder / 'pareto.json').read_text())
  pareto_report.write_report(analysis, tmp_path, REPORT)
  for name in ('pareto.png', 'report.html'):
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_page_escapes_what_was_named_elsewhere(folder):
  text = (folder / 'report.html').read_text()
  assert not [part for part in ('<script', '<b>bold') if part in text]
  for part in ('<b>bold</b>', '<forgetting>', 'The <cliff>'):
    assert html.escape(part) in text


def test_page_shows_what_was_found(page):
  for part in (
    'of known facts lost by sparse memory at 80.0% recall', '20 ×',
    'What was done.', 'lora-9',
    'No point has finished.',  # the empty panel
    'in-context reading (reference)', '40.0% ± 0.0', '10.0 ×',
    '1.3 k', '5.2 kB', '1.7 T', '1.9', '90.0%', 'learning_rate=2',
    'validation points', 'locality', 'bytes changed', 'dominated area',
  ):  # fmt: skip
    assert part in page.words, part
  figures = [attributes for tag, attributes in page.tags if tag == 'svg']
  assert len(figures) == 6
  assert all(attributes['aria-label'] for attributes in figures)


def test_page_says_what_forgetting_is(tmp_path):
  report = REPORT | {'forgetting': 'answers'}
  pareto.write(table(), tmp_path, report)
  words = html_page.Page((tmp_path / 'report.html').read_text()).words
  assert 'of other answers changed by sparse memory at 80.0% recall' in words
  assert 'word for word' in words
  assert 'known facts' not in words.lower()


def test_forgetting_is_known_or_refused():
  with pytest.raises(ValueError, match=r"REPORT\['forgetting'\] = 'answer'"):
    pareto.analyse(table(), {'forgetting': 'answer'})


def test_page_names_the_command_of_the_plan(tmp_path):
  plan = {'config_file': 'a b.py:quick', 'points': []}
  (tmp_path / 'sweep.json').write_text(json.dumps(plan))
  rows = line('in_context', (0.8, None))  # nothing to draw
  analysis = pareto.analyse(rows, {}) | {'failed': []}
  pareto_report.write_report(analysis, tmp_path, {})
  text = (tmp_path / 'report.html').read_text()
  assert 'smft_jax.sweep &#39;--config=a b.py:quick&#39;' in text


PARTS = {
  'one rival': line('full', (0.8, 0.4)),
  'one point with a gain': line('sparse_memory', (0.8, -0.02), seeds=(0,)),
  'none of the headline': [
    *line('ewc', (0.0, 0.0)),
    *line('adapter', (0.5, 0.1)),
  ],
  'an ablation alone': line('sparse_memory', (0.8, 0.4), panels=['t'], x=3),
  'a reference alone': line('in_context', (0.8, None)),
  'nothing measured': [{'name': 'a', 'method': 'full', 'seed': None}],
  'own reach': [
    *pareto_rows.headline(),
    *line('sparse_memory', (0.9, 0.01)),
    *line('experts', (0.1, 0.01)),
  ],
}


@pytest.mark.parametrize('rows', PARTS.values(), ids=PARTS)
def test_part_of_a_sweep_gives_a_page(rows, tmp_path):
  pareto.write(rows, tmp_path, {}, [])
  page = html_page.Page((tmp_path / 'report.html').read_text())
  for nonsense in ('None', 'nan', 'unknown'):
    assert nonsense not in page.words


def test_nothing_is_written_without_rows(tmp_path):
  with pytest.raises(ValueError, match=r'\A.*no finished point.*\Z'):
    pareto.write([], tmp_path, {}, [])
  assert not list(tmp_path.iterdir())
