"""Choices and few-shot prompts."""

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


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'endings': ('reads.',), 'label': 0}, 'needs at least two endings'),
    ({'endings': ('reads.', '')}, 'none empty'),
    ({'endings': (' ', 'reads.')}, 'none empty'),
    ({'label': 2}, "label 2 of choice 'She sits and' must be from 0 to 1"),
    ({'label': -1}, 'label -1'),
  ],
)
def test_choices_that_are_none(changes, said):
  with pytest.raises(ValueError, match=said) as raised:
    make_choice(**changes)
  assert '\n' not in str(raised.value)


def test_the_answer_of_a_full_text_is_all_past_the_prompt():
  first, second = make_choice().full_texts()
  assert first.text == 'She sits and reads.'
  assert second.text == 'She sits and a b.'
  assert first.text[slice(*first.answer)] == ' reads.'
  assert second.text[slice(*second.answer)] == ' a b.'


def test_a_task_has_no_choices_unless_told_and_spells_those_it_has():
  empty = {
    'pretraining': (),
    'documents': (),
    'questions': {},
    'texts': {},
    'counts': {},
  }
  assert task.Task(**empty).choices == {}
  assert task.Task(**empty).vocabulary_texts() == ()
  told = task.Task(**empty, choices={'some': (make_choice(),)})
  assert told.vocabulary_texts() == ('She sits and', 'reads.', 'a b.')


def test_the_first_examples_stand_before_every_question():
  asked = [make_question(n) for n in (7, 8)]
  shown = [make_question(n) for n in (1, 2, 3)]
  found = task.with_examples(asked, shown, shots=2)
  assert [q.prompt for q in found] == [
    f'Q: 1? A: 1!\n\nQ: 2? A: 2!\n\nQ: {n}? A:' for n in (7, 8)
  ]
  for before, after in zip(asked, found, strict=True):
    assert after.answers == before.answers
    assert after.fact == before.fact
    assert after.phrasing == before.phrasing
    assert after.seen == before.seen


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


def test_no_shots_change_nothing():
  asked = (make_question(1), make_question(2))
  assert task.with_examples(asked, [], shots=0) == asked


def test_too_few_examples_are_refused():
  shown = [make_question(n) for n in (1, 2)]
  task.with_examples([make_question(7)], shown, shots=2)
  said = "shots = 2 is more than the 1 examples .* 'fact 1'"
  with pytest.raises(schema.UserError, match=said):
    task.with_examples(shown, shown, shots=2)
  with pytest.raises(schema.UserError, match='at least 0, not -1'):
    task.with_examples(shown, shown, shots=-1)
