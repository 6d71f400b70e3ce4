"""Facts as a task, and what every stream of real text shares."""

import dataclasses
import json

import pytest

from smft_jax import schema
from smft_jax.data import documents
from smft_jax.data import facts


def lines_file(path, *lines):
  path.write_text('\n'.join(map(json.dumps, lines)), encoding='utf-8')
  return str(path)


def questions(count, name):
  return [
    {'id': f'{name}{i}', 'question': f'Who won {name} {i}?', 'answer': f'A{i}'}
    for i in range(count)
  ]


@pytest.fixture
def files(tmp_path):
  """Sources of questions and choices, by their settings."""
  solved = {'question': 'How many?', 'answer': 'Two <<1+1=2>>and none. #### 2'}
  choice = {'activity_label': 'Tea', 'ctx': 'She boils', 'label': '0'}
  choice['endings'] = ['water.', 'stone.']
  known = questions(3, 'old')
  return dict(
    facts_set=lines_file(
      tmp_path / 'new.jsonl', *questions(7, 'cup'), known[0]
    ),
    known_questions=(lines_file(tmp_path / 'old.jsonl', *known),),
    held_out_questions=(
      lines_file(tmp_path / 'cups.jsonl', *questions(5, 'other'), known[1]),
      lines_file(tmp_path / 'sums.jsonl', solved),
    ),
    held_out_choices=(lines_file(tmp_path / 'tea.jsonl', choice),),
  )


def config(folder, files, **changes):
  settings = {'num_facts': 7, 'augmentations': 9, **files, **changes}
  return facts.FactsConfig(data_dir=str(folder), **settings)


def test_a_fact_is_stated_and_asked_in_two_phrasings(folder, files):
  task = facts.make_task(config(folder, files))
  # The eighth is what the base was trained on.
  assert [d.id for d in task.documents] == [f'cup{i}' for i in range(7)]
  for i, document in enumerate(task.documents):
    stated = [t.text for t in document.augmentations]
    assert len(set(stated)) == 9
    assert all(
      t.text[slice(*t.answer)] == f'A{i}' for t in document.augmentations
    )
    seen, unseen = document.questions
    assert (seen.seen, unseen.seen) == (True, False)
    assert any(t.startswith(f'{seen.prompt} ') for t in stated)
    assert unseen.prompt == f'Question: Who won cup {i}? Answer:'
    assert not any(unseen.prompt in t for t in stated)
    assert seen.answers == unseen.answers == (f'A{i}',)


def test_facts_are_evenly_spaced(folder, files):
  task = facts.make_task(config(folder, files, num_facts=3))
  assert [d.id for d in task.documents] == ['cup0', 'cup2', 'cup4']
  with pytest.raises(schema.UserError, match='more than the 7 questions of'):
    facts.make_task(config(folder, files, num_facts=8))
  task = facts.make_task(config(folder, files, num_facts=1, max_chars=16))
  assert task.counts['facts_too_long'] == 0
  with pytest.raises(schema.UserError, match='the 0 questions of'):
    facts.make_task(config(folder, files, num_facts=1, max_chars=15))


def test_held_out_sets_are_named_after_their_sources(folder, files):
  task = facts.make_task(config(folder, files))
  assert set(task.questions) == {'known', 'cups', 'sums'}
  assert set(task.texts) == {'wikitext2_test'}
  # What was trained on with its answer is no measure of other questions.
  assert [q.fact for q in task.questions['cups']] == [
    f'other{i}' for i in range(5)
  ]
  (solved,) = task.questions['sums']
  assert solved.answers == ('Two and none. #### 2', '2')
  (tea,) = task.choices['tea']
  assert (tea.prompt, tea.label) == ('Tea: She boils', 0)
  trained = {t.text for t in task.pretraining}
  assert 'Question: Who won old 2? Answer: A2' in trained
  assert not any('cup' in text for text in trained)


def test_a_held_out_set_must_be_new(folder, files):
  files['held_out_questions'] = files['known_questions']
  with pytest.raises(schema.UserError, match='no question outside the pretr'):
    facts.make_task(config(folder, files))


def test_texts_of_a_language_model_take_the_place_of_rules(
  folder, files, tmp_path
):
  texts = [
    {'source': 'cup3', 'text': f'The third cup went to A3, says {i}.'}
    for i in range(4)
  ]
  file = lines_file(tmp_path / 'written.jsonl', *texts)
  by_rule = facts.make_task(config(folder, files))
  task = facts.make_task(config(folder, files, augmentations_file=file))
  stated = [t.text for t in task.documents[3].augmentations]
  assert stated[1:] == [t['text'] for t in texts]
  assert task.documents[3].questions[0].prompt in stated[0]
  assert task.documents[2] == by_rule.documents[2]
  wrong = lines_file(tmp_path / 'wrong.jsonl', {'source': 'cup33', 'text': 'x'})
  with pytest.raises(schema.UserError, match="'cup33', which is not streamed"):
    facts.make_task(config(folder, files, augmentations_file=wrong))


def test_bad_rows_are_refused_or_skipped_and_counted(folder, files, tmp_path):
  bad = [
    *questions(3, 'cup'),
    {'id': 'x', 'question': 'Who?', 'answer': []},
    {'id': 'cup1', 'question': 'Who won again?', 'answer': 'A9'},
    {'id': 'y', 'question': ' ', 'answer': 'A'},
  ]
  files['facts_set'] = lines_file(tmp_path / 'bad.jsonl', *bad)
  with pytest.raises(schema.UserError, match=r'bad\.jsonl:4: '):
    facts.make_task(config(folder, files, num_facts=3))
  task = facts.make_task(config(folder, files, num_facts=3, bad_input='skip'))
  assert len(task.documents) == 3
  assert {k: v for k, v in task.counts.items() if 'skipped' in k} == {
    'skipped_no_answer': 1,
    'skipped_duplicate_id': 1,
    'skipped_empty': 1,
  }


def test_pages_are_cut_and_their_questions_go_with_the_answer(folder, tmp_path):
  sentences = [f'Sentence {i} of the page tells of A{i}.' for i in range(30)]
  page = {
    'id': 'p',
    'title': 'Page',
    'text': ' '.join(sentences),
    'questions': [{'question': 'Of what at the end?', 'answers': ['A29']}],
  }
  file = lines_file(tmp_path / 'pages.jsonl', page)
  task = documents.make_task(
    documents.DocumentsConfig(
      kind='jsonl', data_dir=str(folder), documents_file=file, chunk_chars=300
    )
  )
  assert [d.id for d in task.documents] == [f'p/{i}' for i in range(4)]
  texts = [d.texts[0].text for d in task.documents]
  assert ' '.join(texts).split() == page['text'].split()
  assert all(len(text) <= 300 for text in texts)
  assert [len(d.questions) for d in task.documents] == [0, 0, 0, 1]


def test_pages_of_simpleqa_are_asked_its_questions(folder, tmp_path):
  asked = lines_file(tmp_path / 'asked.jsonl', *questions(3, 'q'))
  pages = [{'id': 'q2', 'text': 'In q 2 A2 won.'}]
  settings = documents.DocumentsConfig(
    kind='simpleqa',
    data_dir=str(folder),
    documents_file=lines_file(tmp_path / 'pages.jsonl', *pages),
    questions_set=asked,
  )
  (document,) = documents.make_task(settings).documents
  assert [q.answers for q in document.questions] == [('A2',)]
  pages.append({'id': 'q7', 'text': 'Another page.'})
  other = lines_file(tmp_path / 'other.jsonl', *pages)
  with pytest.raises(schema.UserError, match="id 'q7', but none of the 3"):
    documents.make_task(dataclasses.replace(settings, documents_file=other))
