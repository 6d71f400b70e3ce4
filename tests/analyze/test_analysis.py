"""Core sets, alignment, heat maps and health on small arrays."""

import numpy as np
import pytest

from smft_jax.analyze import alignment
from smft_jax.analyze import core_sets
from smft_jax.analyze import page
from smft_jax.analyze import reads as reads_lib
from smft_jax.analyze import stream_health
from smft_jax.data import task


def question(fact, answer, *, seen=False):
  return task.Question(
    prompt=f'{fact}?', answers=(answer,), phrasing='', seen=seen, fact=fact
  )


def find_facts(answers, questions):
  """The facts of a document with a text for each answer."""
  texts = tuple(
    task.Text(text=f'{i} is {answer}', answer=(5, 5 + len(answer)))
    for i, answer in enumerate(answers)
  )
  return core_sets.find_facts(
    task.Document(
      id='Ada', augmentations=texts, questions=tuple(questions), texts=()
    )
  )


def reads(text, slot_ids, **spans):
  """Reads with one token per word, and a beginning and an end token."""
  ends = np.cumsum([len(word) + 1 for word in text.split()]) - 1
  starts = ends - [len(word) for word in text.split()]
  words = list(zip(starts.tolist(), ends.tolist(), strict=True))
  return reads_lib.Reads(
    text=task.Text(text=text, **spans),
    spans=np.array([(0, 0), *words, (0, 0)]),
    slot_ids=np.asarray(slot_ids),
  )


def test_facts_are_found_by_their_answers():
  asked = [
    question('home', 'Lisbon', seen=True),
    question('home', 'Lisbon'),
    question('field', 'optics'),
    question('once', 'stated'),
  ]
  answers = ['Lisbon', 'optics', 'Lisbon', 'optics', 'stated']
  home, field = find_facts(answers, asked)
  assert (home.name, home.texts) == ('home', (0, 2))
  assert (field.name, field.texts) == ('field', (1, 3))
  assert home.question is asked[1]  # the unseen phrasing
  # Facts with one answer cannot be told apart.
  asked = [question('home', 'Lisbon'), question('work', 'Lisbon')]
  (whole,) = find_facts(['Lisbon', 'Lisbon'], asked)
  assert (whole.name, whole.texts) == ('Ada', (0, 1))
  (unasked,) = find_facts(['Lisbon'], [])
  assert unasked.question is None


def test_a_core_set_is_read_by_every_paraphrase_and_the_question():
  paraphrases = [np.array([7, 3, 3, 5]), np.array([5, 3, 9]), np.array([3, 5])]
  assert core_sets.core_set(paraphrases).tolist() == [3, 5]
  assert core_sets.core_set(paraphrases, np.array([5, 9])).tolist() == [5]
  with pytest.raises(ValueError, match='at least one'):
    core_sets.core_set([])


def test_sizes_end_with_the_most_and_must_stay_sufficient():
  assert core_sets.sizes_to_try(1) == [1]
  assert core_sets.sizes_to_try(10) == [1, 2, 5, 10]
  assert core_sets.sizes_to_try(160)[-3:] == [100, 150, 160]
  smallest = core_sets.smallest_sufficient
  assert smallest([1, 2, 3], [True, False, True]) == 3
  assert smallest([1, 2, 3], [True, True, False]) is None


def test_answering_begins_at_the_token_that_predicts_the_answer():
  one = reads(
    'born where ? Lisbon', np.arange(12).reshape(6, 2), answer=(13, 19)
  )
  assert one.answering().slot_ids.tolist() == [[6, 7], [8, 9]]
  assert one.counts(np.array([2, 3, 8])).tolist() == [0, 2, 0, 0, 1, 0]
  with pytest.raises(ValueError, match='no answer'):
    reads('born', np.zeros((3, 2), int)).answering()


def test_a_token_without_characters_is_in_no_entity():
  spans = np.array([(0, 0), (0, 3), (3, 3), (4, 7)])
  assert np.flatnonzero(reads_lib.touched(spans, [(0, 7)])).tolist() == [1, 3]
  found = alignment.places(spans, [(0, 3), (4, 7)])
  assert found['last'].tolist() == [False, True, False, True]
  assert found['before'].tolist() == [True, False, True, False]


def test_alignment_sees_planted_reads_and_not_random_ones():
  rng = np.random.default_rng(0)
  lengths = rng.integers(5, 13, 200)
  marked = [np.arange(n) == n - 2 for n in lengths]
  found = alignment.align([m.astype(int) * 3 for m in marked], marked)
  assert found['share'] == 1
  assert found['chance'] == pytest.approx(np.mean(1 / lengths))
  assert found['ratio'] == pytest.approx(1 / found['chance'])
  assert found['chance_low'] < found['chance'] < found['chance_high'] < 0.3
  # Reads that are equal everywhere are at chance, whatever the permutation.
  even = alignment.align([np.full(n, 2) for n in lengths], marked)
  assert even['share'] == pytest.approx(even['chance_low'])
  assert even['share'] == pytest.approx(even['chance_high'])
  drawn = alignment.align([rng.poisson(3, n) for n in lengths], marked)
  assert abs(drawn['share'] - drawn['chance']) < 0.03


def test_alignment_of_nothing_is_none():
  none = np.zeros(3, int)
  assert alignment.align([none], [none == 0]) is None
  assert alignment.align([none + 1], [none > 0]) is None
  text = reads('no names', np.zeros((4, 2), int))
  found = alignment.align_reads([text], [np.array([0])])
  assert found == dict.fromkeys(alignment.PLACES)


def test_beginning_and_end_tokens_do_not_count():
  slot_ids = [[1, 1], [0, 0], [0, 1], [1, 1]]
  text = reads('Ada Keller', slot_ids, entities=((0, 10),))
  found = alignment.align_reads([text], [np.array([1])])
  assert (found['last']['share'], found['last']['chance']) == (1, 0.5)
  assert found['before'] is None  # no word is before it
  assert found['inside']['ratio'] == 1


def test_lessons_that_share_rows():
  lessons = [np.array([1, 2, 3, 4]), np.array([9]), np.array([2, 3, 9, 7])]
  assert stream_health.lesson_overlap(lessons) == dict(
    rows=[4, 1, 4],
    seen_before=[0, 0, 0.75],
    rewritten=[0.5, 1, 0],
    all_rows=6,
    by_lessons=[3, 3],
  )
  curve = stream_health.score_curve(np.array([[3.0, 0.0, 1.0]]), t=1)
  assert (curve['scores'], curve['kept']) == ([3.0, 1.0, 0.0], 0.75)


def test_drift_ignores_the_order_of_slots():
  before = np.array([[[1, 2, 3]], [[4, 5, 6]]])
  assert stream_health.slot_drift(before, before[..., ::-1]) == 0
  assert stream_health.slot_drift(before, before + 1) == pytest.approx(1 / 3)
  with pytest.raises(ValueError, match='must have one shape'):
    stream_health.slot_drift(before, before[:1])


def test_the_share_of_rare_core_slots_is_of_these_alone():
  fact = {
    'core': 10,
    'core_common': 8,
    'core_trained': 5,
    'core_trained_common': 4,
    'lesson_rows': 7,
  }
  usage = {'usage': 0.5, 'top_1_percent_share': 0.1, 'kl_to_uniform': 1.0}
  numbers = {
    'facts': [fact],
    'alignment': {'core': {'inside': None}},
    'health': {
      'usage': usage, 'drift': 0.0, 'overlap': {'seen_before': [0.0]},
    },
  }  # fmt: skip
  found = dict(page.summary(numbers))
  assert found['core slots that its lesson changed'] == '50%'
  (rare,) = (v for k, v in found.items() if 'leaving out' in k)
  assert rare == '50%'  # one of two, not five of two
