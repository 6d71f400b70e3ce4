"""What a sweep leaves in its folder: numbers, pictures and one page."""

import html.parser
import json
import struct

import pytest

from smft_jax.sweep.pareto import analysis as pareto
from smft_jax.sweep.pareto import figures as pareto_figures
from smft_jax.sweep.pareto import report as pareto_report
from tests.support import pareto_rows

REPORT = {
  'title': 'Learning against <forgetting>',
  'text': 'What was done.\n\nAnd how.',
  'command': 'python -m smft_jax.sweep --config=x.py',
  'labels': {'evil': '<script src="http://evil.example/x.js"></script>'},
  'panels': {
    'ranking': {
      'title': 'Ranking rule',
      'text': 'By which score slots are chosen.',
      'x_label': 't',
      'order': ('sparse_memory', 'full'),
    },
    'cliff': {'title': 'The <cliff>', 'kind': 'sweep', 'x_label': 't'},
    'corpus': {'title': 'Corpus', 'kind': 'sweep', 'x_label': 'corpus'},
    'empty': {'title': 'What did not run'},
  },
}


def table():
  rows = pareto_rows.headline()
  rows += pareto_rows.line('evil', (0.5, 0.2), (0.7, 0.3))
  rows += pareto_rows.line('adapter', (0.8, 0.1), seeds=(0,))
  rows += pareto_rows.line('in_context', (0.6, None))
  for t in (50, 300):
    for method, drop in (('sparse_memory', 0.1), ('full', 0.2)):
      rows += pareto_rows.line(method, (0.7, drop), panels=['ranking'], x=t)
  for t in (10, 100, 1000):
    rows += pareto_rows.line(
      'sparse_memory', (t / 2000, t / 1e4), panels=['cliff'], x=t
    )
  for corpus in ('pretraining', 'training set'):
    rows += pareto_rows.line(
      'sparse_memory', (0.7, -0.01), panels=['corpus'], x=corpus
    )
  return rows


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Everything, written once."""
  folder = tmp_path_factory.mktemp('sweep')
  pareto.write(table(), folder, REPORT, ['lora-9', '<b>bold</b>'])
  return folder


class Page(html.parser.HTMLParser):
  """Tags with their attributes, and whether all of them are closed."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.open, self.words = [], [], []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag not in ('meta', 'img', '!doctype'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words.append(data)


@pytest.fixture(scope='module')
def page(folder):
  return Page((folder / 'report.html').read_text())


@pytest.fixture(scope='module')
def words(page):
  return ' '.join(' '.join(page.words).split())


def size(path):
  """Width and height, from the header of a PNG file."""
  data = path.read_bytes()
  assert data[:8] == b'\x89PNG\r\n\x1a\n'
  assert data[-8:-4] == b'IEND'
  return struct.unpack('>II', data[16:24])


def test_pareto_json_has_what_is_promised(folder):
  found = json.loads((folder / 'pareto.json').read_text())
  table = found['equal_learning']
  assert table['target'] == pytest.approx(0.8)
  assert {'sparse_memory', 'full', 'lora', 'adapter'} < set(table['methods'])
  for method in table['methods'].values():
    promised = {
      'drop_mean', 'drop_std', 'seeds', 'points', 'reached', 'tuned',
      'best_recall_mean',
    }  # fmt: skip
    assert promised < set(method)
  assert table['methods']['full']['drop_mean'] == pytest.approx(0.4)
  assert table['methods']['full']['seeds'] == 3
  assert set(found['hypervolume']['lora']) > {'mean', 'std'}
  assert set(found['fronts']) == set(table['methods'])
  assert all({'sentence', 'met'} < set(v) for v in found['verdicts'])
  assert found['failed'] == ['lora-9', '<b>bold</b>']


def test_pictures_are_png_of_the_width_of_a_page(folder):
  pictures = {path.name: size(path) for path in folder.glob('*.png')}
  assert set(pictures) == {
    'pareto.png',
    'equal_learning.png',
    'panel_ranking.png',
    'panel_cliff.png',
    'panel_corpus.png',
  }
  for width, height in pictures.values():
    assert width == 1440
    assert 250 < height < 2500


def test_pictures_are_the_same_again(folder, tmp_path):
  analysis = json.loads((folder / 'pareto.json').read_text())
  analysis['panels'] = {'cliff': analysis['panels']['cliff']}
  pictures = pareto_figures.write_figures(analysis, tmp_path)
  assert set(pictures) == {'pareto', 'equal_learning', 'panel cliff'}
  for file in pictures.values():
    assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_page_is_whole_and_loads_nothing(folder, page):
  assert not page.open
  tags = [tag for tag, _ in page.tags]
  assert not {'script', 'link', 'iframe', 'object'} & set(tags)
  images = [attributes for tag, attributes in page.tags if tag == 'img']
  assert len(images) == 5
  for attributes in images:
    assert attributes['src'].startswith('data:image/png;base64,iVBOR')
    assert attributes['alt']
  for _, attributes in page.tags:
    assert not {'href', 'onload', 'onerror', 'srcset'} & set(attributes)
  text = (folder / 'report.html').read_text()
  assert 'url(' not in text
  assert '@import' not in text


def test_page_escapes_what_was_named_elsewhere(folder):
  text = (folder / 'report.html').read_text()
  assert '<script' not in text
  assert '<b>bold' not in text
  assert '&lt;b&gt;bold&lt;/b&gt;' in text
  assert '&lt;forgetting&gt;' in text
  assert 'The &lt;cliff&gt;' in text


def test_page_says_what_was_found(page, words, folder):
  found = json.loads((folder / 'pareto.json').read_text())
  assert (
    'Known facts lost, with 80.0% of the new ones learned: sparse memory 2.0%,'
    ' full finetuning 40.0% and LoRA 20.0%.'
  ) in words
  for verdict in found['verdicts']:
    assert verdict['sentence'] in words
  assert 'What was done.' in words
  assert 'lora-9' in words
  assert 'python -m smft_jax.sweep --config=x.py' in words
  assert 'No point of it has finished.' in words  # the empty panel
  assert 'in-context reading (reference)' in words
  assert 'Share of what the base model knew before' in words


def test_page_tells_costs_and_tuning(words):
  for cell in ('1.3 k', '5.2 kB', '1.7 T', '1.9', '90.0%', 'learning_rate=2'):
    assert cell in words
  for head in (
    'validation points', 'locality', 'bytes changed', 'dominated area',
  ):  # fmt: skip
    assert head in words


def test_page_names_the_command_of_the_plan(tmp_path):
  plan = {'config_file': 'a b.py:quick', 'points': []}
  (tmp_path / 'sweep.json').write_text(json.dumps(plan))
  analysis = pareto.analyse(pareto_rows.headline(), {}) | {'failed': []}
  pareto_report.write_report(analysis, tmp_path, {}, {})
  text = (tmp_path / 'report.html').read_text()
  assert 'smft_jax.sweep &#x27;--config=a b.py:quick&#x27;' in text


@pytest.mark.parametrize(
  'rows',
  [
    pytest.param(pareto_rows.line('full', (0.8, 0.4)), id='one rival'),
    pytest.param(
      pareto_rows.line('sparse_memory', (0.8, -0.02), seeds=(0,)),
      id='one point with a gain',
    ),
    pytest.param(
      pareto_rows.line('ewc', (0.0, 0.0))
      + pareto_rows.line('adapter', (0.5, 0.1)),
      id='none of the headline',
    ),
    pytest.param(
      pareto_rows.line('sparse_memory', (0.8, 0.4), panels=['t'], x=3),
      id='an ablation alone',
    ),
    pytest.param(
      pareto_rows.line('in_context', (0.8, None)), id='a reference alone'
    ),
    pytest.param(
      [{'name': 'a', 'method': 'full', 'seed': None}], id='nothing measured'
    ),
    pytest.param(
      pareto_rows.headline()
      + pareto_rows.line('sparse_memory', (0.9, 0.01))
      + pareto_rows.line('experts', (0.1, 0.01)),
      id='own reach',
    ),
  ],
)
def test_part_of_a_sweep_gives_a_page(rows, tmp_path):
  pareto.write(rows, tmp_path, {}, [])
  page = Page((tmp_path / 'report.html').read_text())
  assert not page.open
  images = [tag for tag, _ in page.tags if tag == 'img']
  assert len(images) == len(list(tmp_path.glob('*.png')))
  words = ' '.join(page.words)
  for nonsense in ('None', 'nan', 'unknown ±'):
    assert nonsense not in words.replace('None of', '')


def test_nothing_is_written_without_rows(tmp_path):
  with pytest.raises(ValueError, match='no finished point'):
    pareto.write([], tmp_path, {}, [])
  assert not list(tmp_path.iterdir())
