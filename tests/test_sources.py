"""Data sets read from files, and what is said when they cannot be."""

import pathlib
import random
import subprocess
import sys

import pytest
import small_tfds

from smft_jax import schema
from smft_jax.data import sources


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp('tfds')
  small_tfds.make_folder(root)
  return root


def _one_line(raised):
  message = str(raised.value)
  assert '\n' not in message
  return message


def test_text_is_decoded_all_the_way_down(folder):
  examples = sources.read_tfds(
    'squad/v1.1', 'validation', str(folder), ('answers',)
  )
  assert len(examples) == 42
  example = next(e for e in examples if e['id'] == '030-Abbey')
  assert example['answers']['text'] == ['1903', '1903', 'sea']
  assert 'Café' in example['context']


def test_the_newest_version_is_read(tmp_path):
  for version in ('9.0.0', '10.0.0', '1.9.9'):
    examples = [{'title': 't', 'text': version}]
    small_tfds.write(
      tmp_path, 'notes', {'train': examples}, small_tfds.TEXT, version=version
    )
  read = sources.read_tfds('notes', 'train', str(tmp_path), ('text',))
  assert [e['text'] for e in read] == ['10.0.0']


@pytest.mark.parametrize(
  ('name', 'split', 'field', 'said'),
  [
    ('wikitext3', 'test', 'text', "did you mean 'wikitext2'?"),
    # A name that TFDS knows, and would go and download.
    ('squad/v2.0', 'validation', 'id', "did you mean 'squad/v1.1'?"),
    ('squad', 'validation', 'id', "did you mean 'squad/v1.1'?"),
    ('zzz', 'test', 'text', 'there is squad_train44, wikitext2, squad/v1.1'),
    ('wikitext2', 'tset', 'text', "did you mean 'test'?"),
    ('wikitext2', 'test', 'txt', "no field 'txt'; did you mean 'text'?"),
  ],
)
def test_names_that_are_not_there(folder, name, split, field, said):
  before = sorted(folder.rglob('*'))
  with pytest.raises(schema.UserError) as raised:
    sources.read_tfds(name, split, str(folder), (field,))
  assert said in _one_line(raised)
  assert str(folder) in str(raised.value)
  assert sorted(folder.rglob('*')) == before


def test_a_data_dir_that_is_not_there(folder):
  wrong = folder.parent / f'{folder.name}x'
  with pytest.raises(schema.UserError) as raised:
    sources.read_tfds('wikitext2', 'test', str(wrong), ('text',))
  message = _one_line(raised)
  assert 'config.data.data_dir' in message
  assert f'did you mean {folder.name!r}' in message
  with pytest.raises(schema.UserError) as raised:
    sources.read_tfds('wikitext2', 'test', '', ('text',))
  assert '--config.data.data_dir=FOLDER' in _one_line(raised)


def _damaged(tmp_path, damage):
  examples = [
    {'title': f't{i}', 'text': random.Random(i).randbytes(2000).hex()}
    for i in range(53)
  ]
  folder = small_tfds.write(
    tmp_path, 'notes', {'train': examples}, small_tfds.TEXT
  )
  damage(folder / 'notes-train.array_record-00000-of-00001')
  return folder


def _truncate(share):
  def damage(file):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])

  return damage


def _flip_a_bit(file):
  data = bytearray(file.read_bytes())
  data[len(data) // 3] ^= 1
  file.write_bytes(data)


def _cut_info(file):
  info = file.parent / 'dataset_info.json'
  info.write_text(info.read_text()[:40])


@pytest.mark.parametrize(
  'damage',
  [
    _truncate(0),
    _truncate(0.5),
    _truncate(0.99),
    _flip_a_bit,
    pathlib.Path.unlink,
    _cut_info,
    lambda file: (file.parent / 'dataset_info.json').unlink(),
  ],
  ids=['empty', 'half', 'end', 'bit', 'no file', 'info', 'no info'],
)
def test_damaged_files(tmp_path, damage):
  folder = _damaged(tmp_path, damage)
  with pytest.raises(schema.UserError) as raised:
    sources.read_tfds('notes', 'train', str(tmp_path), ('text',))
  message = _one_line(raised)
  assert str(folder) in message
  assert 'cut short or damaged' in message


def test_undamaged_files(tmp_path):
  _damaged(tmp_path, lambda file: None)
  assert len(sources.read_tfds('notes', 'train', str(tmp_path), ())) == 53


def test_an_empty_data_set(tmp_path):
  small_tfds.write(tmp_path, 'notes', {'train': []}, small_tfds.TEXT)
  with pytest.raises(schema.UserError) as raised:
    sources.read_tfds('notes', 'train', str(tmp_path), ('text',))
  assert 'holds no example' in _one_line(raised)


def test_another_file_format(tmp_path):
  folder = _damaged(tmp_path, lambda file: None)
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
  with pytest.raises(schema.UserError) as raised:
    sources.read_tfds('notes', 'train', str(tmp_path), ('text',))
  assert '--file_format=array_record' in _one_line(raised)


def test_text_that_is_not_utf8_is_not_let_through(tmp_path):
  examples = [{'title': 't', 'text': b'caf\xe9 ' * 20000}]
  small_tfds.write(tmp_path, 'notes', {'train': examples}, small_tfds.TEXT)
  with pytest.raises(schema.UserError) as raised:
    sources.read_tfds('notes', 'train', str(tmp_path), ('text',))
  assert 'utf-8' in _one_line(raised)


def test_reading_brings_in_no_tensorflow_and_importing_no_tfds(folder):
  code = f"""
import sys
from smft_jax.data import documents, sources
print('tensorflow_datasets' in sys.modules)
sources.read_tfds('wikitext2', 'test', {str(folder)!r}, ('text',))
print('tensorflow' in sys.modules)
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == ['False', 'False']


_GOOD = b'{"id": "a", "text": "b"}\n'


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    (_GOOD + b'{"id": "b", "text": "c"\n', ':2: '),
    (b'\n' + _GOOD + b'["b"]', ':3: a document is'),
    (_GOOD + b'{"id": "a", "text": "c"}', ":2: id 'a' is that of line 1"),
    (b'{"id": "a", "text": " "}', ":1: 'text' must be text that is not empty"),
    (b'{"id": 3, "text": "b"}', ":1: 'id' must be text"),
    (b'{"id": "a", "txt": "b"}', ":1: 'text' is missing; did you mean 'txt'?"),
    (b'{"id": "a", "text": "b", "title": 3}', ":1: 'title' must be text"),
    (b'{"id": "a", "text": "b", "questions": {}}', ':1: questions must be a'),
    (b'{"id": "a", "text": "b", "questions": ["c"]}', ':1: a question is'),
    (
      b'{"id": "a", "text": "b", "questions": [{"question": "c"}]}',
      ":1: answers of 'c' must be a list",
    ),
    (
      b'{"id": "a", "text": "b", "questions": [{"question": "c",'
      b' "answers": ["d", ""]}]}',
      ":1: answers of 'c' must be a list",
    ),
    (b'{"id": "a", "text": "caf\xe9"}', ':1: '),
    (b'', ' holds no document'),
    (b'\n \n', ' holds no document'),
  ],
)
def test_bad_lines(tmp_path, content, said):
  file = tmp_path / 'mine.jsonl'
  file.write_bytes(content)
  with pytest.raises(schema.UserError) as raised:
    sources.read_jsonl(str(file))
  assert f'{file}{said}' in _one_line(raised)


def test_a_file_that_is_not_there(tmp_path):
  (tmp_path / 'mine.jsonl').write_bytes(_GOOD)
  with pytest.raises(schema.UserError) as raised:
    sources.read_jsonl(str(tmp_path / 'mime.jsonl'))
  assert "did you mean 'mine.jsonl'?" in _one_line(raised)
