"""The program that looks at a run's memory, on a run in a tiny world."""

import dataclasses
import functools
import json
import re
import shutil

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import lesson as lesson_lib
from smft_jax import memory
from smft_jax.analyze import __main__ as analyze
from smft_jax.analyze import analysis
from smft_jax.analyze import heat_map
from smft_jax.analyze import page as analysis_page
from smft_jax.analyze import reads
from smft_jax.analyze import sufficiency
from smft_jax.analyze import words as analysis_words
from smft_jax.data import task
from smft_jax.evaluation import evaluate
from smft_jax.evaluation import scores
from smft_jax.runs import finetune
from smft_jax.runtime import program
from smft_jax.store import atomic
from smft_jax.training import step as step_lib
from tests.support import tiny_run


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly; Adam of optax mixes dtypes."""
  with jax.numpy_dtype_promotion('standard'):
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory, quickly):
  """A run without its measurements, analysed: workdir, experiment, base."""
  folder = tmp_path_factory.mktemp('analyze')
  workdir = folder / 'run'
  # So many slots that lessons choose different ones.
  config = tiny_run.make(
    base__cache_dir=str(folder / 'cache'), memory__num_slots=289, method__t=11
  )
  experiment, base = tiny_run.learn(workdir, config)
  usage = {
    'usage': 0.5, 'top_1_percent_share': 0.25, 'kl_to_uniform': 0.125,
    'dead_slots': 144, 'slots': 289, 'reads': 2890,
  }  # fmt: skip
  results = {'method': 'sparse_memory', 'seed': 3, 'memory_health': usage}
  atomic.write_json(workdir / 'results.json', results)
  assert program.run(analyze.main, [f'--workdir={workdir}']) == 0
  return workdir, experiment, base


@pytest.fixture(scope='module')
def numbers(run):
  return json.loads((run[0] / 'analysis.json').read_text())


@pytest.fixture(scope='module')
def changed(run):
  """What the run changed of the table."""
  workdir, experiment, base = run
  last = finetune.last_state(experiment, base, workdir)
  return lesson_lib.difference(
    step_lib.table(base.params), step_lib.table(last.params)
  )


def test_the_rows_of_the_lessons_are_those_the_run_changed(numbers, changed):
  # Every step is found again: nothing changed outside of what it chose.
  assert numbers['changed_but_not_found'] == 0
  assert numbers['slots_changed'] == len(changed.slots)
  overlap = numbers['health']['overlap']
  assert overlap['all_rows'] == len(changed.slots)
  times = enumerate(overlap['by_lessons'], start=1)
  assert sum(n * rows for n, rows in times) == sum(overlap['rows'])
  assert all(11 <= rows <= 2 * 11 for rows in overlap['rows'])
  assert numbers['health']['drift'] == 0  # one memory layer


def test_a_core_set_is_found_again_text_by_text(run, numbers, changed):
  _, _, base = run

  @jax.jit
  def forward(tokens, mask):
    model = nnx.merge(base.graphdef, base.params)
    return nnx.capture(model, memory.SlotIds)(tokens, mask)[1]

  def slots(text):
    ids = [base.tokenizer.bos_id, *base.tokenizer.encode(text)]
    ids.append(base.tokenizer.eos_id)
    tokens = jnp.array([ids + [0] * (23 - len(ids))])
    mask = jnp.arange(23)[None] < len(ids)
    (slot_ids,) = jax.tree.leaves(forward(tokens, mask))
    return set(np.asarray(slot_ids)[0, : len(ids)].ravel().tolist())

  document = base.task.documents[0]
  fact = numbers['facts'][0]
  asked = [q for q in document.questions if q.fact == fact['fact']]
  (unseen,) = (q for q in asked if not q.seen)
  told = [
    text.text
    for text in document.augmentations
    if text.text[slice(*text.answer)] == unseen.answers[0]
  ]
  assert fact['paraphrases'] == len(told) > 1
  shared = set.intersection(*map(slots, told))
  core = shared & slots(unseen.full_text().text)
  assert fact['read_by_every_paraphrase'] == len(shared)
  assert fact['core_slots'] == sorted(core)
  assert fact['core_trained'] == len(fact['core_slots_trained'])
  assert set(fact['core_slots_trained']) <= core & set(changed.slots.tolist())


def test_a_text_read_in_parts_has_every_token_once(run):
  _, _, base = run
  text = base.task.documents[0].augmentations[0]
  (one,) = reads.of_texts(
    base.graphdef,
    base.params,
    [text],
    base.tokenizer,
    max_length=4,
    batch_size=5,
  )
  assert len(one.slot_ids) == len(base.tokenizer.encode(text.text)) + 2
  assert one.spans.shape == (len(one.slot_ids), 2)
  assert text.text[slice(*one.spans[-2])] == text.text[-1]


def test_answers_with_some_rows_are_those_of_the_table_with_them(run, changed):
  _, experiment, base = run
  document = base.task.documents[0]
  questions = document.questions[:4]
  make = functools.partial(
    evaluate.Evaluator,
    graphdef=base.graphdef,
    tokenizer=base.tokenizer,
    max_length=experiment.base.max_length,
    max_answer_tokens=3,
  )
  # What the model answers with these rows is what counts as right.
  some = changed.slots[::2]
  table = step_lib.table(base.params).at[some].set(changed.new[::2] + 9)
  values, frozen = nnx.split_state(base.params, memory.MemoryValue, ...)
  params = nnx.merge_state(frozen, jax.tree.map(lambda _: table, values))
  moved = lesson_lib.difference(step_lib.table(base.params), table)
  batch = make(batch_size=3)
  with_rows = batch.answers(params, questions)
  without = batch.answers(base.params, questions)
  told = [
    dataclasses.replace(question, answers=(answer or 'x',))
    for question, answer in zip(questions, with_rows, strict=True)
  ]
  rows = [some[::-1], some[:0]] * 2
  right = sufficiency.answered(
    batch, base.params, moved, told, rows, room=len(some)
  )
  read = [with_rows[0], without[1], with_rows[2], without[3]]
  expected = [
    scores.exact_match(answer, question.answers) > 0
    for answer, question in zip(read, told, strict=True)
  ]
  assert right.tolist() == expected
  assert with_rows != without


def test_every_part_is_there(run, numbers):
  assert set(numbers['answered']) == {
    'base', 'core_only', 'all_but_core', 'lesson', 'run',
  }  # fmt: skip
  # A lesson's rows hold other lessons' changes too, and the run's are all.
  assert (
    numbers['by_rows']['lesson']['answered'][-1]
    == (numbers['answered']['lesson'])
  )
  for kind in ('core', 'trained', 'background'):
    inside = numbers['alignment'][kind]['inside']
    assert inside is None or 0 <= inside['share'] <= 1
  histogram = numbers['health']['document_frequency']
  assert sum(bin['slots'] for bin in histogram) == 289


def test_the_page_answers_without_a_network(run):
  workdir, _, _ = run
  text = (workdir / 'analysis.html').read_text()
  for asked in (
    'Which slots hold a fact, and were they trained?',
    'Would fewer have done?',
    'Where in the text are they read?',
    'Is the memory healthy?',
    'How it was run',
  ):
    assert asked in text
  assert '<div class="heat">' in text
  assert '50.0% of the slots are read' in text
  assert not re.search(r'src=|href=|<script|@import|url\(', text)
  assert 'prefers-color-scheme: dark' in text
  assert 'width=device-width' in text
  pictures = sorted(path.name for path in workdir.glob('*.png'))
  assert pictures == ['heatmap-1.png', 'heatmap-2.png', 'heatmap-3.png']
  assert not list(workdir.glob('.*'))


def test_texts_without_answers_or_questions_have_a_page_too(run, tmp_path):
  workdir, experiment, base = run
  documents = tuple(
    task.Document(
      id=document.id,
      augmentations=tuple(
        task.Text(text=text.text) for text in document.augmentations
      ),
      questions=(),
      texts=(),
    )
    for document in base.task.documents
  )
  plain = dataclasses.replace(
    base, task=dataclasses.replace(base.task, documents=documents)
  )
  found = analysis.analyse(
    experiment,
    plain,
    finetune.first_state(experiment, base),
    finetune.last_state(experiment, base, workdir),
  )
  assert found.numbers['changed_but_not_found'] == 0
  assert [held.fact.name for held in found.facts] == [
    document.id for document in documents
  ]
  numbers = atomic.to_json(found.numbers)
  assert 'answered' not in numbers
  assert numbers['alignment']['core']['inside'] is None
  assert numbers['health']['usage']['slots'] == 289
  maps = heat_map.choose(found.facts)
  analysis_page.write(tmp_path, numbers, maps, {}, {}, [])
  text = (tmp_path / 'analysis.html').read_text()
  assert 'Is the memory healthy?' in text
  assert 'Would fewer have done?' not in text
  assert all(analysis_words.headlines(numbers))


def refused(workdir, capsys):
  assert program.run(analyze.main, [f'--workdir={workdir}']) == 2
  (line,) = capsys.readouterr().err.splitlines()
  return line


def test_what_cannot_be_analysed_is_said_in_a_line(run, tmp_path, capsys):
  workdir, _, _ = run
  assert 'holds no run; did you mean' in refused(workdir.parent / 'rum', capsys)
  other = tmp_path / 'run'
  other.mkdir()
  shutil.copyfile(workdir / 'config.json', other / 'config.json')
  assert 'is not finished' in refused(other, capsys)
  (other / 'results.json').write_text('{')
  assert 'is damaged' in refused(other, capsys)
  config = json.loads((workdir / 'config.json').read_text())
  config['config']['method'] = {'name': 'full'}
  (other / 'config.json').write_text(json.dumps(config))
  assert "method 'full', which chooses no slots" in refused(other, capsys)
  config['config'] |= {'method': None, 'stream': None}
  (other / 'config.json').write_text(json.dumps(config))
  assert 'streamed no documents' in refused(other, capsys)
  assert sorted(p.name for p in other.iterdir()) == [
    'config.json', 'results.json',
  ]  # fmt: skip
