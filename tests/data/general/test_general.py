"""What ships about the real world: questions with answers, and prose."""

import collections
import re

from smft_jax.data.general import prose
from smft_jax.data.general import questions
from smft_jax.evaluation import scores


def test_questions_are_many_different_and_of_one_form():
  held_out, background = questions.held_out(), questions.background()
  assert len(held_out) >= 600
  assert len(background) >= 200
  asked = held_out + background
  assert len({q.prompt for q in asked}) == len(asked)
  assert len({q.fact for q in asked}) == len(asked)
  form = re.compile(r'Question: [A-Z][^?{}:\n|]*(: [^?]*)?\? Answer:')
  for question in asked:
    assert form.fullmatch(question.prompt), question.prompt
    for answer in question.answers:
      assert answer == ' '.join(answer.split()) != '', question
      assert len(answer) <= 30, question
      assert not set(answer) & set('|:{}?'), question
    assert scores.exact_match(question.answers[-1], question.answers)
  assert questions.held_out() == held_out


def test_every_table_is_asked_in_each_of_its_wordings():
  asked = questions.held_out() + questions.background()
  phrasings = collections.Counter(q.phrasing for q in asked)
  names = {phrasing.rpartition('/')[0] for phrasing in phrasings}
  assert len(names) >= 20
  for name in names:
    assert phrasings[f'{name}/0'] - phrasings[f'{name}/1'] in (0, 1), name


def test_prose_is_split_in_two_halves_that_share_nothing():
  halves = [prose.background(), prose.held_out()]
  texts = [text.text for half in halves for text in half]
  assert [len(half) for half in halves] == [30, 30]
  assert len(set(texts)) == 60
  for text in texts:
    assert '\n' not in text
    assert 30 <= len(text.split()) <= 60
    assert text.endswith('.')
