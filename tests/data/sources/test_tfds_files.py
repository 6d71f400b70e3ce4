"""TFDS data sets read from files, and what is said when they cannot be."""

import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest

from smft_jax import schema
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import tfds_files
from tests.support import small_tfds


def _rows(name, split, data_dir):
  problems = problems_lib.Problems('refuse')
  return list(tfds_files.read_examples(name, split, str(data_dir), problems))


def _refused(name, split, data_dir):
  """The message when a split is refused."""
  with pytest.raises(schema.UserError) as raised:
    _rows(name, split, data_dir)
  assert '\n' not in str(raised.value)
  return str(raised.value)


def test_text_is_decoded_all_the_way_down(folder):
  rows = _rows('squad/v1.1', 'validation', folder)
  assert len(rows) == 42
  example = next(r.fields for r in rows if r.id() == '030-Abbey')
  assert example['answers']['text'] == ['1903', '1903', 'sea']
  assert 'Café' in example['context']


def test_the_newest_version_is_read(tmp_path):
  for version in ('9.0.0', '10.0.0', '1.9.9'):
    examples = [{'title': 't', 'text': version}]
    small_tfds.write(
      tmp_path, 'notes', {'train': examples}, small_tfds.TEXT, version=version
    )
  read = _rows('notes', 'train', tmp_path)
  assert [row.fields['text'] for row in read] == ['10.0.0']


@pytest.mark.parametrize(
  ('name', 'split', 'said'),
  [
    ('wikitext3', 'test', "did you mean 'wikitext2'?"),
    # A name that TFDS knows, and would go and download.
    ('squad/v2.0', 'validation', "did you mean 'squad/v1.1'?"),
    ('squad', 'validation', "did you mean 'squad/v1.1'?"),
    ('zzz', 'test', 'there is squad_train44, wikitext2, squad/v1.1'),
    ('wikitext2', 'tset', "did you mean 'test'?"),
    ('wikitext2', '', 'has the splits train, test: name one'),
  ],
)
def test_names_that_are_not_there(folder, name, split, said):
  before = sorted(folder.rglob('*'))
  message = _refused(name, split, folder)
  assert said in message
  assert str(folder) in message
  assert sorted(folder.rglob('*')) == before


def test_a_data_dir_that_is_not_there(folder):
  wrong = folder.parent / f'{folder.name}x'
  message = _refused('wikitext2', 'test', wrong)
  assert 'config.data.data_dir' in message
  assert f'did you mean {folder.name!r}' in message
  said = _refused('wikitext2', 'test', '')
  assert '--config.data.data_dir=FOLDER' in said


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
  message = _refused('notes', 'train', tmp_path)
  assert str(folder) in message
  assert 'cut short or damaged' in message


def test_undamaged_files(tmp_path):
  _damaged(tmp_path, lambda file: None)
  assert len(_rows('notes', 'train', tmp_path)) == 53


def test_an_empty_data_set(tmp_path):
  small_tfds.write(tmp_path, 'notes', {'train': []}, small_tfds.TEXT)
  assert 'holds no example' in _refused('notes', 'train', tmp_path)


def test_another_file_format(tmp_path):
  folder = _damaged(tmp_path, lambda file: None)
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
  said = _refused('notes', 'train', tmp_path)
  assert '--file_format=array_record' in said


def test_text_that_is_not_utf8_is_named_by_its_example(tmp_path):
  examples = [{'title': 't', 'text': text} for text in ('a', b'caf\xe9', 'c')]
  small_tfds.write(tmp_path, 'notes', {'train': examples}, small_tfds.TEXT)
  message = _refused('notes', 'train', tmp_path)
  assert message.startswith('notes:train, example 1: ')
  assert message.endswith('not UTF-8 at byte 4')
  problems = problems_lib.Problems('skip')
  read = list(
    tfds_files.read_examples('notes', 'train', str(tmp_path), problems)
  )
  assert [row.id() for row in read] == ['notes:train:0', 'notes:train:2']
  assert problems.counts == {'bad_utf8': 1}


def test_the_only_split_needs_no_name(tmp_path):
  examples = [{'title': 't', 'text': 'a'}]
  small_tfds.write(tmp_path, 'notes', {'part': examples}, small_tfds.TEXT)
  (row,) = _rows('notes', '', tmp_path)
  assert row.place == 'notes:part, example 0'


def test_chunks_leave_out_no_example(tmp_path, monkeypatch):
  examples = [{'title': 't', 'text': str(i)} for i in range(11)]
  small_tfds.write(tmp_path, 'notes', {'train': examples}, small_tfds.TEXT)
  monkeypatch.setattr(tfds_files, '_CHUNK', 3)
  read = _rows('notes', 'train', tmp_path)
  assert [row.fields['text'] for row in read] == [str(i) for i in range(11)]
  assert [row.id() for row in read] == [f'notes:train:{i}' for i in range(11)]


def test_arrays_become_lists_of_plain_numbers():
  plain = tfds_files._plain(
    {'a': np.array([b'x', b'y'], object), 'b': [np.int32(3)], 'c': np.eye(2)}
  )
  assert plain == {'a': ['x', 'y'], 'b': [3], 'c': [[1.0, 0.0], [0.0, 1.0]]}
  assert type(plain['b'][0]) is int


def test_reading_brings_in_no_tensorflow_and_importing_no_tfds(folder):
  code = f"""
import sys
from smft_jax.data.sources import problems, sources, tfds_files
print('tensorflow_datasets' in sys.modules)
refuse = problems.Problems('refuse')
list(tfds_files.read_examples('wikitext2', 'test', {str(folder)!r}, refuse))
print('tensorflow' in sys.modules)
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == ['False', 'False']
