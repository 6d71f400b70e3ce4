"""The examples run, and notice when what they show does not hold."""

import ast
import functools
import importlib.util
import re

import jax
import optax
import pytest

from smft_jax import optim
from smft_jax.data import edits
from smft_jax.data.sources import problems
from smft_jax.data.sources import sources
from tests.support import repository

_EXAMPLES = repository.ROOT / 'examples'
pytestmark = pytest.mark.usefixtures('quick_compilation')
HERE = ['plain_optax', 'nnx_optimizer', 'linen']


def _load(name):
  spec = importlib.util.spec_from_file_location(name, _EXAMPLES / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(autouse=True)
def _as_a_user_has_it(monkeypatch):
  """Neither optax's AdamW nor Flax pass strict promotion."""
  monkeypatch.syspath_prepend(_EXAMPLES)
  with (
    jax.numpy_dtype_promotion('standard'),
    jax.numpy_rank_promotion('allow'),
  ):
    yield


def _check_output(out):
  first, last = map(float, re.search(r'loss (\S+) -> (\S+)', out).groups())
  assert last < first - 0.5
  rows = ast.literal_eval(out.split('rows changed: ')[1])
  assert [count for count in rows.values() if count] == [50]
  assert len(rows) >= 5


@pytest.mark.parametrize('name', HERE)
def test_example(name, capsys):
  _load(name).main()
  _check_output(capsys.readouterr().out)


def test_every_example_is_run_here():
  there = {path.stem for path in _EXAMPLES.glob('*.py')}
  others = {'tunix_peft', 'levanter_trainer', 'claim', 'handbook', 'edits'}
  assert there == {*HERE, *others}


def test_the_handbook_is_read_and_answers_its_questions(tmp_path, capsys):
  _load('handbook').main()
  file = tmp_path / 'handbook.jsonl'
  file.write_text(capsys.readouterr().out)
  found = sources.Reader(problems.Problems('refuse')).documents(str(file))
  assert len(found) == 75
  assert 45_000 < sum(len(document.text) for document in found) < 60_000
  for document in found:
    assert len(document.questions) == 2
    for question in document.questions:
      assert question.answers[0] in document.text


def test_the_edits_are_read_and_none_changes_what_another_keeps(
  tmp_path, capsys
):
  _load('edits').main()
  file = tmp_path / 'edits.jsonl'
  file.write_text(capsys.readouterr().out)
  made = edits.make_task(edits.EditsConfig(edits_file=str(file)))
  assert len(made.documents) == 200
  for edit in made.documents:
    assert len(edit.questions) == 2
    assert len(edit.kept) == 1


def test_example_notices_that_other_rows_change(monkeypatch):
  everything = optax.with_extra_args_support(optax.identity())
  monkeypatch.setattr(optim, 'keep_top_slots', lambda t: everything)
  with pytest.raises(SystemExit, match=r'^values: not the 50 rows'):
    _load('plain_optax').main(steps=2)


def test_example_notices_that_other_parameters_change(monkeypatch):
  # Decays everything but the table, whose rows stay right.
  others = functools.partial(
    jax.tree_util.tree_map_with_path, lambda path, _: 'values' not in str(path)
  )
  decay = optax.masked(optax.add_decayed_weights(1e-3), others)
  finetuning = optim.sparse_memory_finetuning

  def with_decay(*args, **kwargs):
    return optax.chain(finetuning(*args, **kwargs), decay)

  monkeypatch.setattr(optim, 'sparse_memory_finetuning', with_decay)
  with pytest.raises(SystemExit, match=r'^Dense_0/kernel, .* changed$'):
    _load('linen').main(steps=2)


@pytest.mark.filterwarnings('default')  # Tunix's own are not ours to mend.
@pytest.mark.parametrize('accumulated', [None, 3])
def test_tunix(accumulated, capsys):
  pytest.importorskip(
    'tunix', reason='needs Tunix in an environment of its own: .[tunix]'
  )
  _load('tunix_peft').main(accumulated=accumulated)
  _check_output(capsys.readouterr().out)


@pytest.mark.filterwarnings('default')  # nor are Levanter's
@pytest.mark.parametrize('accumulated', [1, 2])
def test_levanter(accumulated, capsys):
  pytest.importorskip(
    'levanter', reason='needs Levanter in an environment of its own'
  )
  _load('levanter_trainer').main(accumulated=accumulated)
  _check_output(capsys.readouterr().out)
