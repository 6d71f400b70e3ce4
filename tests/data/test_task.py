"""What texts, questions, choices and tasks refuse; few-shot prompts."""

import dataclasses

import pytest

from smft_jax import schema
from smft_jax.data import task


def make_question(number, fact=None):
  return task.Question(
    prompt=f'Q: {number}? A:',
    answers=(f'{number}!', f'{number}'),
    phrasing='plain',
    seen=False,
    fact=fact or f'fact {number}',
  )


def make_choice(**changes):
  fields = {'prompt': 'She sits and', 'endings': ('reads.', 'a b.'), 'label': 1}
  return task.Choice(**(fields | changes))


_TEXT = task.Text(text='b')
_DOCUMENT = task.Document(
  id='a', augmentations=(_TEXT,), questions=(), texts=()
)
_EMPTY = {'pretraining': (), 'documents': (), 'questions': {}, 'texts': {}}
_TWO = _EMPTY | {'documents': (_DOCUMENT, _DOCUMENT)}
_ASKED = {'prompt': 'p', 'phrasing': 'f', 'seen': True, 'fact': 'a/b'}


@pytest.mark.parametrize(
  ('make', 'values', 'said'),
  [
    (make_choice, {'endings': ('reads.',), 'label': 0}, 'at least two endings'),
    (make_choice, {'endings': ('reads.', '')}, 'none empty'),
    (make_choice, {'endings': (' ', 'reads.')}, 'none empty'),
    (make_choice, {'label': 2}, "2 of choice 'She sits and' must be from 0 to"),
    (make_choice, {'label': -1}, 'label -1'),
    (task.Text, {'text': ''}, 'non-empty text'),
    (task.Text, {'text': 'abc', 'answer': (2, 4)}, r'answer span \(2, 4\) is'),
    (task.Text, {'text': 'abc', 'answer': (1, 1)}, r'answer span \(1, 1\) is'),
    (
      task.Text,
      {'text': 'abc', 'entities': ((0, 1), (-1, 2))},
      r'entity span \(-1, 2\)',
    ),
    (task.Question, _ASKED | {'answers': ()}, 'one answer, none empty'),
    (task.Question, _ASKED | {'answers': ('a', '')}, 'one answer, none empty'),
    (
      task.Document,
      {'id': 'a', 'augmentations': (), 'questions': (), 'texts': ()},
      "document 'a' has no augmentations",
    ),
    (task.Task, _TWO | {'counts': {}}, "two documents have the id 'a'"),
  ],
)
def test_parts_check_their_values(make, values, said):
  with pytest.raises(ValueError, match=said) as raised:
    make(**values)
  assert '\n' not in str(raised.value)


def test_the_answer_of_a_full_text_is_all_past_the_prompt():
  texts = make_choice().full_texts()
  assert [t.text for t in texts] == ['She sits and reads.', 'She sits and a b.']
  assert [t.text[slice(*t.answer)] for t in texts] == [' reads.', ' a b.']


def test_a_task_without_choices_and_one_that_spells_its_choices():
  empty = task.Task(**_EMPTY, counts={})
  assert empty.choices == {}
  assert empty.vocabulary_texts() == ()
  some = task.Task(**_EMPTY, counts={}, choices={'some': (make_choice(),)})
  assert some.vocabulary_texts() == ('She sits and', 'reads.', 'a b.')


def test_a_fingerprint_is_of_what_is_taught_and_asked_and_of_no_place():
  def made(asked):
    questions = {'some': (asked,)}
    fields = _EMPTY | {'documents': (_DOCUMENT,), 'questions': questions}
    return task.Task(**fields, counts={}).fingerprint

  asked = make_question(7)
  moved = dataclasses.replace(asked, place='b.jsonl:3')
  other = dataclasses.replace(asked, answers=('8!',))
  assert made(asked) == made(moved) != made(other)


def test_the_first_examples_stand_before_every_question():
  asked = (make_question(7), make_question(8))
  assert task.with_examples(asked, [], shots=0) == asked
  shown = [make_question(n) for n in (1, 2, 3)]
  found = task.with_examples(asked, shown, shots=2)
  assert [q.prompt for q in found] == [
    f'Q: 1? A: 1!\n\nQ: 2? A: 2!\n\nQ: {n}? A:' for n in (7, 8)
  ]
  for before, after in zip(asked, found, strict=True):
    assert dataclasses.replace(after, prompt=before.prompt) == before


def test_a_question_is_no_example_for_itself():
  shown = [make_question(n) for n in (1, 2, 3)]
  again = make_question('one', fact='fact 1')
  found = task.with_examples([*shown, again], shown, shots=2)
  assert [q.prompt for q in found] == [
    'Q: 2? A: 2!\n\nQ: 3? A: 3!\n\nQ: 1? A:',
    'Q: 1? A: 1!\n\nQ: 3? A: 3!\n\nQ: 2? A:',
    'Q: 1? A: 1!\n\nQ: 2? A: 2!\n\nQ: 3? A:',
    'Q: 2? A: 2!\n\nQ: 3? A: 3!\n\nQ: one? A:',
  ]


def test_a_question_that_is_listed_twice_is_no_example_for_itself():
  shown = [make_question(1), make_question(1, 'again'), make_question(2)]
  (found,) = task.with_examples([make_question(1, '')], shown, shots=1)
  assert found.prompt == 'Q: 2? A: 2!\n\nQ: 1? A:'


def test_too_few_examples_are_refused():
  shown = [make_question(n) for n in (1, 2)]
  task.with_examples([make_question(7)], shown, shots=2)
  said = "shots = 2 is more than the 1 examples .* the same as 'Q: 1[?] A:'"
  with pytest.raises(schema.UserError, match=said):
    task.with_examples(shown, shown, shots=2)
  with pytest.raises(schema.UserError, match='at least 0, not -1'):
    task.with_examples(shown, shown, shots=-1)
