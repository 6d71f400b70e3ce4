"""Files of data in the ways that people have them: read alike."""

import csv
import gzip
import json
import logging
import math
import os

import pytest

from smft_jax import schema
from smft_jax.data import augment
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources

ROWS = [
  {'id': 'a', 'title': 'Fog', 'text': 'Fog is \u2028 wet, "very".'},
  {'id': 'b', 'title': 'Rain', 'text': 'Rain\nfalls.'},
]
ARTICLES = {
  'version': 'v2.0',
  'data': [
    {
      'title': 'Black_Forest',
      'paragraphs': [
        {
          'context': 'It is dark.',
          'qas': [
            {
              'id': '1',
              'question': 'Is it?',
              'answers': [
                {'text': 'dark', 'answer_start': 6},
                {'text': 'dark', 'answer_start': 6},
                {'text': 'It is', 'answer_start': 0},
              ],
              'is_impossible': False,
            },
            {
              'id': '2',
              'question': 'Why?',
              'answers': [],
              'plausible_answers': [{'text': 'dark', 'answer_start': 6}],
              'is_impossible': True,
            },
          ],
        },
        {'context': 'It is large.', 'qas': []},
      ],
    },
    {'title': 'Fog', 'paragraphs': [{'context': 'Fog is wet.', 'qas': []}]},
  ],
}


def reader(policy='refuse'):
  return sources.Reader(problems_lib.Problems(policy))


def refused(path, what='texts'):
  with pytest.raises(schema.UserError) as raised:
    getattr(reader(), what)(str(path))
  assert '\n' not in str(raised.value)
  return str(raised.value)


def as_lines(rows):
  return '\n'.join(map(json.dumps, rows)) + '\n'


def as_csv(rows, delimiter=','):
  class Text(list):
    write = list.append

  cells = Text()
  writer = csv.DictWriter(cells, ['id', 'text', 'title'], delimiter=delimiter)
  writer.writeheader()
  writer.writerows(rows)
  return ''.join(cells)


LAYOUTS = {
  'a.jsonl': as_lines(ROWS),
  'b.json': as_lines(ROWS),
  'c.ndjson': as_lines(ROWS),
  'D.JSONL': as_lines(ROWS),
  'e.json': json.dumps(ROWS),
  'f.json': json.dumps(ROWS, indent=2, ensure_ascii=False),
  'g.json': '\n\n'.join(json.dumps(row, indent=1) for row in ROWS),
  'h.json': json.dumps({'version': '1', 'data': ROWS}, indent=2),
  'i.json': json.dumps({'data': ROWS}),
  'j.json': ' \n' + json.dumps(ROWS).replace('}, {', '},\n{') + '\n \n',
  'k.csv': as_csv(ROWS),
  'l.tsv': as_csv(ROWS, '\t'),
}


@pytest.mark.parametrize('is_compressed', [False, True])
@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
@pytest.mark.parametrize('name', LAYOUTS)
def test_layouts_of_the_same_rows(tmp_path, name, mark, is_compressed):
  data = mark + LAYOUTS[name].encode()
  file = tmp_path / name
  if is_compressed:
    file = tmp_path / f'{name}.gz'
    data = gzip.compress(data)
  file.write_bytes(data)
  found = reader().texts(str(file))
  assert [(t.id, t.title, t.text) for t in found] == [
    (row['id'], row['title'], row['text']) for row in ROWS
  ]
  assert not sources.is_data_set(str(file))


@pytest.mark.parametrize('indent', [None, 2])
def test_articles_as_squad_publishes_them(tmp_path, indent):
  file = tmp_path / 'dev-v2.0.json'
  file.write_text(json.dumps(ARTICLES, indent=indent))
  found = reader().documents(str(file))
  assert [(d.title, d.text) for d in found] == [
    ('Black Forest', 'It is large.'),
    ('Black Forest', 'It is dark.'),
    ('Fog', 'Fog is wet.'),
  ]
  asked = [q for d in found for q in d.questions]
  assert [(q.question, q.answers) for q in asked] == [
    ('Is it?', ('dark', 'It is'))
  ]
  alone = reader().questions(str(file))
  assert [(q.id, q.question) for q in alone] == [('1', 'Is it?')]


def test_files_with_marks_that_were_joined(tmp_path):
  file = tmp_path / 'mine.json'
  one = '\ufeff' + json.dumps({'text': 'Fog.'}, indent=1)
  for end in ('\n', ''):
    file.write_text(f'{one}{end}{one}{end}', encoding='utf-8')
    assert [t.id for t in reader().texts(str(file))] == ['mine:1', 'mine:2']


@pytest.mark.parametrize('name', ['a.jsonl', 'a.json', 'a.txt', 'a.csv'])
def test_utf_16_is_named(tmp_path, name):
  file = tmp_path / name
  file.write_text(as_lines(ROWS), encoding='utf-16')
  said = ':1: not UTF-8 at byte 1, but UTF-16 as it seems: save it as UTF-8'
  assert refused(file).endswith(said)


def test_a_long_first_line_is_not_taken_for_a_document(tmp_path):
  file = tmp_path / 'all.json'
  rows = [{'text': 'Fog. ' * 9_000} for _ in range(100)]
  file.write_text(json.dumps(rows))
  assert file.stat().st_size > 4 * 2**20
  found = reader().texts(str(file))
  assert [t.id for t in found] == [f'all:{n + 1}' for n in range(100)]


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    ('{"text": "a"\n{"text": "b"}\n', ':1: not JSON at character'),
    ('[{"text": "a"},\n{"text": "b"', ':2: not JSON at character'),
    ('[{"text": "a"}\n{"text": "b"}]', ':1: not JSON .* Expecting , or ]'),
    ('[{"text": "a"},\n3]', ':2, record 2: a line is one JSON object'),
    ('{"data": [{"text": "a"}, 3]}', ':1, record 2: a line is one JSON obj'),
    ('{"data": [{"paragraphs": [{"qas": true}]}]}', ':1, record 1: a line is'),
    ('[]', 'holds no text that can be read'),
    ('', 'holds no text that can be read'),
    ('[{"text": "a"}, {"text": "\\ud800"}]', ':1: a text has half a character'),
  ],
)
def test_faults_are_told_by_their_line(tmp_path, content, said):
  file = tmp_path / 'mine.json'
  file.write_text(content)
  with pytest.raises(schema.UserError, match=said):
    reader().texts(str(file))


def test_a_damaged_compressed_file(tmp_path):
  file = tmp_path / 'mine.jsonl.gz'
  file.write_bytes(gzip.compress(as_lines(ROWS).encode())[:-12])
  assert 'mine.jsonl.gz is cut short or damaged' in refused(file)


def test_exports_with_null_beside_the_field_that_counts(tmp_path):
  file = tmp_path / 'mine.jsonl'
  rows = [
    {'question': None, 'problem': 'What?', 'answers': None, 'answer': 42},
    {'question': 'Who?', 'answers': [{'text': 'Ada'}, {'text': ''}]},
    {'question': 'When?', 'answers': {'text': ['1843'], 'answer_start': [1]}},
    {'question': 'How?', 'answer': {'value': 'so', 'aliases': ['', 'thus']}},
  ]
  file.write_text(as_lines(rows))
  found = reader().questions(str(file))
  assert [q.answers for q in found] == [
    ('42',),
    ('Ada',),
    ('1843',),
    ('so', 'thus'),
  ]


def test_exports_of_rows_of_two_kinds(tmp_path):
  file = tmp_path / 'mine.jsonl'
  lacking = {'questions': math.nan, 'title': math.nan, 'id': math.nan}
  squad = {'context': 'Fog is wet.', 'title': 'Fog', 'text': None, 'id': None}
  asked = [{'question': f'{n}?', 'answers': 'wet'} for n in range(12)]
  rows = [{'text': 'Rain.'} | lacking, *(squad | one for one in asked)]
  file.write_text(as_lines(rows))
  rain, fog = reader().documents(str(file))
  assert (rain.id, rain.title, rain.text) == ('mine:1', '', 'Rain.')
  assert [q.question for q in fog.questions] == [q['question'] for q in asked]


def test_an_export_of_squad_2_with_questions_that_have_no_answer(tmp_path):
  file = tmp_path / 'mine.jsonl'
  row = {'id': '1', 'title': 'Fog', 'context': 'Fog is wet.', 'question': 'Is?'}
  rows = [
    row | {'answers': {'text': ['wet'], 'answer_start': [7]}},
    row | {'id': '2', 'answers': {'text': [], 'answer_start': []}},
  ]
  file.write_text(as_lines(rows))
  (document,) = reader().documents(str(file))
  assert [q.id for q in document.questions] == ['1']


def test_folders_are_read_with_all_that_is_in_them(tmp_path, caplog):
  (tmp_path / 'b' / 'deep').mkdir(parents=True)
  (tmp_path / '.git').mkdir()
  for name in (
    'b/notes.md',
    'b/deep/notes.TXT',
    'z.txt',
    '.git/x.txt',
    'c.pdf',
  ):
    (tmp_path / name).write_text(name)
  (tmp_path / 'a.jsonl').write_text(
    as_lines([{'text': 'one'}, {'text': 'two'}])
  )
  with caplog.at_level(logging.WARNING):
    found = reader().texts(f'{tmp_path}/')
  assert [(t.id, t.text) for t in found] == [
    ('a:1', 'one'),
    ('a:2', 'two'),
    ('b/deep/notes', 'b/deep/notes.TXT'),
    ('b/notes', 'b/notes.md'),
    ('z', 'z.txt'),
  ]
  assert 'left out 1 files of other kinds' in caplog.text
  assert 'c.pdf' in caplog.text


def test_names_of_another_encoding_become_ids(tmp_path):
  path = tmp_path / os.fsdecode(b'caf\xe9.txt')
  path.write_text('Fog.')
  for source in (f'{tmp_path}/', str(path)):
    assert [t.id for t in reader().texts(source)] == ['caf\\xe9']


def test_a_folder_with_a_bad_file(tmp_path):
  (tmp_path / 'a.txt').write_text('fine')
  (tmp_path / 'b.txt').write_text(' \n')
  assert refused(tmp_path).endswith('b.txt:1: the file is empty')
  assert [t.id for t in reader('skip').texts(str(tmp_path))] == ['a']
  (tmp_path / 'b.txt').write_bytes(b'fine\nthen caf\xe9\n')
  assert 'b.txt:2: ' in refused(tmp_path)


def test_a_folder_of_nothing(tmp_path):
  (tmp_path / 'a.pdf').write_text('x')
  assert 'holds no file that ends in .jsonl, .json' in refused(tmp_path)


def test_a_file_of_text_is_one_text(tmp_path):
  file = tmp_path / 'rain.txt'
  file.write_bytes(b'\xef\xbb\xbf It rains.\n\nWe stay. ')
  (found,) = reader().texts(str(file))
  assert (found.id, found.text) == ('rain', ' It rains.\n\nWe stay. ')


def test_a_file_that_is_not_there(tmp_path):
  assert 'there is no file' in refused(tmp_path / 'gone' / 'mime.txt')
  (tmp_path / 'mine.json').write_text('{}')
  assert "did you mean 'mine.json'?" in refused(tmp_path / 'mime.json')


def test_an_ending_that_is_not_known(tmp_path):
  (tmp_path / 'mine.pdf').write_text('x')
  assert (
    'is a file of an unknown kind; files that can be read end in .json'
    in (refused(tmp_path / 'mine.pdf'))
  )


def test_numbers_that_are_none(tmp_path):
  file = tmp_path / 'a.jsonl'
  rows = [
    {'question': 'a', 'answer': math.nan},
    {'question': 'b', 'answers': ['1912', math.nan]},
    {'question': 'c', 'answer': 1912.0},
    {'question': 'd', 'answer': 0.5},
    {'question': 'e', 'answer': math.inf},
  ]
  file.write_text(as_lines(rows))
  made = reader('skip')
  found = made.questions(str(file))
  assert [q.answers for q in found] == [('1912',), ('1912',), ('0.5',)]
  assert made.problems.counts == {'wrong_form': 2}
  assert ":1: 'answers' or 'answer' is missing" in refused(file, 'questions')


def test_links_are_followed_once_and_broken_ones_named(tmp_path, caplog):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'real' / 'a.txt').write_text('one')
  folder = tmp_path / 'mine'
  folder.mkdir()
  (folder / 'sub').symlink_to(tmp_path / 'real')
  (folder / 'back').symlink_to(folder)
  (folder / 'gone.txt').symlink_to(tmp_path / 'nothing')
  with caplog.at_level(logging.WARNING):
    found = reader().texts(str(folder))
  assert [(t.id, t.text) for t in found] == [('sub/a', 'one')]
  assert 'gone.txt' in caplog.text


def test_files_that_differ_in_their_endings_only(tmp_path):
  for name in ('intro.md', 'intro.txt', 'other.txt'):
    (tmp_path / name).write_text(name)
  found = reader().texts(str(tmp_path))
  assert [t.id for t in found] == ['intro.md', 'intro.txt', 'other']


def test_a_record_with_data_beside_its_text(tmp_path):
  file = tmp_path / 'a.jsonl'
  rows = [{'text': 'fog', 'data': ['x']}, {'text': 'rain', 'data': []}]
  file.write_text(as_lines(rows))
  assert [t.text for t in reader().texts(str(file))] == ['fog', 'rain']


def test_a_file_that_fails_while_it_is_read(tmp_path):
  file = tmp_path / 'a.jsonl'
  file.symlink_to('/proc/self/mem')
  assert 'a.jsonl is cut short or damaged: [Errno 5]' in refused(file)


def test_a_folder_with_the_ending_of_a_file(tmp_path, monkeypatch):
  folder = tmp_path / 'rows.jsonl'  # as Spark names what it writes
  folder.mkdir()
  (folder / 'part-0.jsonl').write_text(json.dumps({'text': 'Fog.'}))
  monkeypatch.chdir(tmp_path)
  assert [t.id for t in reader().texts('rows.jsonl')] == ['part-0:1']
  with pytest.raises(schema.UserError, match='is a folder, not a fi'):
    augment.read('rows.jsonl')
