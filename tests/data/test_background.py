"""The background and held-out sets of a base that knows the world."""

import json

import pytest

from smft_jax import schema
from smft_jax.data import background
from smft_jax.data import documents
from smft_jax.data import facts
from smft_jax.data import people
from smft_jax.data import real_text
from smft_jax.data.sources import problems
from smft_jax.data.sources import sources


def base_task(**settings):
  config = real_text.SourcesConfig(**settings)
  reader = sources.Reader(problems.Problems('refuse'), config.data_dir)
  return background.base_task(config, reader)


@pytest.fixture(scope='module')
def shipped():
  """What is there without any data set; `data_dir` is not given."""
  return base_task(known_questions=('a:train',), held_out_questions=('b:test',))


def test_without_a_data_set_all_of_it_ships(shipped):
  task, prompts = shipped
  assert len(prompts) == 211
  assert set(task.questions) == {'general_questions'}
  assert set(task.texts) == {'general_prose'}
  assert task.counts == {
    'background_invented': 3200,
    'background_paragraphs': 30,
    'background_questions': 211,
  }
  texts = [text.text for text in task.pretraining]
  assert len(texts) == 3230 + 211
  assert 40_000 < sum(len(text.split()) for text in texts) * 1.3 < 60_000
  # As what is taught: statements and questions in every phrasing.
  assert sum(text.startswith('Question: ') for text in texts) > 500
  assert sum(text.answer is not None for text in task.pretraining) == 2611
  held_out = {text.text for text in task.texts['general_prose']}
  assert not held_out & set(texts)
  asked = {q.prompt for q in task.questions['general_questions']}
  assert not asked & prompts
  assert not any(text.startswith(tuple(asked)) for text in texts)


def test_the_background_has_its_own_people_whatever_is_taught(shipped):
  for count in (0, 12, 300):
    made = people.make_task(people.PeopleConfig(num_new=count))
    assert made.pretraining == shipped[0].pretraining
    assert len(made.documents) == made.counts['documents'] == count
    assert made.counts['new_facts'] == 6 * count
  read = ' '.join(text.text for text in made.pretraining)
  assert not any(document.id in read for document in made.documents)
  assert set(made.questions) == {'general_questions'}
  first = made.documents[0]
  assert {q.seen for q in first.questions} == {True, False}
  unseen = {q.prompt for q in first.questions if not q.seen}
  assert not any(
    prompt in text.text for prompt in unseen for text in first.augmentations
  )
  assert people.make_task(people.PeopleConfig(seed=1)).documents[0] != first
  assert 'general_text' not in made.texts
  assert len(made.texts['target_statements_unseen']) == 300 * 6 * 2


def lines_file(path, *lines):
  path.write_text('\n'.join(map(json.dumps, lines)))
  return str(path)


def test_files_of_ones_own_are_added(tmp_path):
  text = tmp_path / 'notes.md'
  long = 'The mill stands by the river. ' * 10
  text.write_text(f'# Mill\n\n{long}\n{long}\n')
  questions = [{'question': f'Who {i}?', 'answer': 'Ana'} for i in range(1501)]
  known = lines_file(tmp_path / 'known.jsonl', *questions)
  held_out = lines_file(
    tmp_path / 'asked.jsonl',
    questions[0],
    {
      'question': 'Who else?',
      'answer': 'Ada',
    },
  )
  task, prompts = base_task(
    running_text=str(text),
    known_questions=(known,),
    held_out_questions=(held_out,),
    held_out_text='',
  )
  assert task.counts['background_paragraphs'] == 32
  assert task.counts['background_questions'] == len(prompts) == 1711
  assert task.pretraining[3230].text == long.strip()
  # The background has the other one.
  assert [q.prompt for q in task.questions['asked']] == [
    'Question: Who else? Answer:'
  ]


def test_a_file_that_is_not_there_is_no_data_set_to_do_without(tmp_path):
  with pytest.raises(schema.UserError, match='there is no file'):
    base_task(running_text=str(tmp_path / 'gone.txt'))
  assert not sources.is_data_set('./notes')
  assert sources.is_data_set('wikitext2')


def test_a_folder_without_its_slash_is_not_passed_over(tmp_path, monkeypatch):
  (tmp_path / 'notes').mkdir()
  monkeypatch.chdir(tmp_path)
  for setting in ('running_text', 'held_out_text'):
    with pytest.raises(schema.UserError, match=r'is meant, write \./notes'):
      base_task(**{setting: 'notes'})


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (
      {'held_out_questions': ('./a/test.jsonl', './b/test.jsonl')},
      "./a/test.jsonl and ./b/test.jsonl are both 'test' in the results",
    ),
    (
      {'held_out_text': 'my.txt', 'held_out_choices': ('my.csv',)},
      "my.txt and my.csv are both 'my' in the results",
    ),
    (
      {'held_out_questions': ('general_questions.jsonl',)},
      "is 'general_questions' in the results, which is the name of another",
    ),
    ({'held_out_text': 'targets.txt'}, "targets.txt is 'targets' in the resul"),
  ],
)
def test_held_out_sets_have_names_of_their_own(changes, said):
  with pytest.raises(schema.UserError, match=said):
    base_task(**changes)


@pytest.mark.parametrize('suffix', ['.txt', '.md'])
def test_a_plain_file_is_learned_without_any_other_data(tmp_path, suffix):
  file = tmp_path / f'mill{suffix}'
  paragraph = 'The Grey Mill stands by the Oda. Ana Ruiz built it in 1889. '
  file.write_text('\n\n'.join([paragraph * 4] * 20))
  task = documents.make_task(
    documents.DocumentsConfig(
      kind='jsonl', general=True, documents_file=str(file)
    )
  )
  assert [d.id for d in task.documents][:2] == ['mill/0', 'mill/1']
  assert all(len(d.texts[0].text) <= 2000 for d in task.documents)
  assert set(task.questions) == {'general_questions'}
  assert task.counts['documents'] == len(task.documents) > 2


def test_facts_of_a_file_need_no_other_data(tmp_path):
  rows = [{'question': f'Who won {i}?', 'answer': f'A{i}'} for i in range(3)]
  task = facts.make_task(
    facts.FactsConfig(
      general=True,
      num_facts=3,
      facts_set=lines_file(tmp_path / 'new.jsonl', *rows),
    )
  )
  assert len(task.documents) == 3
  assert set(task.questions) == {'general_questions'}


# The real data sets.


def test_real_data_sets_are_added(data_dir):
  made = people.make_task(
    people.PeopleConfig(
      data_dir=data_dir,
      held_out_text='wikitext2:validation',
      known_questions=('nq_open_train_part:train', 'triviaqa_open:train_part'),
      held_out_questions=('natural_questions_open:validation',),
    )
  )
  assert made.counts['background_paragraphs'] == 1530
  assert made.counts['background_questions'] == 3211
  assert len(made.texts['wikitext2_validation']) == 60
  assert len(made.questions['natural_questions_open_validation']) > 3500


def test_people_are_asked_in_more_phrasings_but_not_the_held_out_ones():
  made = people.make_task(people.PeopleConfig(num_new=3, seed=4))
  for document in made.documents:
    shown = {
      text.text.rpartition('\n\n')[2].rpartition(' Answer:')[0]
      for text in document.augmentations
    }
    for question in document.questions:
      asked = question.prompt.rpartition(' Answer:')[0]
      assert (asked in shown) == question.seen
    assert len(document.augmentations) == 6 * (6 + 3 + 12)
