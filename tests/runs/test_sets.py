"""What a run asks, and what it refuses to ask before a model is made."""

import dataclasses
import json

import pytest

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import encoding
from smft_jax.data import real_text
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.data.sources import problems
from smft_jax.data.sources import sources
from smft_jax.runs import sets
from tests.support import tiny_run
from tests.support import train_runs


def question(fact, answer='Porto', **more):
  return task_lib.Question(
    prompt=f'Question: Where is {fact}? Answer:',
    answers=(answer,),
    phrasing='',
    seen=True,
    fact=fact,
    **more,
  )


def make_task(*held_out, **more):
  text = task_lib.Text(text='Ada lives in Porto')
  taught = question('Ada')
  document = task_lib.Document(
    id='a', augmentations=(text,), questions=(taught,), texts=(text,)
  )
  return task_lib.Task(
    pretraining=(text,),
    documents=(document,),
    questions={'known': held_out} | more,
    texts={},
    counts={},
  )


def experiment_of(**evaluation):
  changes = {f'evaluation__{key}': value for key, value in evaluation.items()}
  return config_lib.from_config_dict(tiny_run.make(**changes))


def long_task(asks):
  texts = [task_lib.Text(text=f'{n} lives in Porto') for n in range(20)]
  return dataclasses.replace(
    make_task(),
    documents=tuple(
      task_lib.Document(
        id=str(n),
        augmentations=(text,),
        questions=(question(f'{n}'), question(f'{n}?')) if asks else (),
        texts=(text,),
      )
      for n, text in enumerate(texts)
    ),
  )


def test_some_documents_of_a_stream_are_measured_all_along():
  settings = experiment_of(max_documents=4, max_entries=None).evaluation
  drawn = sets.draw(long_task(True), settings, max_documents=15, seed=0)
  assert len(drawn.documents) == 15
  about = drawn.about['target'].tolist()
  # Both questions on each of four, in order.
  assert len(set(about)) == 4
  assert about == sorted([*set(about)] * 2)
  assert max(about) < 15
  facts = [q.fact.rstrip('?') for q in drawn.questions['target']]
  assert facts == [str(index) for index in about]
  others = sets.draw(long_task(True), settings, max_documents=15, seed=1)
  assert others.about['target'].tolist() != about
  few = dataclasses.replace(settings, max_entries=3)
  asked = sets.draw(long_task(True), few, max_documents=15, seed=0)
  assert len(asked.questions['target']) == 3
  assert {*asked.about['target'].tolist()} <= {*about}
  # The loss of the same documents, if nothing is asked.
  drawn = sets.draw(long_task(False), settings, max_documents=15, seed=0)
  texts = [f'{index} lives in Porto' for index in sorted({*about})]
  assert [text.text for text in drawn.texts['target']] == texts


def test_few_shot_prompts_show_held_out_questions_only():
  task = make_task(
    question('B', 'Rome'), question('C', 'Oslo'), other=(question('D'),)
  )
  settings = experiment_of(prompt_format='few_shot', shots=2).evaluation
  drawn = sets.draw(task, settings, max_documents=None, seed=0)
  solved = {
    'B': 'Question: Where is B? Answer: Rome',
    'C': 'Question: Where is C? Answer: Oslo',
    'D': 'Question: Where is D? Answer: Porto',
  }
  shown = {
    (name, q.fact): q.prompt.split('\n\n')[:-1]
    for name, questions in drawn.questions.items()
    for q in questions
  }
  assert shown == {
    ('target', 'Ada'): [],  # asked as its document words it
    ('target_after_examples', 'Ada'): [solved['B'], solved['C']],
    ('known', 'B'): [solved['C'], solved['D']],
    ('known', 'C'): [solved['B'], solved['D']],
    ('other', 'D'): [solved['B'], solved['C']],
  }
  assert drawn.about['target_after_examples'].tolist() == [0]
  # A set's own questions go before those of other sets.
  task = make_task(question('B', 'Rome'), other=(question('D'), question('E')))
  one = dataclasses.replace(settings, shots=1)
  drawn = sets.draw(task, one, max_documents=None, seed=0)
  (_, last) = drawn.questions['other']
  assert last.prompt.startswith(solved['D'])
  with pytest.raises(schema.UserError, match='shots = 2 is more than the 1'):
    sets.draw(
      make_task(question('B'), question('C')),
      settings,
      max_documents=None,
      seed=0,
    )


def test_the_hardest_phrasings_are_asked_behind_examples():
  task = make_task(question('B', 'Rome'), question('C', 'Oslo'))
  document = task.documents[0]
  unseen = dataclasses.replace(
    document.questions[0],
    prompt='Question: Ada lives where? Answer:',
    seen=False,
  )
  task = dataclasses.replace(
    task,
    documents=(
      dataclasses.replace(document, questions=(*document.questions, unseen)),
    ),
  )
  settings = experiment_of(prompt_format='few_shot', shots=1).evaluation
  drawn = sets.draw(task, settings, max_documents=None, seed=0)
  (asked,) = drawn.questions['target_after_examples']
  assert asked.prompt.endswith(unseen.prompt)
  assert asked.answers == unseen.answers
  # Edits are beginnings of sentences, which no question goes before.
  edits = dataclasses.replace(task, are_edits=True)
  drawn = sets.draw(edits, settings, max_documents=None, seed=0)
  assert 'target_after_examples' not in drawn.questions
  plain = experiment_of(prompt_format='plain').evaluation
  drawn = sets.draw(task, plain, max_documents=None, seed=0)
  assert 'target_after_examples' not in drawn.questions


def test_an_answer_that_does_not_fit_names_its_file_and_line(tmp_path):
  rows = [{'question': 'Where?', 'answers': [text]} for text in ('a', 'a ' * 9)]
  path = tmp_path / 'facts.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  reader = sources.Reader(problems.Problems('refuse'))
  task = make_task(
    *(
      real_text.question(found, seen=False)
      for found in reader.questions(str(path))
    )
  )
  tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
  experiment = experiment_of()
  sets.check(experiment, task, tokenizer)
  short = dataclasses.replace(
    experiment, base=dataclasses.replace(experiment.base, max_length=9)
  )
  with pytest.raises(schema.UserError) as error:
    sets.check(short, task, tokenizer)
  assert str(error.value) == (
    f'{path}:2: config.base.max_length = 9 must be at least 11 to hold the'
    " answer 'a a a a a a a a a' to 'Question: Where? Answer:'"
  )


def test_a_few_shot_prompt_must_fit():
  task = make_task(question('B', 'Rome'), question('C', 'Oslo'))
  tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
  few = experiment_of(prompt_format='few_shot', shots=1)

  def with_length(length):
    base = dataclasses.replace(few.base, max_length=length)
    return dataclasses.replace(few, base=base)

  # A beginning, two questions of eight tokens with their answers, an end.
  sets.check(with_length(20), task, tokenizer)
  with pytest.raises(schema.UserError, match=r'least 20 .* prompt and answer'):
    sets.check(with_length(19), task, tokenizer)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (
      ['--config.evaluation.prompt_format=chat'],
      "config.evaluation.prompt_format = 'chat', but the tokenizer has no"
      " default chat template; take 'plain'",
    ),
    (
      ['--config.evaluation.prompt_format=few_shot'],
      "config.evaluation.prompt_format = 'few_shot' needs shots",
    ),
    (
      ['--config.evaluation.shots=3'],
      "shots = 3 is for few-shot prompts: give prompt_format = 'few_shot'",
    ),
    (
      ['--config.base.max_length=2'],
      'config.base.max_length = 2 must be at least',
    ),
  ],
)
def test_a_run_is_refused_before_its_model_is_made(
  flags, message, tmp_path, capsys, monkeypatch
):
  tiny_run.write_config(tmp_path)

  def make(*_):
    raise AssertionError('a model was made')

  monkeypatch.setattr('smft_jax.models.build.shapes', make)
  assert train_runs.run(tmp_path, 'run', *flags) == 2
  assert message in capsys.readouterr().err.splitlines()[-1]
  assert not (tmp_path / 'run').exists()


def test_texts_fill_a_number_of_rows_and_no_more():
  texts = [
    task_lib.Text(text=' '.join(f'{name}{i}' for i in range(words)))
    for name, words in zip('abcdef', (3, 40, 4, 1, 2, 40), strict=True)
  ]
  tokenizer = tokenizers.train_word_level([t.text for t in texts])

  def shortened(max_rows, seed=0):
    # Ten tokens and a beginning; 40 words and an end are 5 rows.
    return sets.shortened(
      texts, tokenizer, max_length=11, max_rows=max_rows, seed=seed
    )

  assert shortened(None) == shortened(14) == tuple(texts)
  found = set()
  for seed in range(9):
    for size in range(1, 14):
      taken = shortened(size, seed)
      rows = encoding.tokenize(taken, tokenizer, max_length=11)
      assert len(rows) == size
      # In their order, at most one of them cut, at its end.
      places = [
        next(i for i, t in enumerate(texts) if t.text.startswith(one.text))
        for one in taken
      ]
      assert places == sorted(places)
      assert sum(one not in texts for one in taken) <= 1
      found.add(taken)
  assert len(found) > 30
