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
from smft_jax.prepare import write
from smft_jax.runtime import preemption
from tests.support import prepared_rows
from tests.support import repository


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder with texts, a tokenizer and `rows`, not to be changed."""
  folder = tmp_path_factory.mktemp('prepare')
  prepared_rows.make(folder)
  return folder


@pytest.fixture
def mine(root, tmp_path):
  """A copy of it."""
  shutil.copytree(root, tmp_path, dirs_exist_ok=True)
  return tmp_path


def contents(folder):
  """The files of a folder of rows, but for the paths of their sources."""
  found = {
    path.name: path.read_bytes()
    for path in folder.iterdir()
    if path.name != prepared.MANIFEST
  }
  facts = prepared.read(folder).facts
  return found, {k: v for k, v in facts.items() if k != 'sources'}


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
    assert contents(folder / 'rows') == contents(root / 'rows')


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
  assert contents(tmp_path / 'rows') == contents(root / 'rows')
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
    assert prepared_rows.run(*again(root, mine)) == 0
  said = capsys.readouterr().err
  assert 'stopped by SIGTERM and saved; the same command resumes' in said
  names = {path.name for path in (mine / 'rows').iterdir()}
  assert prepared.file_name(0) in names
  assert not any(name.startswith('.') for name in names)
  assert prepared_rows.run(*again(root, mine)) == 0
  assert contents(mine / 'rows') == contents(root / 'rows')


def test_a_damaged_shard_alone_is_made_again(root, mine):
  shards = sorted((mine / 'rows').glob('*.array_record'))
  content = bytearray(shards[1].read_bytes())
  content[100] ^= 1
  shards[1].write_bytes(content)
  times = [path.stat().st_mtime_ns for path in shards]
  assert prepared_rows.run(*again(root, mine)) == 0
  assert contents(mine / 'rows') == contents(root / 'rows')
  changed = [
    path.stat().st_mtime_ns != time
    for path, time in zip(shards, times, strict=True)
  ]
  assert changed == [False, True, False]


def again(root, mine):
  """The command line that made the copy's rows, which names its source."""
  return [
    flag.replace(f'--out={root}', f'--out={mine}')
    for flag in prepared_rows.arguments(root)
  ]


def test_a_finished_folder_is_not_written(root, capsys):
  times = {path: path.stat().st_mtime_ns for path in (root / 'rows').iterdir()}
  assert prepared_rows.run(*prepared_rows.arguments(root)) == 0
  said = capsys.readouterr().out
  hashed = prepared.read(root / 'rows').fingerprint()[:16]
  assert f'and 3 shards, hash {hashed}\n' in said
  assert times == {
    path: path.stat().st_mtime_ns for path in (root / 'rows').iterdir()
  }


def refused(capsys, *argv):
  assert prepared_rows.run(*argv) == 2
  said = capsys.readouterr().err
  assert said.startswith('error: ')
  assert said.count('\n') == 1
  return said


MISTAKES = {
  'no source': (['gone.jsonl'], 'there is no file {}/gone.jsonl'),
  'an empty source': (['empty.jsonl'], 'empty.jsonl holds no text that can be'),
  'an empty folder': (['nothing/'], 'holds no file that ends in .jsonl'),
  'a bad row': (['bad.jsonl'], "bad.jsonl:1: 'text' is missing; there is txet"),
  'another kind': (['tokenizer/'], "'text' is missing"),
  'no tokenizer': (['texts.jsonl', '--tokenizer=gone'], 'gone cannot be read'),
  'a length': (['texts.jsonl', '--max_length=1'], 'must be at least 2, not 1'),
  'workers': (['texts.jsonl', '--workers=0'], 'must be at least 1, not 0'),
  'a flag': (['texts.jsonl', '--max_len=9'], "did you mean '--max_length'?"),
  'a file': (['texts.jsonl', '--out={}/texts.jsonl'], 'is a file: choose'),
  'a folder in the source': (
    ['mine/', '--out={}/mine/rows'],
    '--out={0}/mine/rows is in the source {0}/mine/, which would then hold it',
  ),
  'rows': (
    ['done/'],
    '{}/done holds rows of `python -m smft_jax.prepare`, not',
  ),
  'rows further in': (['outer/'], '{}/outer/done holds rows of `python -m'),
  'other things': (
    ['texts.jsonl', '--out={}/tokenizer'],
    'holds something else, such as generation_config.json: choose another',
  ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
  mistake, root, tmp_path, capsys
):
  shutil.copytree(
    root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns('rows')
  )
  (tmp_path / 'nothing').mkdir()
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'a.txt').write_text('fog')
  for name in ('done', 'outer/done'):
    shutil.copytree(root / 'rows', tmp_path / name)
  (tmp_path / 'empty.jsonl').write_text('\n\n')
  (tmp_path / 'bad.jsonl').write_text('{"txet": "fog"}\n{"text": "fog"}\n')
  (source, *flags), part = MISTAKES[mistake]
  before = sorted(tmp_path.rglob('*'))
  said = refused(
    capsys,
    f'--out={tmp_path}/rows',
    f'--tokenizer={tmp_path}/tokenizer',
    f'{tmp_path}/{source}',
    *(flag.format(tmp_path) for flag in flags),
  )
  assert part.format(tmp_path) in said
  assert sorted(tmp_path.rglob('*')) == before


def test_messages_on_data_sets_name_the_flag(root, tmp_path, capsys):
  argv = [f'--out={tmp_path}/rows', f'--tokenizer={root}/tokenizer', 'squad:x']
  said = refused(capsys, *argv)
  assert said.startswith('error: --data_dir is not set; give the folder that')
  said = refused(capsys, *argv, f'--data_dir={tmp_path}/gone')
  assert said.startswith(f"error: --data_dir = '{tmp_path}/gone' is not a fol")


def test_a_folder_without_its_slash_is_named_with_it(
  root, tmp_path, capsys, monkeypatch
):
  (tmp_path / 'texts').mkdir()
  (tmp_path / 'sets').mkdir()
  monkeypatch.chdir(tmp_path)
  for more in ([], ['--data_dir=sets']):
    said = refused(
      capsys, '--out=rows', f'--tokenizer={root}/tokenizer', 'texts', *more
    )
    assert said.endswith('; if the folder texts is meant, write ./texts\n')


def test_the_tokenizer_may_be_named_by_its_file(root, tmp_path):
  argv = [f'--out={tmp_path}/rows', f'{root}/texts.jsonl', '--max_length=16']
  named = f'--tokenizer={root}/tokenizer/tokenizer.json'
  assert prepared_rows.run(*argv, named) == 0
  assert contents(tmp_path / 'rows') == contents(root / 'rows')


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


def test_a_text_too_long_to_tokenise_is_refused(
  root, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(write, '_MOST_CHARS', 50)
  source = tmp_path / 'some.jsonl'
  prepared_rows.write_texts(source, ['fog', 'rain ' * 11])
  said = refused(
    capsys,
    *(f'--out={tmp_path}/rows', f'--tokenizer={root}/tokenizer', str(source)),
  )
  assert 'some:2: a text of 55 characters, more than 50: split it into' in said


@pytest.mark.parametrize(
  ('flags', 'part'),
  [
    (['--max_length=17'], 'max_length = 16, not 17: choose another --out'),
    (['--packed'], 'prepared with packed = False, not True'),
    (['--bad_input=skip'], "prepared with bad_input = 'refuse', not 'skip'"),
  ],
)
def test_a_folder_of_other_rows_is_refused(flags, part, root, mine, capsys):
  assert part in refused(capsys, *again(root, mine), *flags)
  assert contents(mine / 'rows') == contents(root / 'rows')
  # The same texts by another name, which may be others.
  flags = again(root, mine)
  flags[2] = str(mine / 'texts.jsonl')
  assert 'prepared with sources = ' in refused(capsys, *flags)
  assert contents(mine / 'rows') == contents(root / 'rows')


def test_texts_that_changed_are_refused(mine, capsys):
  shutil.rmtree(mine / 'rows')
  assert prepared_rows.run(*prepared_rows.arguments(mine)) == 0
  (mine / 'rows' / prepared.file_name(1)).unlink()
  source = mine / 'texts.jsonl'
  source.write_text(source.read_text().replace('fog', 'sea'))
  assert prepared_rows.run(*prepared_rows.arguments(mine)) == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert 'the texts have changed since rows-00001.array_record was made' in said


def test_a_full_disk_is_told(root, tmp_path, capsys):
  (tmp_path / 'rows').mkdir()
  (tmp_path / 'rows' / '.rows-00000.array_record').symlink_to('/dev/full')
  flags = [f'--out={tmp_path}/rows', f'--tokenizer={root}/tokenizer']
  assert prepared_rows.run(*flags, f'{root}/texts.jsonl') == 1
  said = capsys.readouterr().err
  assert said.startswith('error: [Errno 28] No space left on device: ')
  assert said.endswith('the same command resumes\n')
  assert said.count('\n') == 1
  assert not list((tmp_path / 'rows').glob('*rows-*'))
