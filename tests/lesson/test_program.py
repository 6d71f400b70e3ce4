"""Lessons and questions from the command line, in a tiny world."""

import dataclasses
import io
import json
import shutil

from flax import nnx
import jax
import numpy as np
import pytest

from smft_jax import ask
from smft_jax import export
from smft_jax import hf
from smft_jax import lesson as lesson_lib
from smft_jax.data import tokenizers
from smft_jax.lesson import __main__ as lesson_program
from smft_jax.lesson import file as lesson_file
from smft_jax.runs import finetune
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import program
from smft_jax.store import checksum
from smft_jax.store import manifest
from tests.support import tiny_run


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly; Adam of optax mixes dtypes."""
  with jax.numpy_dtype_promotion('standard'):
    yield


@pytest.fixture(scope='module')
def root(tmp_path_factory, quickly):
  """A finished run, its lesson, another of the same base, and the base."""
  folder = tmp_path_factory.mktemp('lesson')
  tiny_run.learn(
    folder / 'run', tiny_run.make(base__cache_dir=str(folder / 'cache'))
  )
  argv = ['save', f'--workdir={folder}/run', f'--out={folder}/a.safetensors']
  assert program.run(lesson_program.main, argv) == 0
  first = lesson_file.read(folder / 'a.safetensors')
  # As a run on other documents would: some slots of the first, some others.
  second = dataclasses.replace(first, new=first.new + np.float32(0.5))
  keep = np.arange(len(first.slots)) % 2 == 0
  second = dataclasses.replace(
    second, **{k: getattr(second, k)[keep] for k in ('slots', 'old', 'new')}
  )
  lesson_file.write(folder / 'b.safetensors', second)
  (folder / 'base').symlink_to(next(folder.glob('cache/*/params')).parent)
  return folder


def lesson(*argv):
  return program.run(lesson_program.main, [str(word) for word in argv])


def checksums(model):
  """What a model's checkpoint holds, by the name of each array."""
  (step,) = (model / 'params').iterdir()
  found = manifest.read(step)
  return {k: v['checksum'] for k, v in found['arrays'].items()}, found['owner']


def files(folder):
  return {
    path.relative_to(folder): path.read_bytes() if path.is_file() else b''
    for path in folder.rglob('*')
  }


def test_a_lesson_is_what_the_run_changed(root, capsys):
  found = lesson_file.read(root / 'a.safetensors')
  assert 7 <= len(found.slots) <= 6 * 7
  assert (found.table, found.num_slots) == ('pool.value', 49)
  (run,) = found.runs
  assert (run['steps'], run['documents']) == (6, 3)
  assert 'cache_dir' not in run['config']['base']
  assert lesson('show', root / 'a.safetensors', root / 'b.safetensors') == 0
  told = capsys.readouterr().out
  assert "3 documents of 'world' in 6 steps, seed 3, by sparse_memory" in told
  assert f'{len(found.slots)} rows (' in told
  assert str(root / 'b.safetensors') in told


def test_applying_and_taking_back_leaves_the_base(root, tmp_path, capsys):
  a = root / 'a.safetensors'
  before = files(root / 'base')
  applied, back = tmp_path / 'applied', tmp_path / 'back'
  assert lesson('apply', a, f'--model={root}/base', f'--out={applied}') == 0
  base_sums, base_owner = checksums(root / 'base')
  sums, owner = checksums(applied)
  assert {k for k in sums if sums[k] != base_sums[k]} == {'pool.value'}
  assert len(owner['lessons']) == 1
  for name in ('tokenizer.json', 'tokenizer_config.json'):
    theirs = (root / 'base' / name).read_bytes()
    assert (applied / name).read_bytes() == theirs
  assert lesson('revert', a, f'--model={applied}', f'--out={back}') == 0
  assert checksums(back) == (base_sums, base_owner)
  assert files(root / 'base') == before
  capsys.readouterr()
  # What is not in a model is not taken out of it, nor put in twice.
  for argv, told in (
    (['revert', a, f'--model={root}/base'], 'not in this table'),
    (['apply', a, f'--model={applied}'], 'in this table already'),
    (['revert', root / 'b.safetensors', f'--model={applied}'], 'not those it'),
  ):
    assert lesson(*argv, f'--out={tmp_path}/none') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert argv[1].name in line
  assert sorted(path.name for path in tmp_path.iterdir()) == ['applied', 'back']


def test_merging_tells_of_what_is_shared(root, tmp_path, capsys):
  a, b = root / 'a.safetensors', root / 'b.safetensors'
  out = tmp_path / 'both'
  assert lesson('merge', a, b, f'--out={out}') == 0
  shared = len(lesson_file.read(b).slots)
  assert f'shares {shared} of its {shared} slots' in capsys.readouterr().out
  merged, first = lesson_file.read(out), lesson_file.read(a)
  assert len(merged.runs) == 2
  expected = lesson_lib.merge(first, lesson_file.read(b))
  assert lesson_file.digest(merged) == lesson_file.digest(expected)
  # The same bits as the merged file; but it was applied by other names.
  model = tmp_path / 'model'
  assert lesson('apply', a, b, f'--model={root}/base', f'--out={model}') == 0
  capsys.readouterr()
  argv = [f'--model={model}', f'--out={tmp_path}/back']
  assert lesson('revert', out, *argv) == 2
  assert 'take back what was applied' in capsys.readouterr().err
  assert lesson('revert', b, a, *argv) == 0
  assert checksums(tmp_path / 'back') == checksums(root / 'base')


def damaged(root, folder):
  """Files that are no lessons of this base, by name."""
  whole = (root / 'a.safetensors').read_bytes()
  (folder / 'cut').write_bytes(whole[:-7])
  other = dataclasses.replace(
    lesson_file.read(root / 'a.safetensors'), base='x'
  )
  lesson_file.write(folder / 'other', other)


@pytest.mark.parametrize(
  ('argv', 'told'),
  [
    ('shwo a', "'shwo' is not known; did you mean 'show'?"),
    ('show', 'the following arguments are required: files'),
    ('show ROOT/aa.safetensors', 'did you mean ROOT/a.safetensors?'),
    ('show HERE/cut', 'HERE/cut is damaged or no lesson'),
    ('merge ROOT/a.safetensors HERE/other --out=HERE/x', 'another base: x'),
    (
      'apply HERE/other --model=ROOT/base --out=HERE/x',
      'HERE/other: the lesson is of another base: x',
    ),
    ('apply HERE/cut --model=ROOT/base --out=HERE/x', 'damaged or no lesson'),
    ('apply ROOT/a.safetensors --model=ROOT --out=HERE/x', 'holds no model'),
    (
      'merge ROOT/a.safetensors ROOT/a.safetensors --out=HERE/x',
      'is the lesson of ROOT/a.safetensors once more',
    ),
    ('merge ROOT/a.safetensors --out=ROOT/b.safetensors', 'exists'),
    ('merge ROOT/a.safetensors --out=HERE/no/x', 'there is no folder HERE/no'),
    ('save --workdir=ROOT/rnu --out=HERE/x', 'did you mean ROOT/run?'),
    ('save --out=HERE/x', 'required: --workdir'),
    ('save --wokdir=ROOT/run --out=HERE/x', "did you mean '--workdir'?"),
    ('show ROOT/a.safetensors --uot=x', "did you mean '--out'?"),
  ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
  argv, told, root, tmp_path, capsys
):
  damaged(root, tmp_path)
  places = (('ROOT', str(root)), ('HERE', str(tmp_path)))
  for name, place in places:
    argv, told = argv.replace(name, place), told.replace(name, place)
  before = files(tmp_path)
  assert lesson(*argv.split()) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert told in line
  assert files(tmp_path) == before


def test_only_runs_that_changed_rows_become_lessons(root, tmp_path, capsys):
  run = tmp_path / 'run'
  run.mkdir()
  config = json.loads((root / 'run' / 'config.json').read_text())
  out = f'--out={tmp_path}/x'
  config['config']['method'] = {'name': 'lora'}
  (run / 'config.json').write_text(json.dumps(config))
  assert lesson('save', f'--workdir={run}', out) == 2
  assert "method 'lora', which changes more" in capsys.readouterr().err
  config['config']['method'] = config['config']['stream'] = None
  (run / 'config.json').write_text(json.dumps(config))
  assert lesson('save', f'--workdir={run}', out) == 2
  assert 'streamed no documents' in capsys.readouterr().err
  shutil.copy(root / 'run' / 'config.json', run / 'config.json')
  assert lesson('save', f'--workdir={run}', out) == 2
  assert 'holds no checkpoint' in capsys.readouterr().err


def answers(printed):
  """By version what it answered, and what stands below."""
  found = {}
  for line in printed.splitlines():
    if line.startswith('('):
      continue
    if not line.startswith(' '):
      name, _, text = line.partition('  ')
      found[name] = [text.strip()]
    else:
      found[name].append(line.strip())
  return found


def test_a_lesson_answers_as_the_run_it_is_of(root, capsys):
  question = 'Where was Ada Keller born?'
  a, b = root / 'a.safetensors', root / 'b.safetensors'
  workdir = f'--workdir={root}/run'
  assert program.run(ask.main, [workdir, question]) == 0
  told = capsys.readouterr().out
  assert "(the model has no word 'Ada')" in told
  by_run = answers(told)
  argv = [workdir, f'--lesson={a}', f'--lesson={b}', question]
  assert program.run(ask.main, argv) == 0
  by_lesson = answers(capsys.readouterr().out)
  assert list(by_lesson) == ['base', str(a), str(b)]
  assert by_lesson['base'] == by_run['base']
  assert by_lesson[str(a)] == by_run[f'{root}/run']
  assert len(by_lesson['base']) == 2
  assert '% on changed slots' in by_lesson[str(a)][2]
  assert by_lesson[str(b)][1:] != by_lesson[str(a)][1:]


def test_questions_are_read_from_the_input(root, capsys, monkeypatch):
  typed = io.StringIO('Where is it?\n\n  It is in\n')
  monkeypatch.setattr('sys.stdin', typed)
  asked = []

  def lines(models, text):
    asked.append(text)
    return ['answered']

  monkeypatch.setattr(ask, 'lines', lines)
  argv = [f'--workdir={root}/run', f'--lesson={root}/a.safetensors']
  assert program.run(ask.main, argv) == 0
  assert asked == ['Where is it?', 'It is in']
  assert capsys.readouterr().out.count('answered') == 2


def test_the_shares_are_of_the_reads_at_the_answer():
  slot_ids = np.array([[3, 5], [3, 9]])
  weights = np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)
  found = ask._answer('x', slot_ids, weights)
  assert found.slots.tolist() == [3, 5, 9]
  np.testing.assert_allclose(found.shares, [0.625, 0.25, 0.125])


def test_a_lesson_of_another_base_is_not_asked(root, tmp_path, capsys):
  damaged(root, tmp_path)
  argv = [f'--workdir={root}/run', f'--lesson={tmp_path}/other', 'x?']
  assert program.run(ask.main, argv) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert 'other: the lesson is of another base: x' in error
  assert program.run(ask.main, [f'--workdir={root}/run', ' ']) == 2
  assert 'the question is empty' in capsys.readouterr().err


def test_a_run_as_a_hugging_face_folder(root, tmp_path, capsys):
  argv = [f'--workdir={root}/run', f'--out={tmp_path}/out']
  assert program.run(export.main, argv) == 0
  assert f'{root}/run is in {tmp_path}/out' in capsys.readouterr().out
  experiment = workdir_lib.experiment_of(root / 'run')
  base = workdir_lib.base_of(experiment)
  state = finetune.last_state(experiment, base, root / 'run')
  found = nnx.state(hf.load_model(tmp_path / 'out'))
  assert checksum.fingerprint(found) == checksum.fingerprint(state.params)
  assert checksum.fingerprint(found) != base.fingerprint
  tokenizer = tokenizers.read(tmp_path / 'out')
  assert tokenizer.fingerprint() == base.tokenizer.fingerprint()
  # It is there now, and stays as it is.
  before = files(tmp_path)
  assert program.run(export.main, argv) == 2
  assert program.run(export.main, [f'--workdir={root}/runn', argv[1]]) == 2
  said = [
    line
    for line in capsys.readouterr().err.splitlines()
    if line.startswith('error: ')
  ]
  assert len(said) == 2
  assert f'did you mean {root}/run?' in said[1]
  assert files(tmp_path) == before
