"""Lessons and questions from the command line, on a tiny run."""

import dataclasses
import io
import json
import re
import shutil

from flax import nnx
import jax
import numpy as np
import pytest

from smft_jax import ask
from smft_jax import export
from smft_jax import hf
from smft_jax import lesson as lesson_lib
from smft_jax.config import experiment as config_lib
from smft_jax.data import tokenizers
from smft_jax.evaluation import evaluate
from smft_jax.lesson import __main__ as lesson_program
from smft_jax.lesson import file as lesson_file
from smft_jax.runs import base as base_lib
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import program
from smft_jax.store import checksum
from smft_jax.store import manifest
from tests.support import tiny_run
from tests.support import train_runs


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly; Adam of optax mixes dtypes."""
  with jax.numpy_dtype_promotion('standard'):
    yield


@pytest.fixture(scope='module')
def root(tmp_path_factory, quickly, learned_run):
  """A finished run, its lesson, another of the same base, and the base."""
  folder = tmp_path_factory.mktemp('lesson')
  workdir, _, base = learned_run
  (folder / 'run').symlink_to(workdir)
  (folder / 'base').symlink_to(base.folder)
  argv = ['save', f'--workdir={folder}/run', f'--out={folder}/a.safetensors']
  assert program.run(lesson_program.main, argv) == 0
  a = lesson_file.read(folder / 'a.safetensors')
  # As if from a run on other documents, which shares some of the slots.
  fields = ('slots', 'old', 'new', 'old_lessons', 'new_lessons')
  rows = {name: getattr(a, name)[::2] for name in fields}
  rows['new'] = rows['new'] + 0.5
  lesson_file.write(folder / 'b.safetensors', dataclasses.replace(a, **rows))
  return folder


def lesson(*argv):
  return program.run(lesson_program.main, [str(word) for word in argv])


def checksums(model):
  """The checksum of each array in a model's checkpoint, and its owner."""
  (step,) = (model / 'params').iterdir()
  found = manifest.read(step)
  return {k: v['checksum'] for k, v in found['arrays'].items()}, found['owner']


def test_a_lesson_is_what_the_run_changed(root, capsys):
  a, b = root / 'a.safetensors', root / 'b.safetensors'
  found = lesson_file.read(a)
  assert 11 <= len(found.slots) <= 6 * 11
  assert (found.table, found.num_slots) == ('pool.value', 289)
  (run,) = found.runs
  assert (run['steps'], run['documents']) == (6, 3)
  assert 'cache_dir' not in run['config']['base']
  assert lesson('show', a, b) == 0
  shown = capsys.readouterr().out
  assert "3 documents of 'world' in 6 steps, seed 3, by sparse_memory" in shown
  assert f'{len(found.slots)} rows (' in shown
  assert str(b) in shown


def test_apply_and_revert_restore_the_base(root, tmp_path, capsys):
  a = root / 'a.safetensors'
  before = train_runs.files(root / 'base')
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
  assert train_runs.files(root / 'base') == before
  capsys.readouterr()
  for argv, message in (
    (['revert', a, f'--model={root}/base'], 'not in this table'),
    (['apply', a, f'--model={applied}'], 'already in this table'),
    (['revert', root / 'b.safetensors', f'--model={applied}'], 'other values'),
  ):
    assert lesson(*argv, f'--out={tmp_path}/none') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert argv[1].name in line
  assert sorted(path.name for path in tmp_path.iterdir()) == ['applied', 'back']


def test_merged_lessons(root, tmp_path, capsys):
  a, b = root / 'a.safetensors', root / 'b.safetensors'
  out = tmp_path / 'both'
  assert lesson('merge', a, b, f'--out={out}') == 0
  shared = len(lesson_file.read(b).slots)
  assert f'shares {shared} of its {shared} slots' in capsys.readouterr().out
  merged, first = lesson_file.read(out), lesson_file.read(a)
  assert len(merged.runs) == 2
  expected = lesson_lib.merge(first, lesson_file.read(b))
  assert lesson_file.digest(merged) == lesson_file.digest(expected)
  # The same bits as the merged file, but applied under other digests.
  model = tmp_path / 'model'
  assert lesson('apply', a, b, f'--model={root}/base', f'--out={model}') == 0
  capsys.readouterr()
  argv = [f'--model={model}', f'--out={tmp_path}/back']
  assert lesson('revert', out, *argv) == 2
  assert 'revert exactly what was applied' in capsys.readouterr().err
  assert lesson('revert', b, a, *argv) == 0
  assert checksums(tmp_path / 'back') == checksums(root / 'base')


@pytest.fixture(scope='module')
def wrong(root, tmp_path_factory):
  """A folder with `cut`, a damaged file, and `other`, of another base."""
  folder = tmp_path_factory.mktemp('wrong')
  whole = (root / 'a.safetensors').read_bytes()
  (folder / 'cut').write_bytes(whole[:-7])
  lesson_a = lesson_file.read(root / 'a.safetensors')
  lesson_file.write(folder / 'other', dataclasses.replace(lesson_a, base='x'))
  return folder


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    ('shwo a', "'shwo' is not known; did you mean 'show'?"),
    ('show', 'the following arguments are required: files'),
    ('show ROOT/aa.safetensors', 'did you mean ROOT/a.safetensors?'),
    ('show HERE/cut', 'HERE/cut is damaged or not a lesson'),
    ('merge A HERE/other --out=HERE/x', 'another base: x'),
    (
      'apply HERE/other --model=ROOT/base --out=HERE/x',
      'HERE/other: the lesson is of another base: x',
    ),
    ('apply HERE/cut --model=ROOT/base --out=HERE/x', 'damaged or not a'),
    ('apply A --model=ROOT --out=HERE/x', 'holds no model'),
    ('merge A A --out=HERE/x', 'is the same lesson as A'),
    ('merge A --out=ROOT/b.safetensors', 'exists'),
    ('merge A --out=HERE/no/x', 'there is no folder HERE/no'),
    ('save --workdir=ROOT/rnu --out=HERE/x', 'did you mean ROOT/run?'),
    ('save --out=HERE/x', 'required: --workdir'),
    ('save --wokdir=ROOT/run --out=HERE/x', "did you mean '--workdir'?"),
    ('show A --uot=x', "did you mean '--out'?"),
    (
      'ask --workdir=ROOT/run --lesson=HERE/other x?',
      'other: the lesson is of another base: x',
    ),
    ('ask --workdir=ROOT/run --lesson=HERE/cut x?', 'damaged or not a lesson'),
    (
      'ask --workdir=ROOT/run --max_answer_tokens=0 x?',
      '--max_answer_tokens must be at least 1, not 0',
    ),
    (
      'ask --workdir=ROOT/run --max_answer_tokens=two x?',
      "--max_answer_tokens: invalid int value: 'two'",
    ),
    ('ask --workdir=ROOT/run --shots=2 x?', "give prompt_format = 'few_shot'"),
    ('ask --workdir=ROOT/run O\udcf9?', r"question 'O\udcf9?' is not in UTF-8"),
    (
      'ask --workdir=ROOT/run --prompt_format=chat x?',
      'has no default chat template',
    ),
  ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
  argv, message, root, wrong, capsys
):
  paths = {'A': root / 'a.safetensors', 'ROOT': root, 'HERE': wrong}
  argv, message = (
    re.sub(r'\b(A|ROOT|HERE)\b', lambda found: str(paths[found[0]]), text)
    for text in (argv, message)
  )
  before = train_runs.files(wrong)
  if argv.startswith('ask '):
    assert program.run(ask.main, argv.split()[1:]) == 2
  else:
    assert lesson(*argv.split()) == 2
  line = capsys.readouterr().err.splitlines()[-1]  # ask says where its base is
  assert message in line
  assert train_runs.files(wrong) == before


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'method': {'name': 'lora'}}, "method 'lora', which changes more"),
    ({'method': None, 'stream': None}, 'streamed no documents'),
    ({}, 'holds no checkpoint'),
  ],
)
def test_runs_without_a_lesson(changes, message, root, tmp_path, capsys):
  config = json.loads((root / 'run' / 'config.json').read_text())
  config['config'] |= changes
  (tmp_path / 'config.json').write_text(json.dumps(config))
  assert lesson('save', f'--workdir={tmp_path}', f'--out={tmp_path}/x') == 2
  assert message in capsys.readouterr().err


def test_a_lesson_answers_like_its_run(root, capsys):
  a, b = str(root / 'a.safetensors'), str(root / 'b.safetensors')

  def answers(*more):
    """The answer and the lines below it, by version."""
    argv = [f'--workdir={root}/run', *more, 'Where was Ada Keller born?']
    assert program.run(ask.main, argv) == 0
    printed = capsys.readouterr().out
    assert "(the model does not know the word 'Ada')" in printed
    parts = re.findall(r'^([\w/].*?)  (.*\n(?: .*\n)*)', printed, re.MULTILINE)
    return {name: [x.strip() for x in ls.splitlines()] for name, ls in parts}

  by_run = answers()
  by_lesson = answers(f'--lesson={a}', f'--lesson={b}')
  assert list(by_lesson) == ['base', a, b]
  assert by_lesson['base'] == by_run['base']
  assert by_lesson[a] == by_run[f'{root}/run']
  assert len(by_lesson['base']) == 2
  assert '% on changed slots' in by_lesson[a][2]
  assert by_lesson[b][1:] != by_lesson[a][1:]


def test_questions_are_read_from_the_input(root, capsys, monkeypatch):
  typed = io.StringIO('Where is it?\n\n  It is in\n')
  monkeypatch.setattr('sys.stdin', typed)
  monkeypatch.setattr(ask, 'lines', lambda models, text: [f'asked: {text}'])
  argv = [f'--workdir={root}/run', f'--lesson={root}/a.safetensors']
  assert program.run(ask.main, [argv[0], ' ']) == 2
  assert 'the question is empty' in capsys.readouterr().err
  assert program.run(ask.main, argv) == 0
  asked = re.findall('asked: (.*)', capsys.readouterr().out)
  assert asked == ['Question: Where is it? Answer:', 'It is in']


def test_ask_takes_the_length_and_the_form_of_a_prompt(
  root, capsys, monkeypatch
):
  prompts, lengths = [], []
  decode = evaluate.Evaluator.answers

  def answered(evaluator, params, questions, overlay):
    prompts.append(questions[0].prompt)
    lengths.append(evaluator.max_answer_tokens)
    return decode(evaluator, params, questions, overlay)

  monkeypatch.setattr(evaluate.Evaluator, 'answers', answered)
  argv = [f'--workdir={root}/run', f'--lesson={root}/a.safetensors']
  more = ['--prompt_format=few_shot', '--shots=2', '--max_answer_tokens=7']
  assert program.run(ask.main, [*argv, *more, 'Where is it?']) == 0
  # By its checkpoint, too, which was made with other settings.
  assert program.run(ask.main, [argv[0], *more, 'It is in']) == 0
  solved, last, asked = prompts[0].split('\n\n')
  assert asked == 'Question: Where is it? Answer:'
  assert solved != last
  assert not solved.endswith('Answer:')
  assert prompts[1] == 'It is in'
  assert lengths == [7, 7, 7]
  capsys.readouterr()


def test_a_base_without_memory_answers_and_takes_no_lesson(
  root, tmp_path, capsys
):
  config = tiny_run.make(
    base__cache_dir=str(tmp_path / 'cache'),
    model__memory_layers=(),
    **dict.fromkeys(('background', 'stream', 'method')),
  )
  experiment = config_lib.from_config_dict(config)
  workdir_lib.prepare(tmp_path / 'run', experiment)
  saved_run.load_base(experiment, tmp_path / 'run')
  capsys.readouterr()
  argv = [f'--workdir={tmp_path}/run', 'Where is it?']
  assert program.run(ask.main, argv) == 0
  answered = capsys.readouterr().out.splitlines()
  assert answered[-2].startswith('base  ')
  assert answered[-1].strip() == 'slots none'
  a = root / 'a.safetensors'
  assert program.run(ask.main, [*argv, f'--lesson={a}']) == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert said == f'error: {a}: the model has no memory, which lessons are of'


def test_shares_sum_the_weights_of_each_slot():
  slot_ids = np.array([[3, 5], [3, 9]])
  weights = np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)
  slots, shares = ask._shares(slot_ids, weights)
  assert slots.tolist() == [3, 5, 9]
  np.testing.assert_allclose(shares, [0.625, 0.25, 0.125])


def test_a_run_as_a_hugging_face_folder(root, learned_run, tmp_path, capsys):
  _, experiment, base = learned_run
  argv = [f'--workdir={root}/run', f'--out={tmp_path}/out']
  assert program.run(export.main, argv) == 0
  assert f'{tmp_path}/out' in capsys.readouterr().out
  state = states.last_state(experiment, base, root / 'run')
  found = nnx.state(hf.load_model(tmp_path / 'out'))
  assert checksum.fingerprint(found) == checksum.fingerprint(state.params)
  assert checksum.fingerprint(found) != base.fingerprint
  tokenizer = tokenizers.read(tmp_path / 'out')
  assert tokenizer.fingerprint() == base.tokenizer.fingerprint()
  # A second export to the same folder is refused.
  before = train_runs.files(tmp_path)
  assert program.run(export.main, argv) == 2
  assert program.run(export.main, [f'--workdir={root}/runn', argv[1]]) == 2
  assert f'did you mean {root}/run?' in capsys.readouterr().err
  assert train_runs.files(tmp_path) == before


def test_data_is_read_only_if_the_base_is_gone(
  learned_run, tmp_path, monkeypatch, capsys
):
  run, experiment, base = learned_run
  workdir = tmp_path / 'run'
  shutil.copytree(run, workdir)
  read = []
  make_task = base_lib.make_task

  def counted(experiment):
    read.append(experiment)
    return make_task(experiment)

  monkeypatch.setattr(base_lib, 'make_task', counted)
  flag = f'--workdir={workdir}'
  assert lesson('save', flag, f'--out={tmp_path}/a.safetensors') == 0
  assert program.run(export.main, [flag, f'--out={tmp_path}/out']) == 0
  assert program.run(ask.main, [flag, 'Where is it?']) == 0
  assert not read
  found = saved_run.load_base(experiment, workdir)
  assert found.fingerprint == base.fingerprint
  assert not read
  assert found.task == found.task == base.task
  assert len(read) == 1
  # A base that is not where it was, a run that is older, a file half written.
  record = workdir / 'base.json'
  record.write_text('{"base": "base-world-gone"}')
  assert saved_run.load_base(experiment, workdir).folder == base.folder
  record.unlink()
  assert saved_run.load_base(experiment, workdir).folder == base.folder
  assert len(read) == 3
  capsys.readouterr()
  record.write_text('{"ba')
  assert program.run(ask.main, [flag, 'Where?']) == 2
  assert capsys.readouterr().err == (
    f'error: {record} is damaged; remove it to find the base by its data\n'
  )
