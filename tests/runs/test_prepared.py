"""The program on prepared rows does what it does on their texts in memory."""

import json
import shutil

import numpy as np
import pytest

from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.data import prepared
from smft_jax.data import stream
from smft_jax.runs import base as base_lib
from smft_jax.runs import corpus
from smft_jax.runs import lesson_batches
from smft_jax.store import paths
from tests.support import many_processes
from tests.support import prepared_rows
from tests.support import process_results
from tests.support import tiny_run
from tests.support import train_runs

pytestmark = pytest.mark.usefixtures('quick_runs')


def write_lines(path, *rows):
  path.write_text(''.join(f'{json.dumps(row)}\n' for row in rows))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder of texts, `rows` prepared from them, and a config; unchanged."""
  folder = tmp_path_factory.mktemp('runs')
  prepared_rows.make(folder)
  write_lines(folder / 'held.jsonl', {'text': 'rain and fog and sun'})
  asked = {'question': 'fog on hill?', 'answers': ['sea']}
  write_lines(
    folder / 'known.jsonl',
    *({'text': f'{word} is hill', 'questions': [asked]} for word in 'ab'),
  )
  write_lines(
    folder / 'documents.jsonl',
    *({'text': f'{word} lane is sea. It is moor.'} for word in ('one', 'two')),
  )
  write_config(folder, folder)
  return folder


def write_config(root, folder, write=tiny_run.write_config, **changes):
  """A config that pretrains on the texts, two known ones and two questions."""
  data = {
    'kind': 'jsonl',
    'running_text': f'{root}/texts.jsonl',
    'known_set': f'{root}/known.jsonl',
    'held_out_text': f'{root}/held.jsonl',
    'documents_file': f'{root}/documents.jsonl',
    'tokenizer': f'{root}/tokenizer',
    'augmentations': 3,
  }
  return write(
    folder,
    data=data,
    base__max_length=16,
    method={'t': 7, 'learning_rate': 3.0, 'replay_fraction': 0.4},
    **changes,
  )


ROWS = '--config.data.running_text={}/rows'


def test_losses_and_results_are_those_of_the_texts_in_memory(root):
  base_only = '--config.stream=none'
  assert train_runs.run(root, 'texts', base_only) == 0
  from_rows = ROWS.format(root), base_only
  with pytest.MonkeyPatch.context() as patch:
    train_runs.interrupt_save(patch, 'pretraining', 4)
    assert train_runs.run(root, 'from_rows', *from_rows) == 130
  assert train_runs.run(root, 'from_rows', *from_rows) == 0
  texts, rows = root / 'texts', root / 'from_rows'
  [loss] = train_runs.records(texts, 'pretrain')
  assert loss['step'] == 5
  assert train_runs.records(rows, 'pretrain') == [loss]
  want, got = train_runs.results_of(texts), train_runs.results_of(rows)
  assert want['memory_health']['slots'] == 49
  # All but the sizes of what was read are the same, and so is every weight.
  articles = want.pop('counts')['pretraining_articles']
  assert got.pop('counts')['prepared_rows'] > articles == 60
  assert got == want
  # Of another hash, so the second was not found but made.
  assert len(set(root.glob('cache/base-*'))) == 2


def experiment_of(root, **changes):
  config = write_config(root, root, lambda _, **all: tiny_run.make(**all))
  for name, value in changes.items():
    section, _, key = name.partition('__')
    config[section][key] = value
  return config_lib.from_config_dict(config)


def test_prepared_rows_bring_their_tokenizer(root, tmp_path):
  experiment = experiment_of(
    root, data__running_text=f'{root}/rows', data__tokenizer=''
  )
  task = base_lib.make_task(experiment)
  base_lib._write_tokenizer(experiment, task, tmp_path / 'base')
  found = base_lib._read_tokenizer(tmp_path / 'base')
  task.prepared.check_tokenizer(found.fingerprint())
  assert task.counts['prepared_rows'] == len(task.prepared)
  assert task.counts['pretraining_articles'] == 0


def test_a_background_is_counted_on_rows_as_on_their_texts(root, tmp_path):
  """Of a corpus that is named by its folder, in the same batches."""
  kept = {}
  for name in ('pretraining', f'{root}/rows'):
    experiment = experiment_of(
      root, background__corpus=name, data__known_set=''
    )
    task = base_lib.make_task(experiment)
    tokenizer = base_lib.tokenizers.read(root / 'tokenizer')
    batches = corpus.batches(
      *(experiment.background, tmp_path, task, tokenizer),
      max_length=16,
      seed=0,
    )
    kept[name] = [batches.batch(step) for step in range(3)]
  for a, b in zip(*kept.values(), strict=True):
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.mask, b.mask)


def lessons_of(experiment, folder):
  """The batches of its stream, on a base without a model."""
  task = base_lib.make_task(experiment)
  base = base_lib.Base(
    folder=folder,
    read_task=lambda: task,
    tokenizer=base_lib.tokenizers.read(paths.expand(experiment.data.tokenizer)),
    graphdef=None,
    params=None,
    fingerprint='',
  )
  return lesson_batches.LessonBatches(
    *(experiment.stream, base),
    replay_fraction=experiment.method.replay_fraction,
    max_length=16,
    seed=3,
  )


def test_replayed_rows_are_those_of_the_texts_in_memory(root, tmp_path):
  found = []
  for name in ('texts.jsonl', 'rows'):
    experiment = experiment_of(root, data__running_text=f'{root}/{name}')
    found.append(lessons_of(experiment, tmp_path))
  for step in range(3):
    a, b = (lessons.step(1, step) for lessons in found)
    np.testing.assert_array_equal(a.batch.tokens, b.batch.tokens)
    assert a.num_tokens == b.num_tokens
    assert a.batch.segments is b.batch.segments is None


def test_replayed_rows_that_are_packed_keep_their_segments(root, tmp_path):
  shutil.copytree(root / 'tokenizer', tmp_path / 'tokenizer')
  rows = prepared_rows.make(tmp_path, '--packed')
  experiment = experiment_of(
    root,
    data__running_text=str(rows),
    base__packed=True,
    background__document='batch',
  )
  lessons = lessons_of(experiment, tmp_path)
  batch = lessons.step(0, 0).batch
  np.testing.assert_array_equal(batch.segments > 0, batch.mask)
  assert batch.segments[:3].max() == 1
  most = [lessons.step(0, step).batch.segments[3:].max() for step in range(9)]
  assert max(most) > 1


def test_texts_of_prepared_rows_are_what_their_tokens_spell(root):
  task = base_lib.make_task(
    experiment_of(root, data__running_text=f'{root}/rows')
  )
  tokenizer = base_lib.tokenizers.read(root / 'tokenizer')
  found = corpus.find('pretraining', task).some_texts(tokenizer, 10**6)
  assert len(found) == len(task.prepared) + 4
  assert found[0].text in prepared_rows.texts(1)[0]
  assert [text.text for text in found[-4:-2]] == ['a is hill', 'b is hill']
  few = corpus.find('pretraining', task).some_texts(tokenizer, 5)
  assert len(few) == 5
  assert few[0] == found[0]


MISTAKES = {
  'not packed': (
    ['base.packed=True'],
    'config.base.packed = True, but {rows} was prepared without --packed',
  ),
  'too long': (
    ['base.max_length=15'],
    '{rows} was prepared with --max_length=16, which is more than',
  ),
  'another tokenizer': (
    ['data.tokenizer={root}/other'],
    '{rows} was prepared with another tokenizer, ',
  ),
  'a tokenizer that is made': (
    [
      'data.tokenizer=',
      'data.running_text={root}/texts.jsonl',
      'background.corpus={rows}',
    ],
    '{rows} was prepared with another tokenizer than this base, which makes',
  ),
  'no such corpus': (
    ['background.corpus={root}/rosw'],
    "config.background.corpus = '{root}/rosw' is not known; ",
  ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
  mistake, root, tmp_path, capsys
):
  settings, part = MISTAKES[mistake]
  rows = root / 'rows'
  write_config(root, tmp_path)
  other = prepared_rows.tokenizers.train_word_level(['fog and other words'])
  (root / 'other').mkdir(exist_ok=True)
  other.write(root / 'other')
  flags = [f'--config.{s.format(root=root, rows=rows)}' for s in settings]
  said = train_runs.refused(capsys, tmp_path, 'run', ROWS.format(root), *flags)
  assert part.format(root=root, rows=rows) in said


def test_packed_rows_need_a_background_of_their_own(root, tmp_path, capsys):
  shutil.copytree(root / 'tokenizer', tmp_path / 'tokenizer')
  packed = prepared_rows.make(tmp_path, '--packed')
  write_config(root, tmp_path)
  capsys.readouterr()
  flags = [ROWS.format(tmp_path), '--config.base.packed=True']
  said = train_runs.refused(capsys, tmp_path, 'run', *flags)
  assert f'{packed} was prepared with --packed, and a background of seq' in said
  flags.append(f'--config.background.corpus={root}/rows')
  config = config_lib.from_config_dict(
    command_line.parse([f'--config={tmp_path}/tiny.py', *flags]).config
  )
  assert base_lib.make_task(config).prepared.packed


def test_a_damaged_shard_ends_a_run_with_one_line(root, tmp_path, capsys):
  shutil.copytree(root / 'rows', tmp_path / 'rows')
  write_config(root, tmp_path)
  file = tmp_path / 'rows' / prepared.file_name(0)
  content = bytearray(file.read_bytes())
  content[200::90] = bytes(len(content[200::90]))
  file.write_bytes(content)
  assert train_runs.run(tmp_path, 'run', ROWS.format(tmp_path)) == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert said.startswith(f'error: {file}')
  assert said.endswith('prepare` again, which makes it anew')
  file.unlink()
  said = train_runs.refused(capsys, tmp_path, 'new', ROWS.format(tmp_path))
  assert f'{file} is missing; run the same' in said


@pytest.mark.parametrize('parts', [1, 2, 4])
def test_processes_read_rows_of_their_own(parts, root, monkeypatch):
  """Together the rows of a batch, whatever their number."""
  whole = stream.Batches(
    rows=prepared.read(root / 'rows'), batch_size=8, seed=1, pad_id=0
  )
  read, tokens = [], []
  for part in range(parts):
    rows = prepared.read(root / 'rows')
    mine = stream.Batches(rows=rows, batch_size=8, seed=1, pad_id=0)
    place = slice(part * 8 // parts, (part + 1) * 8 // parts)
    monkeypatch.setattr(
      stream, 'local_rows', lambda layout, size, p=place: np.arange(size)[p]
    )
    seen = []
    monkeypatch.setattr(prepared.shard_lib.Shard, 'row', recording(seen, rows))
    tokens.append(mine.batch(3).tokens)
    monkeypatch.undo()
    assert mine.num_tokens(3) == whole.num_tokens(3)
    assert len(seen) == 8 // parts
    read += seen
  assert sorted(read) == sorted(whole.row_indices(3).tolist())
  np.testing.assert_array_equal(np.concatenate(tokens), whole.batch(3).tokens)


def recording(seen, rows):
  """`Shard.row`, which enters the rows that it reads."""
  read = prepared.shard_lib.Shard.row

  def row(shard, index):
    [number] = [n for n, one in rows._open.items() if one is shard]
    seen.append(int(rows._starts[number]) + index)
    return read(shard, index)

  return row


@pytest.mark.slow
def test_losses_of_two_processes_are_those_of_one(root, tmp_path):
  config = write_config(
    root, tmp_path, many_processes.write_config, base__steps=30
  )
  losses = []
  for processes in (1, 2):
    workdir = tmp_path / str(processes)
    flags = [
      *many_processes.MESH,
      ROWS.format(root),
      f'--config.base.cache_dir={tmp_path}/cache{processes}',
    ]
    ended = many_processes.run(config, workdir, processes, *flags)
    process_results.succeeded(ended)
    losses.append([r['loss'] for r in train_runs.records(workdir, 'pretrain')])
  assert len(losses[0]) == 2
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
