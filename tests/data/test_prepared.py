"""Prepared rows that are damaged, missing, or of something else."""

import shutil

import numpy as np
import pytest

from smft_jax import schema
from smft_jax.data import encoded
from smft_jax.data import prepared
from smft_jax.data import shard
from smft_jax.store import manifest
from tests.support import prepared_rows


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Not to be changed."""
  return prepared_rows.make(tmp_path_factory.mktemp('prepared'))


@pytest.fixture
def mine(root, tmp_path):
  """A copy of it."""
  return shutil.copytree(root, tmp_path / 'rows')


def told(what, *arguments):
  """The one line that a mistake is told in."""
  with pytest.raises(schema.UserError) as error:
    what(*arguments)
  assert '\n' not in str(error.value)
  return str(error.value)


def read_all(folder):
  rows = prepared.read(folder)
  every = np.arange(len(rows))
  return rows.take(every), rows.lengths_of(every)


def test_no_flipped_bit_is_taken_for_a_row(root, mine):
  file = mine / prepared.file_name(1)
  whole = file.read_bytes()
  expected, lengths = read_all(root)
  noticed = []
  places = range(0, len(whole), 613)  # and every bit of a byte in turn
  for place in places:
    content = bytearray(whole)
    content[place] ^= 1 << (place % 8)
    file.write_bytes(content)
    try:
      found, found_lengths = read_all(mine)
    except schema.UserError as error:
      noticed.append(str(error))
    else:  # between records
      assert found.tokens.tolist() == expected.tokens.tolist()
      assert found_lengths.tolist() == lengths.tolist()
  assert len(noticed) > 5
  for said in noticed:
    assert str(file) in said
    assert 'run the same `python -m smft_jax.prepare` again' in said
    assert '\n' not in said


def test_a_flipped_bit_of_a_row_names_the_row(mine):
  rows = prepared.read(mine)
  file = mine / prepared.file_name(0)
  content = bytearray(file.read_bytes())
  row = rows.take([2]).tokens.astype('<u2').tobytes()
  content[content.index(row)] ^= 4
  file.write_bytes(content)
  damaged = prepared.read(mine)
  damaged.take([0, 1, 3])
  said = told(damaged.take, [1, 2])
  assert said.startswith(f'{file}, row 2, is damaged: ')


def test_a_missing_or_cut_shard_is_told_before_anything_is_read(mine):
  file = mine / prepared.file_name(2)
  size = file.stat().st_size
  file.write_bytes(file.read_bytes()[:-7])
  said = told(prepared.read, mine)
  assert said.startswith(f'{file} has {size - 7} bytes, not {size}; run the')
  file.unlink()
  assert told(prepared.read, mine).startswith(f'{file} is missing; run the')
  assert prepared.is_folder(mine)


def test_an_index_that_lost_its_rows_is_told(mine):
  file = mine / prepared.file_name(0)
  file.write_bytes(bytes(file.stat().st_size))
  said = told(prepared.read(mine).take, [0])
  assert said.startswith(f'{file} ')
  assert 'is damaged' in said or 'cannot be read' in said


def test_a_changed_or_unfinished_manifest_is_told(mine):
  file = mine / prepared.MANIFEST
  facts = manifest.unseal(file)
  manifest.seal(file, facts | {'finished': False})
  assert 'is not prepared to its end: run the same' in told(prepared.read, mine)
  file.write_text(
    file.read_text().replace('"max_length": 16', '"max_length": 8')
  )
  assert 'was changed after it was written' in told(prepared.read, mine)
  file.unlink()
  assert f'{file} is missing' in told(prepared.read, mine)
  assert prepared.is_folder(mine)


def test_rows_of_another_tokenizer_or_length_are_refused(root):
  rows = prepared.read(root)
  made_by = rows.facts['tokenizer']
  rows.check_tokenizer(made_by)
  said = told(rows.check_tokenizer, 'f' * 64)
  assert f'with another tokenizer, {made_by[:8]}, not ffffffff: prepare' in said
  rows.check_length(16)
  said = told(rows.check_length, 15)
  assert (
    '--max_length=16, which is more than config.base.max_length = 15' in said
  )


def test_ids_of_large_vocabularies_are_stored_whole(tmp_path):
  tokens = np.array([2**16, 3, 2**17 + 1], np.int32)
  rows = encoded.join([tokens], [np.array([0.0, 1, 1])], [0])
  dtype = shard.token_dtype(2**18)
  [record] = shard.to_records(rows, dtype)
  assert shard.from_record(record, dtype).tokens.tolist() == tokens.tolist()
  assert shard.token_dtype(2**16).itemsize == 2
  assert dtype.itemsize == shard.token_dtype(2**16 + 1).itemsize == 4


def test_a_hash_depends_on_the_rows_alone(root, tmp_path):
  hashed = prepared.read(root).fingerprint()
  folder = tmp_path / 'same'
  folder.mkdir()
  assert prepared.read(prepared_rows.make(folder)).fingerprint() == hashed
  folder = tmp_path / 'other'
  folder.mkdir()
  other = prepared_rows.make(folder, count=61)
  assert prepared.read(other).fingerprint() != hashed


def test_joined_rows_are_those_of_both_in_any_order(root):
  first = prepared.read(root)
  second = first.take([3, 1])
  rows = encoded.Joined(first, second)
  n = len(first)
  assert (len(rows), rows.longest) == (n + 2, 16)
  chosen = [n + 1, 4, n, 4, 0]
  found = rows.take(chosen)
  expected = first.take([1, 4, 3, 4, 0])
  assert found.tokens.tolist() == expected.tokens.tolist()
  assert found.loss_weights.tolist() == expected.loss_weights.tolist()
  assert found.starts.tolist() == expected.starts.tolist()
  assert rows.lengths_of(chosen).tolist() == expected.lengths.tolist()
  assert found.segments is None
