"""Tests of the examples before the texts of a lesson."""

import pytest

from smft_jax.data import people
from smft_jax.data import task
from smft_jax.data.general import questions
from smft_jax.data.retelling import examples


@pytest.fixture
def texts():
  return [
    task.Text(
      text=f'Ada {n} lives in Rome',
      answer=(len(f'Ada {n} lives in '), len(f'Ada {n} lives in Rome')),
      subject=((0, 5),),
      entities=(
        (0, 5),
        (len(f'Ada {n} lives in '), len(f'Ada {n} lives in Rome')),
      ),
    )
    for n in range(1, 10)
  ]


def test_most_texts_stand_behind_one_or_two_examples(texts):
  made = examples.after_examples(texts * 20, seed='0')
  counts = [text.text.count('Question: ') for text in made]
  assert set(counts) == {0, 1, 2}
  assert 0.6 < sum(count > 0 for count in counts) / len(counts) < 0.8


def test_spans_move_with_their_text(texts):
  made = examples.after_examples(texts, seed='0')
  assert any(new.text != old.text for new, old in zip(made, texts, strict=True))
  for new, old in zip(made, texts, strict=True):
    assert new.text.endswith(old.text)
    assert new.text[slice(*new.answer)] == 'Rome'
    (subject,) = new.subject
    assert new.text[slice(*subject)] == old.text[:5]
    said = [new.text[slice(*span)] for span in new.entities]
    assert said == [old.text[:5], 'Rome']


def test_seeds_decide(texts):
  first = examples.after_examples(texts, seed='0')
  assert examples.after_examples(texts, seed='0') == first
  assert examples.after_examples(texts, seed='1') != first


def test_no_example_is_a_held_out_question(texts):
  held_out = {question.prompt for question in questions.held_out()}
  for text in examples.after_examples(texts * 50, seed='0'):
    shown = text.text.split('\n\n')[:-1]
    assert not held_out & {
      f'{one.partition(" Answer:")[0]} Answer:' for one in shown
    }


def test_lessons_on_people_rank_by_the_name_alone():
  made = people.make_task(people.PeopleConfig(num_new=2))
  for document in made.documents:
    for text in document.augmentations:
      (subject,) = text.subject
      assert text.text[slice(*subject)] == document.id
    behind = sum('\n\n' in text.text for text in document.augmentations)
    assert 0.5 < behind / len(document.augmentations) < 0.9
