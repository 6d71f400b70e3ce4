"""Sources by name: four shapes, known by their fields; bad rows; real sets."""

import json

import pytest

from smft_jax import schema
from smft_jax.data import task
from smft_jax.data.sources import items
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources
from tests.support import small_tfds


@pytest.fixture(name='write')
def _write(tmp_path):
  """Writes rows as JSON lines, bytes as they are; returns the path."""

  def write(*rows, name='mine.jsonl'):
    lines = (
      r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows
    )
    (tmp_path / name).write_bytes(b'\n'.join(lines))
    return str(tmp_path / name)

  return write


def _reader(data_dir=''):
  return sources.Reader(problems_lib.Problems('refuse'), str(data_dir))


def _skipping(data_dir=''):
  return sources.Reader(problems_lib.Problems('skip'), str(data_dir))


def _refused(what, name, data_dir=''):
  """The message when a reader's method `what` refuses a source."""
  with pytest.raises(schema.UserError) as raised:
    getattr(_reader(data_dir), what)(name)
  assert '\n' not in str(raised.value)
  return str(raised.value)


def test_texts_of_a_data_set_and_of_a_file_read_alike(folder, write):
  texts = _reader(folder).texts('wikitext2:test')
  assert [t.id for t in texts] == ['wikitext2:test:0', 'wikitext2:test:1']
  assert texts[0].text == ' \n = A0 = \n \n The <unk> of 0 @-@ ends . '
  exported = write(*({'title': t.title, 'text': t.text} for t in texts))
  read = _reader().texts(exported)
  assert [(t.title, t.text) for t in read] == [(t.title, t.text) for t in texts]
  assert [t.id for t in read] == ['mine:1', 'mine:2']


def test_blank_lines_of_running_text_are_no_problem(write):
  path = write({'text': ''}, {'text': ' = A = \n'}, {'text': ' \n'})
  texts = _reader().texts(path)
  assert [(t.id, t.text) for t in texts] == [('mine:2', ' = A = \n')]


def test_questions_in_other_words(write):
  path = write(
    {'question': ' Who? ', 'answer': ['Ada', 'Ada K.']},
    {'problem': 'When?', 'answer': '1863', 'metadata': '{}'},
    {
      'question_id': 'tc_2',
      'question': 'Where?',
      'answer': {'aliases': ['Roma', 'Rome'], 'value': 'Rome'},
    },
    {'question': 'How many?', 'answer': 'Half is <<8/2=4>>4.\n#### 4'},
    name='mine.json',
  )
  read = _reader().questions(path)
  assert [q.id for q in read] == [f'mine:{i}' for i in (1, 2, 3, 4)]
  assert [(q.question, q.answers, q.working) for q in read] == [
    ('Who?', ('Ada', 'Ada K.'), ''),
    ('When?', ('1863',), ''),
    ('Where?', ('Rome', 'Roma'), ''),
    ('How many?', ('4',), 'Half is 4.'),
  ]


def test_paragraphs_of_squad(folder):
  documents = _reader(folder).documents('squad/v1.1')
  assert [d.id for d in documents][5:9] == [
    'Abbey/5', 'Abbey/6', 'Museum/0', 'Museum/1'
  ]  # fmt: skip
  assert len(documents) == 21
  last = documents[-1]
  assert (last.id, last.title) == ('Rhine_%C3%89tude/6', 'Rhine Étude')
  assert last.text.startswith('Rhine_%C3%89tude 6 opened in 1906.')
  assert [q.id for q in last.questions] == [
    '060-Rhine_%C3%89tude', '061-Rhine_%C3%89tude'
  ]  # fmt: skip
  assert last.questions[1].answers == ('1906', 'sea')


def test_an_export_of_squad_reads_as_the_data_set_does(folder, write):
  examples = small_tfds.squad_examples(
    small_tfds.STREAM_TITLES, 7, shuffle_seed=5
  )
  assert _reader().documents(write(*examples)) == _reader(folder).documents(
    'squad/v1.1'
  )


def test_squad_without_ids_keeps_its_order(write):
  rows = [
    {'title': 'T', 'context': f'c{i}', 'question': 'q', 'answers': ['a']}
    for i in range(11)
  ]
  documents = _reader().documents(write(*rows))
  assert [d.text for d in documents] == [f'c{i}' for i in range(11)]


def test_documents_of_ones_own(write):
  path = write(
    {
      'id': 'a',
      'title': 'Lisbon',
      'text': ' A port. ',
      'questions': [{'question': 'What?', 'answers': ['a port', 'port']}],
    },
    {'text': 'One sentence only', 'questions': None, 'context': 'other'},
  )
  asked = items.QuestionAnswer(
    id='a/0', question='What?', answers=('a port', 'port')
  )
  assert _reader().documents(path) == [
    items.SourceDocument(
      id='a', title='Lisbon', text='A port.', questions=(asked,)
    ),
    items.SourceDocument(id='mine:2', title='', text='One sentence only'),
  ]


def test_a_folder_of_texts(tmp_path):
  (tmp_path / 'b.txt').write_text('B.')
  (tmp_path / 'a.txt').write_text(' A. ')
  path = str(tmp_path)
  texts = _reader().texts(path)
  assert [(t.id, t.text) for t in texts] == [('a', ' A. '), ('b', 'B.')]
  documents = _reader().documents(f'{path}/a.txt')
  assert [(d.id, d.text) for d in documents] == [('a', 'A.')]


def test_choices(write):
  row = {'activity_label': 'Tea', 'ctx_a': 'She boils water.', 'ctx_b': 'she'}
  row |= {'ind': 3, 'endings': ['pours it.', 'flies.'], 'label': '0'}
  (choice,) = _reader().choices(write(row))
  assert choice == task.Choice(
    prompt='Tea: She boils water. She', endings=('pours it.', 'flies.'), label=0
  )


_QUESTION = {'id': 'q', 'question': 'Who?', 'answer': 'Ada'}


@pytest.mark.parametrize(
  ('row', 'kind', 'said'),
  [
    ({'question': '', 'answer': 'a'}, 'empty', "'question' is empty"),
    ({'question': 'b', 'answer': []}, 'no_answer', "'answer' has no answer"),
    (b'{"question": "caf\xe9"}', 'bad_utf8', 'not UTF-8 at byte'),
    (b'{"question": "b"', 'not_json', 'not JSON'),
    (b'[' + b' ' * (4 * 2**20) + b']', 'too_long', 'the line is longer than 4'),
    (
      {'query': 'b', 'answer': 'a'},
      'wrong_form',
      "'question' or 'problem' is missing; there is query, answer",
    ),
    (_QUESTION, 'duplicate_id', "id 'q' repeats "),
  ],
)
def test_a_bad_row_is_refused_or_skipped(write, row, kind, said):
  last = {'question': 'Where?', 'answer': 'Here'}
  path = write(_QUESTION, row, last)
  assert _refused('questions', path).startswith(f'{path}:2: {said}')
  reader = _skipping()
  assert [q.id for q in reader.questions(path)] == ['q', 'mine:3']
  assert reader.problems.counts == {kind: 1}


def test_an_id_of_a_row_that_was_skipped_is_free(write):
  path = write(_QUESTION | {'answer': []}, _QUESTION)
  reader = _skipping()
  assert len(reader.questions(path)) == 1
  assert reader.problems.counts == {'no_answer': 1}


def test_bad_examples_of_a_data_set_are_named_by_index(tmp_path):
  examples = [{'title': 't', 'text': text} for text in ('a', ' ', 'c')]
  small_tfds.write(tmp_path, 'notes', {'train': examples}, small_tfds.TEXT)
  said = _refused('documents', 'notes:train', tmp_path)
  assert said == "notes:train, example 1: 'text' is empty"
  read = _skipping(tmp_path).documents('notes')
  assert [d.id for d in read] == ['notes:train:0', 'notes:train:2']


def test_a_document_stays_if_its_question_is_skipped(write):
  good = {'question': 'b', 'answers': ['c']}
  bad = {'question': 'b', 'answers': []}
  path = write({'id': 'a', 'text': 'b', 'questions': [bad, good]})
  said = _refused('documents', path)
  assert said == f"{path}:1, question 0: 'answers' has no answer"
  reader = _skipping()
  (document,) = reader.documents(path)
  assert [q.id for q in document.questions] == ['a/1']
  assert reader.problems.counts == {'no_answer': 1}
  # A paragraph of SQuAD stays too.
  row = {'title': 'T', 'context': 'c', 'question': 'q', 'answers': []}
  reader = _skipping()
  (document,) = reader.documents(write(row))
  assert (document.id, document.questions) == ('T/0', ())
  assert reader.problems.counts == {'no_answer': 1}


@pytest.mark.parametrize('questions', [{}, ['c'], 'c', 3])
def test_questions_of_another_form(write, questions):
  path = write({'text': 'b', 'questions': questions})
  said = _refused('documents', path)
  assert said.startswith(f"{path}:1: 'questions' must be a list of")


@pytest.mark.parametrize(
  ('read', 'said'),
  [
    ('texts', "'text' is missing; there is answers, "),
    ('choices', "'activity_label' is missing; there is "),
  ],
)
def test_rows_of_another_shape(folder, read, said):
  message = _refused(read, 'squad/v1.1', folder)
  assert message.startswith(f'squad/v1.1:validation, example 0: {said}')


@pytest.mark.parametrize('policy', ['refuse', 'skip'])
def test_nothing_to_skip(folder, tmp_path, write, policy):
  reader = sources.Reader(problems_lib.Problems(policy), str(folder))
  empty = write(b'', b' ')
  wrong = write(_QUESTION, name='mine.pdf')
  (tmp_path / 'none').mkdir()
  for name, said in (
    (empty, 'holds no question that can be read; bad rows: 0'),
    (wrong, 'is a file of an unknown kind'),
    ('missing.mdx', 'is a file of an unknown kind'),
    (f'{empty}.jsonl', "did you mean 'mine.jsonl'?"),
    (f'{tmp_path}/none', 'holds no file that ends in .jsonl'),
    (
      f'{tmp_path}/non',
      f"there is no file {tmp_path}/non; did you mean 'none'?",
    ),
    ('./non', 'there is no file ./non;'),
    ('squad/v2.0', "did you mean 'squad/v1.1'?"),
    ('squad/v1.1:train', "has no split 'train'"),
    ('wikitext2', 'has the splits train, test'),
  ):
    with pytest.raises(schema.UserError) as raised:
      reader.questions(name)
    assert said in str(raised.value)


def test_nothing_left(write):
  reader = _skipping()
  fault = problems_lib.Fault('empty', 'no text')
  reader.problems.report(fault, 'elsewhere:1')
  with pytest.raises(schema.UserError, match='bad rows: 2'):
    reader.questions(write({'a': 1}, b'{'))


# The real data sets: one split of each shape and form.


@pytest.mark.parametrize(
  ('read', 'name', 'count', 'first'),
  [
    ('texts', 'wikitext2:validation', 60, 'Homarus gammarus'),
    ('texts', 'tiny_shakespeare:test', 1, "rance ta'en"),
    ('questions', 'natural_questions_open', 3610, 'Jason Flemyng'),
    ('questions', 'triviaqa_open:train_part', 8837, 'Carl Faberge'),
    ('questions', 'simpleqa:test', 4326, "answers=('1863',)"),
    ('questions', 'gsm8k:test', 1319, "answers=('50',), working="),
    ('choices', 'hellaswag_text', 10042, 'Ice fishing: A man is'),
  ],
)
def test_real_data_sets(data_dir, read, name, count, first):
  found = getattr(_reader(data_dir), read)(name)
  assert len(found) == count
  assert first in repr(found[0])
  if read != 'choices':
    assert len({item.id for item in found}) == count
  if name == 'gsm8k:test':  # one answer and no marks
    assert not any('<<' in q.working or '####' in q.working for q in found)
    assert all(q.working and len(q.answers) == 1 for q in found)
