"""Tables: rows that are read, and faults that cost their own row alone."""

import pytest

from smft_jax import schema
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources

ROWS = [
  {'id': 'a', 'title': 'Fog', 'text': 'Fog is wet.'},
  {'id': 'b', 'title': 'Rain', 'text': 'Rain\nfalls.'},
]


def reader(policy='refuse'):
  return sources.Reader(problems_lib.Problems(policy))


def refused(path):
  with pytest.raises(schema.UserError) as raised:
    reader().texts(str(path))
  assert '\n' not in str(raised.value)
  return str(raised.value)


def test_parquet(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  file = tmp_path / 'a.parquet'
  rows = [*ROWS, {'id': None, 'title': None, 'text': 'Third.'}]
  parquet.write_table(pyarrow.Table.from_pylist(rows), file)
  found = reader().texts(str(file))
  assert [t.id for t in found] == ['a', 'b', 'a:3']
  assert found[1].text == ROWS[1]['text']
  file.write_bytes(file.read_bytes()[:-9])
  assert 'a.parquet is cut short or damaged' in refused(file)


def test_faults_of_a_table(tmp_path):
  file = tmp_path / 'mine.csv'
  file.write_text('text\nfog\nrain,again\nsnow\n')
  assert 'mine.csv:3: there are more cells than columns' in refused(file)
  found = reader('skip').texts(str(file))
  assert [(t.id, t.text) for t in found] == [
    ('mine:1', 'fog'),
    ('mine:3', 'snow'),
  ]
  file.write_bytes(b'text\ncaf\xe9\n')
  assert 'mine.csv:2: ' in refused(file)


@pytest.mark.parametrize('name', ['a.csv', 'a.tsv'])
def test_a_quote_that_is_never_closed_costs_its_row_alone(tmp_path, name):
  file = tmp_path / name
  file.write_text('text\none\n"two\nthree\n"a\nb"\nfour\n')
  # The quote of the third line is closed in the fifth.
  assert ':3: ' in refused(file)
  file.write_text('text\none\n"two\nthree\nfour\n')
  assert refused(file).endswith(':3: a quote is not closed')
  found = reader('skip').texts(str(file))
  assert [t.text for t in found] == ['one', 'three', 'four']


def test_a_byte_that_is_not_utf8_costs_its_row_alone(tmp_path):
  file = tmp_path / 'a.csv'
  good = ''.join(f'row {i}\n' for i in range(5000)).encode()
  file.write_bytes(b'text\n' + good + b'caf\xe9\n' + good)
  assert ':5002: ' in refused(file)
  made = reader('skip')
  assert len(made.texts(str(file))) == 10_000
  assert made.problems.counts == {'bad_utf8': 1}


def test_rows_over_several_lines_and_two_columns_of_a_name(tmp_path):
  file = tmp_path / 'a.csv'
  file.write_text('text,x\n"a\nb",1\n\nc,2,3\n')
  assert ':5: there are more cells' in refused(file)
  file.write_text('text,x,text\na,b,c\n')
  assert ":1: two columns are named 'text'" in refused(file)


def test_parquet_with_columns_that_are_not_read(tmp_path):
  pa = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  file = tmp_path / 'a.parquet'
  times = pa.array([1700000000123456789], pa.timestamp('ns', 'Mars/Base'))
  spans = pa.array([5], pa.duration('ns'))
  parquet.write_table(
    pa.table({'text': ['a'], 'created': times, 'took': spans}), file
  )
  assert [t.text for t in reader().texts(str(file))] == ['a']


def test_parquet_with_times_inside_other_columns(tmp_path):
  pa = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  time = ('at', pa.timestamp('ns'))
  asked = {'question': 'Who?', 'answers': ['Ada'], 'at': 1}
  kinds = {
    'questions': pa.list_(
      pa.struct(
        [time, ('question', pa.string()), ('answers', pa.list_(pa.string()))]
      )
    ),
    'meta': pa.struct([time, ('who', pa.string())]),
    'seen': pa.map_(pa.string(), pa.timestamp('ns')),
    'kind': pa.dictionary(pa.int32(), pa.string()),
    'box': pa.fixed_shape_tensor(pa.int32(), [2]),
    'text': pa.string(),
  }
  row = {
    'questions': [asked],
    'meta': {'at': 1, 'who': 'me'},
    'seen': [('a', 1)],
    'kind': 'b',
    'box': [1, 2],
    'text': 'Fog.',
  }
  file = tmp_path / 'a.parquet'
  arrays = {k: pa.array([row[k]], kind) for k, kind in kinds.items()}
  parquet.write_table(pa.table(arrays), file)
  (document,) = reader().documents(str(file))
  assert document.text == 'Fog.'
  (question,) = document.questions
  assert (question.question, question.answers) == ('Who?', ('Ada',))


def test_parquet_with_two_columns_of_a_name(tmp_path):
  pa = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  file = tmp_path / 'a.parquet'
  columns = [pa.array(['a']), pa.array(['b'])]
  parquet.write_table(pa.table(columns, names=['text', 'text']), file)
  assert refused(file) == f"{file}: two columns are named 'text'"


def test_parquet_with_text_that_is_not_utf8(tmp_path):
  pa = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  buffers = pa.array([b'good', b'caf\xe9', b'fine']).buffers()
  texts = pa.StringArray.from_buffers(3, *buffers[1:])
  file = tmp_path / 'a.parquet'
  parquet.write_table(pa.table({'text': texts}), file)
  assert 'a.parquet, row 2: ' in refused(file)
  assert len(reader('skip').texts(str(file))) == 2
  file.write_bytes(file.read_bytes().replace(b'text', b'te\xf8t'))
  assert 'a.parquet is cut short or damaged: ' in refused(file)


@pytest.mark.parametrize(
  ('name', 'header', 'said'),
  [
    ('a.csv', 'id;text', "by ';', but those of a .csv file are by ','"),
    ('a.csv', 'id\ttext', r"by '\t', but those of a .csv file are by ','"),
    ('a.tsv', 'id,text', r"by ',', but those of a .tsv file are by '\t'"),
  ],
)
def test_columns_that_something_else_separates(tmp_path, name, header, said):
  file = tmp_path / name
  # The comma of the text would be blamed.
  file.write_text(f'{header}\n1;Fog, and rain.\n')
  assert f'{name}:1: the columns seem to be separated {said}' in refused(file)
  assert 'id' in refused(file).rsplit(':', 1)[1]


def test_space_around_the_names_of_columns(tmp_path):
  file = tmp_path / 'a.csv'
  file.write_text('id, text \n1, Fog\n')
  (found,) = reader().texts(str(file))
  assert (found.id, found.text) == ('1', ' Fog')


def test_a_list_in_a_cell_is_no_answer(tmp_path):
  file = tmp_path / 'a.csv'
  for cell in (
    "['Ada', 'Bo']",
    "['Ada' 'Bo']",
    '[""Ada""]',
    "{'text': array(['Ada'], dtype=object), 'answer_start': array([0])}",
  ):
    file.write_text(f'question,answers\nWho?,"{cell}"\n')
    with pytest.raises(schema.UserError) as raised:
      reader().questions(str(file))
    assert ":2: 'answers' is a list written as text" in str(raised.value)
  file.write_text('question,answers\nWho?,"[Ada], ""the first"""\n')
  (found,) = reader().questions(str(file))
  assert found.answers == ('[Ada], "the first"',)
