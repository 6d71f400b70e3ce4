"""The program that analyses a run's memory, on a tiny run."""

import dataclasses
import functools
import json
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
from smft_jax.analyze import page
from smft_jax.analyze import reads
from smft_jax.analyze import sufficiency
from smft_jax.data import task
from smft_jax.evaluation import evaluate
from smft_jax.evaluation import scores
from smft_jax.runs import states
from smft_jax.runtime import program
from smft_jax.store import atomic
from smft_jax.training import state as state_lib
from tests.support import html_page


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly; Adam of optax mixes dtypes."""
  with jax.numpy_dtype_promotion('standard'):
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory, quickly, learned_run):
  """An analysed run: its workdir, experiment and base."""
  learned, experiment, base = learned_run
  workdir = tmp_path_factory.mktemp('analyze') / 'run'
  shutil.copytree(learned, workdir)
  usage = {'usage': 0.5, 'top_1_percent_share': 0.25, 'kl_to_uniform': 0.125}
  atomic.write_json(workdir / 'results.json', {'memory_health': usage})
  assert program.run(analyze.main, [f'--workdir={workdir}']) == 0
  return workdir, experiment, base


@pytest.fixture(scope='module')
def numbers(run):
  return json.loads((run[0] / 'analysis.json').read_text())


@pytest.fixture(scope='module')
def last(run):
  workdir, experiment, base = run
  return states.last_state(experiment, base, workdir)


@pytest.fixture(scope='module')
def changed(run, last):
  """What the run changed in the table."""
  before, after = (state_lib.value_table(x.params) for x in (run[2], last))
  return lesson_lib.difference(before, after)


def test_the_rows_of_the_lessons_are_those_the_run_changed(numbers, changed):
  # Every step is recovered: nothing changed that no step chose.
  assert numbers['changed_but_not_found'] == 0
  assert numbers['slots_changed'] == len(changed.slots)
  overlap = numbers['health']['overlap']
  assert overlap['all_rows'] == len(changed.slots)
  times = enumerate(overlap['by_lessons'], start=1)
  assert sum(n * rows for n, rows in times) == sum(overlap['rows'])
  assert all(11 <= rows <= 2 * 11 for rows in overlap['rows'])
  assert numbers['health']['drift'] == 0  # one memory layer
  histogram = numbers['health']['document_frequency']
  assert sum(bin['slots'] for bin in histogram) == 289


def test_all_rows_answer_like_the_lesson(numbers):
  versions = {'base', 'core_only', 'all_but_core', 'lesson', 'run'}
  assert set(numbers['answered']) == versions
  by_rows = numbers['by_rows']['lesson']['answered']
  assert by_rows[-1] == numbers['answered']['lesson']
  for found in numbers['alignment'].values():
    assert found['inside'] is None or 0 <= found['inside']['share'] <= 1


def test_a_core_set_computed_text_by_text(run, numbers, changed):
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
  asked = (q for q in document.questions if q.fact == fact['fact'])
  (unseen,) = (q for q in asked if not q.seen)
  texts = [
    text.text
    for text in document.augmentations
    if text.text[slice(*text.answer)] == unseen.answers[0]
  ]
  assert fact['paraphrases'] == len(texts) > 1
  shared = set.intersection(*map(slots, texts))
  core = shared & slots(unseen.full_text().text)
  assert fact['read_by_every_paraphrase'] == len(shared)
  assert fact['core_slots'] == sorted(core)
  assert fact['core_trained'] == len(fact['core_slots_trained'])
  assert set(fact['core_slots_trained']) <= core & set(changed.slots.tolist())


def test_a_text_read_in_parts_has_every_token_once(run):
  _, _, base = run
  text = base.task.documents[0].augmentations[0]
  read = functools.partial(reads.read_texts, max_length=4, batch_size=5)
  (one,) = read(base.graphdef, base.params, [text], base.tokenizer)
  assert len(one.slot_ids) == len(base.tokenizer.encode(text.text)) + 2
  assert one.spans.shape == (len(one.slot_ids), 2)
  assert text.text[slice(*one.spans[-2])] == text.text[-1]


def test_answers_with_some_rows_are_those_of_the_table_with_them(run, changed):
  _, experiment, base = run
  questions = base.task.documents[0].questions[:4]
  evaluator = evaluate.Evaluator(
    graphdef=base.graphdef,
    tokenizer=base.tokenizer,
    batch_size=3,
    max_length=experiment.base.max_length,
    max_answer_tokens=3,
  )
  # The model's answers with these rows count as right.
  some = changed.slots[::2]
  table = state_lib.value_table(base.params).at[some].set(changed.new[::2] + 9)
  values, frozen = nnx.split_state(base.params, memory.MemoryValue, ...)
  params = nnx.merge_state(frozen, jax.tree.map(lambda _: table, values))
  moved = lesson_lib.difference(state_lib.value_table(base.params), table)
  with_rows = evaluator.answers(params, questions)
  without = evaluator.answers(base.params, questions)
  asked = [
    dataclasses.replace(question, answers=(answer or 'x',))
    for question, answer in zip(questions, with_rows, strict=True)
  ]
  rows = [some[::-1], some[:0]] * 2
  right = sufficiency.answered(
    evaluator, base.params, moved, asked, rows, max_rows=len(some)
  )
  read = [with_rows[0], without[1], with_rows[2], without[3]]
  expected = [
    scores.exact_match(answer, question.answers) > 0
    for answer, question in zip(read, asked, strict=True)
  ]
  assert right.tolist() == expected
  assert with_rows != without


def test_the_page_needs_no_network(run):
  workdir, _, _ = run
  text = (workdir / 'analysis.html').read_text()
  html_page.Page(text)
  assert text.count('<h2') == 4
  assert text.count('<svg') >= 3
  assert '50.0%' in text  # of the slots are read
  assert '<div class="heat">' in text
  assert 'prefers-color-scheme: dark' in text
  assert 'width=device-width' in text
  pictures = sorted(path.name for path in workdir.glob('*.png'))
  assert pictures == [f'heatmap-{number}.png' for number in (1, 2, 3)]
  assert not list(workdir.glob('.*'))


def test_a_heat_map_marks_entities_and_escapes_texts(numbers, tmp_path):
  text = heat_map.HeatText(
    text='<Ada Keller> spoke',
    spans=np.array([(0, 4), (5, 12), (13, 18)]),
    starts=np.array([True, False, False]),
    ends=np.array([False, True, False]),
    counts=dict(
      core=np.array([1, 2, 0]),
      trained=np.array([0, 0, 1]),
      background=np.array([1, 0, 1]),
    ),
  )
  made = heat_map.HeatMap(fact='<fact>', texts=(text,), accesses=2)
  assert (made.most('core'), made.most('trained')) == (2, 1)
  page.write(tmp_path, numbers, [made])
  html = (tmp_path / 'analysis.html').read_text()
  core = html.split('<small>core</small>')[1].split('</p>')[0]
  assert core == (
    '<i class="start" style="--s:0.50" title="1 of 2">&lt;Ada</i> '
    '<i class="end" style="--s:1.00" title="2 of 2">Keller&gt;</i> '
    '<i style="--s:0.00" title="0 of 2">spoke</i>'
  )
  assert '&lt;fact&gt;' in html
  assert '<fact>' not in html


def test_texts_without_answers_or_questions(run, last, tmp_path):
  _, experiment, base = run
  documents = []
  for document in base.task.documents:
    texts = tuple(task.Text(text=t.text) for t in document.augmentations)
    bare = dataclasses.replace(document, augmentations=texts, questions=())
    documents.append(bare)
  bare_task = dataclasses.replace(base.task, documents=tuple(documents))
  plain = dataclasses.replace(base, read_task=lambda: bare_task)
  first = states.first_state(experiment, base)
  found, facts = analysis.analyse(experiment, plain, first, last)
  assert found['changed_but_not_found'] == 0
  names = [held.fact.name for held in facts]
  assert names == [document.id for document in documents]
  numbers = atomic.to_json(found) | {'workdir': 'run', 'seed': 3}
  assert 'answered' not in numbers
  assert numbers['alignment']['core']['inside'] is None
  assert numbers['health']['usage']['slots'] == 289
  page.write(tmp_path, numbers, heat_map.choose(facts))
  assert (tmp_path / 'analysis.html').read_text().count('<h2') == 3
  assert all(name and value for name, value in page.summary(numbers))


def test_a_run_that_cannot_be_analysed(run, tmp_path, capsys):
  workdir, _, _ = run

  def refused(folder, message):
    assert program.run(analyze.main, [f'--workdir={folder}']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line

  refused(workdir.parent / 'rum', 'holds no run; did you mean')
  shutil.copyfile(workdir / 'config.json', tmp_path / 'config.json')
  refused(tmp_path, 'is not finished')
  (tmp_path / 'results.json').write_text('{')
  refused(tmp_path, 'is damaged')
  config = json.loads((workdir / 'config.json').read_text())
  for changes, message in (
    ({'method': {'name': 'full'}}, "method 'full', which chooses no slots"),
    ({'method': None, 'stream': None}, 'streamed no documents'),
  ):
    config['config'] |= changes
    atomic.write_json(tmp_path / 'config.json', config)
    refused(tmp_path, message)
  assert {p.name for p in tmp_path.iterdir()} == {'config.json', 'results.json'}
