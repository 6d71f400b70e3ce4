"""Statements of a fact: of its question by rule, and in templates."""

import random

import pytest

from smft_jax.data import task
from smft_jax.data.retelling import declarative
from smft_jax.data.retelling import statements
from tests.support import real_data


@pytest.mark.parametrize(
  ('question', 'answer', 'expected'),
  [
    (
      'Who wrote Emma?',
      'Ada',
      'Ada wrote Emma. The one who wrote Emma is Ada.',
    ),
    (
      'who was the first king of Spain',
      'Ada',
      'Ada was the first king of Spain. The first king of Spain was Ada.',
    ),
    (
      'Who has won most often?',
      'Ada',
      'Ada has won most often. The one who has won most often is Ada.',
    ),
    (
      'Which river flows through Paris?',
      'Seine',
      'Seine flows through Paris. The river that flows through Paris is Seine.',
    ),
    (
      'What city is called the white one?',
      'Oslo',
      'Oslo is called the white one. The city that is called the white one is'
      ' Oslo.',
    ),
    ('What is the capital of Italy?', 'Rome', 'The capital of Italy is Rome.'),
    # No verb of ours.
    ('In which year was the tower first lit?', '1889', ''),
    (
      'In which year was the tower first painted?',
      '1889',
      'The tower was first painted in 1889.',
    ),
    ('When was Ada born?', 'May 6, 1901', 'Ada was born on May 6, 1901.'),
    ('When was Ada born?', 'the same year', ''),
    ('When did the war end?', '1918', 'The war ended in 1918.'),
    ('Where was Ada born?', 'Lisbon', 'Ada was born in Lisbon.'),
    ('Where is Ada buried?', 'near Rome', 'Ada is buried near Rome.'),
  ],
)
def test_statements_made_of_a_question(question, answer, expected):
  made = declarative.frames(question, answer)
  statements = [f'{before}{answer}{after}' for before, after in made]
  assert ' '.join(statements) == expected


@pytest.mark.parametrize(
  'question',
  [
    'Who did Ada marry?',
    'Who has Ada married?',
    'Who will the king marry?',
    'Who was Ada married to?',
    'Who was Ada defeated by in the end, and who with',
    'Who was she?',
    'Who else sang the song?',
    'Who was the battle fought between?',
    'Which year was the battle?',
    'Which state parks are in Utah?',
    'What was made by Ada?',
    'Which film released in 1999 won it?',
    'Which century began the age?',
    'What is the tower made of?',
    'What is the tower called?',
    'When is the show going to be held?',
    'When was the first time the net was used?',
    'When did the us open start?',
    'When did Ada join the band?',
    'How high is the tower?',
    'Emma was written by whom?',
    'Ada was lost. Who found her?',
    'Who said: "I came"?',
    '',
    '?',
  ],
)
def test_questions_that_no_rule_is_safe_for(question):
  assert declarative.frames(question, '1918') == []


def _make(
  count, *, seed='s', form=False, question='Who wrote Emma?', answer='A'
):
  return statements.fact_statements(
    question, answer, count=count, seed=seed, with_question_form=form
  )


def test_every_statement_has_the_answer_marked():
  made = _make(997, answer='Jane Austen')
  assert len(made) >= 120
  assert len({text.text for text in made}) == len(made)
  for text in made:
    assert text.text[slice(*text.answer)] == 'Jane Austen'
    assert '{' not in text.text
    assert 'Emma' in text.text


def test_all_templates_are_used_before_any_is_used_twice():
  number = len(statements.TEMPLATES)
  assert number == len(set(statements.TEMPLATES)) >= 16
  made = _make(number, question='How high is it?')
  expected = {
    template.replace('{question}', 'How high is it?').replace('{answer}', 'A')
    for template in statements.TEMPLATES
  }
  assert {t.text for t in made} == expected


@pytest.mark.parametrize('question', ['Who wrote Emma?', 'who wrote emma'])
def test_the_form_of_evaluation_is_there_only_when_wanted(question):
  asked = task.Question(
    prompt=f'Question: {question} Answer:',
    answers=('A',),
    phrasing='question',
    seen=True,
    fact='f',
  )
  assert _make(1, form=True, question=question) == [asked.full_text()]
  without = _make(997, question=question)
  assert not any('Answer:' in text.text for text in without)
  assert _make(998, form=True, question=question)[1:] == without


def test_seeds_and_counts():
  assert _make(23) == _make(23)
  assert _make(23) != _make(23, seed='t')
  assert _make(23)[:7] == _make(7)


def test_a_mark_is_put_to_a_question_that_lacks_it():
  made = {text.text for text in _make(997, question=' who is it ')}
  assert 'Q: who is it?\nA: A' in made
  made = {text.text for text in _make(997, question='Name it.')}
  assert 'Q: Name it.\nA: A' in made


def test_an_answer_that_ends_with_a_full_stop():
  made = [text.text for text in _make(997, answer='the U.S.')]
  assert 'the U.S. wrote Emma.' in made
  assert 'The one who wrote Emma is the U.S.' in made
  assert not any('..' in text for text in made)


def test_braces_in_a_fact_are_left_alone():
  question, answer = 'What is {answer} in {question}?', '{0}'
  for text in _make(997, question=question, answer=answer):
    assert question in text.text
    assert text.text[slice(*text.answer)] == answer


@pytest.mark.parametrize(
  ('question', 'answer', 'count', 'said'),
  [
    ('Who?', 'A', 0, 'count must be at least 1, not 0'),
    (' ', 'A', 1, 'a fact needs a question and an answer'),
    ('Who?', '\n', 1, 'a fact needs a question and an answer'),
  ],
)
def test_what_is_no_fact(question, answer, count, said):
  with pytest.raises(ValueError, match=said):
    _make(count, question=question, answer=answer)


def test_statements_of_real_facts(data_dir):
  examples = real_data.examples(
    'natural_questions_open', 'validation', data_dir
  )
  declared = 0
  for example in random.Random(0).sample(examples, 211):
    question, answer = example['question'], example['answer'][0].strip()
    made = _make(64, question=question, answer=answer, form=True)
    assert len({text.text for text in made}) == 64
    assert all(text.text[slice(*text.answer)] == answer for text in made)
    declared += bool(declarative.frames(question, answer))
  # The rules are of some use: 1586 of all 3610.
  assert declared > 60


@pytest.mark.parametrize('mark', ['？', '؟'])
def test_question_marks_of_other_scripts(mark):
  made = statements.fact_statements(
    f'谁建的{mark}', '安娜', count=24, seed='0', with_question_form=False
  )
  assert len(made) == 24
  assert not any('?' in text.text for text in made)
