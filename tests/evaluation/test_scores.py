"""Scores by hand."""

import math

import numpy as np
import pytest

from smft_jax.data import task
from smft_jax.evaluation import scores


@pytest.mark.parametrize(
  ('answer', 'normal'),
  [
    ('The  Eiffel-Tower!', 'eiffeltower'),
    ('a cat, an owl and the dog.', 'cat owl and dog'),
    ('theatre', 'theatre'),
    ('U.S.A.', 'usa'),
    ('the', ''),
  ],
)
def test_normalize_squad(answer, normal):
  assert scores.normalize_squad(answer) == normal
  assert scores.normalize_answer(answer) == (normal or answer)


@pytest.mark.parametrize(
  'spellings',
  [
    ('caf\u00e9', 'cafe\u0301'),
    ("O'Brien", 'O\u2019Brien', 'O\u02bcBrien'),
    ('1914-18', '1914\u201318', '1914\u221218'),
    ('42', '\uff14\uff12'),
    ('H2O', 'H\u2082O'),
    ('"Imagine"', '\u201cImagine\u201d', '\u00abImagine\u00bb'),
    ('so!', 'so\uff01'),
  ],
)
def test_spellings_of_one_answer(spellings):
  normal = {scores.normalize_answer(answer) for answer in spellings}
  assert len(normal) == 1
  # By SQuAD each is another answer.
  assert len(set(map(scores.normalize_squad, spellings))) > 1


@pytest.mark.parametrize('accepted', ['A', 'The The', '?', 'an', '...'])
def test_silence_is_no_answer_of_articles_and_marks(accepted):
  question = task.Question(
    prompt='', answers=(accepted,), phrasing='', seen=True, fact=''
  )
  for said in ('', ' ', ','):
    found = scores.score([said], [question])
    assert found['recall'] == found['f1'] == 0
    assert found['squad_exact_match'] == found['squad_f1'] == 1
  found = scores.score([accepted.lower()], [question])
  assert found['recall'] == found['f1'] == 1


@pytest.mark.parametrize(
  ('answer', 'accepted', 'exact', 'f1'),
  [
    ('Lisbon', ['lisbon'], 1, 1),
    ('the Lisbon.', ['Porto', 'Lisbon'], 1, 1),
    ('city of Lisbon', ['Lisbon'], 0, 1 / 2),
    ('San Remo in Italy', ['Remo', 'San Remo'], 0, 2 / 3),
    ('a b b c', ['b b b'], 0, 2 * 2 / 6),  # the article goes
    ('Porto', ['Lisbon'], 0, 0),
    ('', ['Lisbon'], 0, 0),
    ('', ['the'], 0, 0),
    ('Lisbon', ['the'], 0, 0),
  ],
)
def test_exact_match_and_f1_by_hand(answer, accepted, exact, f1):
  assert scores.exact_match(answer, accepted) == exact
  assert scores.f1_score(answer, accepted) == pytest.approx(f1)


def test_scores_are_means():
  said = {
    'in Lisbon': ('Lisbon', 'in Lisbon'),
    'Remo': ('San Remo',),
    'biology': ('marine biology',),
    'warm': ('cold',),
    'river': ('The river',),
    'Oslo': ('Oslo',),
    '': ('Keller',),
  }
  questions = [
    task.Question(
      prompt='Where?', answers=answers, phrasing='', seen=True, fact=''
    )
    for answers in said.values()
  ]
  found = scores.score(list(said), questions)
  assert found['recall'] == pytest.approx(3 / 7)
  assert found['f1'] == pytest.approx((3 + 2 / 3 + 2 / 3) / 7)


def choice_of(*endings, label):
  return task.Choice(prompt='She', endings=endings, label=label)


@pytest.mark.parametrize(
  ('sums', 'label', 'by_character', 'by_sum'),
  [
    ([-6, -9, -7], 0, 0, 1),  # -1, -0.9, -1.75
    ([-6, -9, -7], 1, 1, 0),
    ([-6, -9, -7], 2, 0, 0),
    ([-6, -10, -4], 0, 1, 0),  # all -1: the first
    ([-4, -10, -4], 0, 1, 1),
    ([-4, -10, -4], 2, 0, 0),
  ],
)
def test_accuracy_by_hand(sums, label, by_character, by_sum):
  # Six, ten (a space is one, and so is é) and four characters.
  choice = choice_of('stands', 'paints été', 'runs', label=label)
  assert scores.accuracy([np.array(sums, float)], [choice]) == {
    'accuracy': by_character,
    'accuracy_unnormalized': by_sum,
  }


def test_accuracy_is_a_mean_over_choices_of_any_number_of_endings():
  choices = [
    choice_of('a', 'b', label=1),
    choice_of('a', 'b', 'c', 'd', 'e', label=4),
    choice_of('a', 'b', 'c', label=0),
  ]
  sums = [np.array([-2.0, -1.0]), -np.arange(5.0), -np.arange(3.0)]
  assert scores.accuracy(sums, choices)['accuracy'] == pytest.approx(2 / 3)
  with pytest.raises(ValueError, match='zip'):
    scores.accuracy(sums[:2], choices)


def test_perplexity_that_no_float_holds_is_infinite():
  assert scores.perplexity(nats=7000, count=10) == pytest.approx(math.e**700)
  assert scores.perplexity(nats=8000, count=10) == math.inf
  assert math.isnan(scores.perplexity(nats=math.nan, count=10))


def test_text_scores_by_hand():
  texts = [
    task.Text(text='fog  in\nPorto'),  # three words, 13 bytes
    task.Text(text=' été '),  # between its spaces: three pieces, 7 bytes
  ]
  found = scores.text_scores(nats=24.0, tokens=8, texts=texts)
  assert found == pytest.approx(
    {
      'nll': 3.0,
      'perplexity': math.exp(3),
      'word_perplexity': math.exp(24 / 6),
      'bits_per_byte': 24 / 20 / math.log(2),
    },
    rel=1e-12,
  )


@pytest.mark.parametrize(
  ('metric', 'before', 'after', 'drop'),
  [
    ('recall', 0.8, 0.6, 0.25),
    ('f1', 0.5, 0.6, -0.2),
    ('exact_match', 1.0, 0.0, 1.0),
    ('accuracy', 0.4, 0.4, 0.0),
    ('nll', 2.0, 2.5, 0.25),
    ('answer_nll', 2.0, 1.0, -0.5),
    ('perplexity', 10.0, 11.0, 0.1),
    ('recall', 0.0, 0.0, math.nan),
    ('recall', 0.0, 0.1, math.nan),
  ],
)
def test_relative_drop_is_the_share_lost(metric, before, after, drop):
  found = scores.relative_drop(metric, before, after)
  assert found == pytest.approx(drop, nan_ok=True)


# A name that only begins like a loss has no known direction.
@pytest.mark.parametrize(
  ('metric', 'message'),
  [('recal', "did you mean 'recall'"), ('nll_ratio', 'nll_ratio')],
)
def test_relative_drop_of_an_unknown_metric(metric, message):
  with pytest.raises(ValueError, match=message):
    scores.relative_drop(metric, 1.0, 1.0)


def test_a_likelihood_that_is_nan_is_not_right():
  choice = choice_of('a', 'b', label=0)
  sums = np.array([np.nan, np.nan])
  found = scores.accuracy([sums, np.array([0.0, -1.0])], [choice, choice])
  assert np.isnan(list(found.values())).all()


def test_an_answer_to_a_question_without_one():
  assert scores.f1_score('a', []) == scores.exact_match('a', []) == 0
