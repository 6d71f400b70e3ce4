"""What is refused, in one line, with nothing left behind."""

import shutil

import pytest

from smft_jax.data import prepared
from smft_jax.prepare import write
from tests.support import prepared_rows


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
  assert part in refused(capsys, *prepared_rows.again(root, mine), *flags)
  prepared_rows.assert_same(mine / 'rows', root / 'rows')
  # The same texts by another name, which may be others.
  flags = prepared_rows.again(root, mine)
  flags[2] = str(mine / 'texts.jsonl')
  assert 'prepared with sources = ' in refused(capsys, *flags)
  prepared_rows.assert_same(mine / 'rows', root / 'rows')


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
