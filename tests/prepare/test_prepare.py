"""From texts to shards: the same bytes whatever happens on the way."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from smft_jax.data import encoding
from smft_jax.data import prepared
from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.runtime import preemption
from tests.support import prepared_rows
from tests.support import repository


def rows_in_memory(root, max_length=16):
  texts = prepared_rows.texts(60)
  return encoding.tokenize(
    [task.Text(text=text) for text in texts],
    tokenizers.read(root / 'tokenizer'),
    max_length=max_length,
  )


def assert_same_rows(found, expected):
  for name in ('tokens', 'loss_weights', 'starts'):
    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert getattr(found, name).dtype == getattr(expected, name).dtype


def test_rows_are_those_of_the_texts_in_memory(root):
  rows, expected = prepared.read(root / 'rows'), rows_in_memory(root)
  assert len(rows.facts['shards']) == 3
  assert len(rows) == len(expected)
  assert rows.longest == expected.longest == 16
  assert rows.num_tokens == len(expected.tokens)
  assert_same_rows(rows.take(np.arange(len(rows))), expected)
  drawn = np.random.default_rng(0).integers(0, len(rows), 200)
  assert_same_rows(rows.take(drawn), expected.take(drawn))
  assert rows.take(drawn).sources.tolist() == drawn.tolist()
  assert rows.lengths_of(drawn).tolist() == expected.lengths[drawn].tolist()
  assert rows.lengths_of(drawn).dtype == np.int64
  assert not len(rows.take([]))
  with pytest.raises(IndexError, match=f'from 0 to {len(rows) - 1}'):
    rows.take([len(rows)])


def test_the_folder_has_the_tokenizer(root):
  rows = prepared.read(root / 'rows')
  for name in ('tokenizer', 'rows'):
    rows.check_tokenizer(tokenizers.read(root / name).fingerprint())


def test_packed_rows_have_every_text_once_and_whole(root, tmp_path):
  shutil.copytree(root / 'tokenizer', tmp_path / 'tokenizer')
  flags = '--packed', '--max_length=64'
  rows = prepared.read(prepared_rows.make(tmp_path, *flags))
  expected = rows_in_memory(root, max_length=64)
  found = rows.take(np.arange(len(rows)))
  assert len(rows) < 0.8 * len(expected)
  assert found.longest <= 64
  assert found.segments.dtype == np.int32
  texts = []
  for start, end in zip(found.starts, found.starts[1:], strict=False):
    row = found.segments[start:end]
    assert row.tolist() == sorted(row)
    for number in range(1, row.max() + 1):
      part = slice(start, end)
      texts.append(
        (
          *found.tokens[part][row == number],
          *found.loss_weights[part][row == number],
        )
      )
  assert sorted(texts) == sorted(
    (*expected.tokens[part], *expected.loss_weights[part])
    for part in map(slice, expected.starts, expected.starts[1:])
  )
  assert not len(rows.take([]).segments)


def test_few_shards_are_open_at_a_time(root, monkeypatch):
  monkeypatch.setattr(prepared, '_MOST_OPEN', 1)
  rows, expected = prepared.read(root / 'rows'), rows_in_memory(root)
  drawn = [0, len(rows) - 1, 1, len(rows) - 2]
  assert_same_rows(rows.take(drawn), expected.take(drawn))
  assert len(rows._open) == 1


def test_the_number_of_workers_does_not_show(root, tmp_path):
  for workers in (1, 2):
    folder = tmp_path / str(workers)
    shutil.copytree(root, folder, ignore=shutil.ignore_patterns('rows'))
    flags = prepared_rows.arguments(folder, f'--workers={workers}')
    assert prepared_rows.run(*flags, is_inline=False) == 0
    prepared_rows.assert_same(folder / 'rows', root / 'rows')


def killed(folder, place, call, *flags):
  """Runs the program until a call of a function, and kills it there."""
  done = subprocess.run(
    [sys.executable, '-m', 'tests.support.prepared_rows', 'SIGKILL', place]
    + [str(call), *prepared_rows.arguments(folder, '--workers=1', *flags)],
    cwd=repository.ROOT,
    env=os.environ | {'PYTHONPATH': str(repository.ROOT)},
    check=False,
    capture_output=True,
    text=True,
  )
  assert done.returncode == -9, done.stderr


@pytest.mark.parametrize(
  ('place', 'call', 'kept'),
  [
    # Before anything is written.
    pytest.param(
      *('smft_jax.store.atomic.write_json', 1, 0), marks=pytest.mark.slow
    ),
    ('smft_jax.prepare.write._write_shard', 3, 2),  # as the last shard begins
    # Before a shard that is there is entered.
    pytest.param(
      *('smft_jax.store.manifest.seal', 3, 1), marks=pytest.mark.slow
    ),
  ],
)
def test_killed_at_any_moment_it_resumes_to_the_same_bytes(
  root, tmp_path, place, call, kept, capsys
):
  shutil.copytree(
    root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns('rows')
  )
  killed(tmp_path, place, call)
  before = {
    path.name: path.stat().st_mtime_ns
    for path in (tmp_path / 'rows').glob('*.array_record')
  }
  assert prepared_rows.run(*prepared_rows.arguments(tmp_path)) == 0
  prepared_rows.assert_same(tmp_path / 'rows', root / 'rows')
  said = capsys.readouterr().err.splitlines()
  assert (f'{kept} shards are there' in said) == (kept > 0), said
  for index in range(kept):
    name = prepared.file_name(index)
    found = (tmp_path / 'rows' / name).stat().st_mtime_ns
    assert found == before[name]


def test_sigterm_ends_it_cleanly_and_it_resumes(root, mine, capsys):
  shutil.rmtree(mine / 'rows')
  asked = []

  def check():
    asked.append(None)
    if len(asked) == 5:
      raise preemption.Preempted

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(preemption, 'check', check)
    assert prepared_rows.run(*prepared_rows.again(root, mine)) == 0
  said = capsys.readouterr().err
  assert 'stopped by SIGTERM and saved; the same command resumes' in said
  names = {path.name for path in (mine / 'rows').iterdir()}
  assert prepared.file_name(0) in names
  assert not any(name.startswith('.') for name in names)
  assert prepared_rows.run(*prepared_rows.again(root, mine)) == 0
  prepared_rows.assert_same(mine / 'rows', root / 'rows')


def test_a_damaged_shard_alone_is_made_again(root, mine):
  shards = sorted((mine / 'rows').glob('*.array_record'))
  content = bytearray(shards[1].read_bytes())
  content[100] ^= 1
  shards[1].write_bytes(content)
  times = [path.stat().st_mtime_ns for path in shards]
  assert prepared_rows.run(*prepared_rows.again(root, mine)) == 0
  prepared_rows.assert_same(mine / 'rows', root / 'rows')
  changed = [
    path.stat().st_mtime_ns != time
    for path, time in zip(shards, times, strict=True)
  ]
  assert changed == [False, True, False]


def test_a_finished_folder_is_not_written(root, capsys):
  times = {path: path.stat().st_mtime_ns for path in (root / 'rows').iterdir()}
  assert prepared_rows.run(*prepared_rows.arguments(root)) == 0
  said = capsys.readouterr().out
  hashed = prepared.read(root / 'rows').fingerprint()[:16]
  assert f'and 3 shards, hash {hashed}\n' in said
  assert times == {
    path: path.stat().st_mtime_ns for path in (root / 'rows').iterdir()
  }


def test_the_tokenizer_may_be_named_by_its_file(root, tmp_path):
  argv = [f'--out={tmp_path}/rows', f'{root}/texts.jsonl', '--max_length=16']
  named = f'--tokenizer={root}/tokenizer/tokenizer.json'
  assert prepared_rows.run(*argv, named) == 0
  prepared_rows.assert_same(tmp_path / 'rows', root / 'rows')


def test_bad_rows_are_skipped_and_counted_on_request(root, tmp_path):
  source = tmp_path / 'some.jsonl'
  source.write_text('{"txet": "fog"}\n{"text": "fog"}\nno\n{"text": "rain"}\n')
  flags = [f'--out={tmp_path}/rows', f'--tokenizer={root}/tokenizer']
  flags += [str(source), '--bad_input=skip']
  assert prepared_rows.run(*flags) == 0
  rows = prepared.read(tmp_path / 'rows')
  assert len(rows) == 2
  counts = {k: v for k, v in rows.facts.items() if k.startswith('skipped')}
  assert counts == {'skipped_wrong_form': 1, 'skipped_not_json': 1}
