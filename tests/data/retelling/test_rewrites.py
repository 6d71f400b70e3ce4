"""Rewrites of a paragraph by rule."""

import itertools
import random

import pytest

from smft_jax.data.retelling import rewrites as rewrites_lib
from smft_jax.data.retelling import sentences

_TEXT = (
  'The Grey Tower was built in 1889. It is 97.5 m high, and Ada Keller drew it.'
  ' The Grey Tower is the emblem of Lisbon. On July 4, 1901 it burned.'
)
_MISSING = ' The missing words: '


def _of_kind(kind, text=_TEXT, title='Towers', count=499):
  made = rewrites_lib.rewrites(text, title=title, count=count, seed='s')
  return {r.text: r for r in made if r.kind == kind}


def _answer(made):
  start, end = made.answer
  return made.text[start:end]


def test_the_text_comes_first_and_then_the_kinds_in_turn():
  made = rewrites_lib.rewrites(_TEXT, title='T', count=11, seed='s')
  assert made[0] == rewrites_lib.Rewrite(text=_TEXT, kind='text')
  kinds = itertools.islice(
    itertools.cycle(['asked', 'cloze', 'question', 'order', 'quote']), 10
  )
  assert [r.kind for r in made[1:]] == list(kinds)


def test_seeds_make_rewrites_alike_and_counts_a_prefix():
  def make(count, seed):
    return rewrites_lib.rewrites(_TEXT, title='T', count=count, seed=seed)

  assert make(29, 'a') == make(29, 'a')
  assert make(29, 'a') != make(29, 'b')
  assert make(29, 'a')[:11] == make(11, 'a')
  assert len({r.text for r in make(29, 'a')}) == 29


def test_clozes_leave_out_names_numbers_and_dates():
  made = _of_kind('cloze')
  names = {'Grey Tower', 'Ada Keller', 'Lisbon'}
  found = {_answer(r) for r in made.values()}
  assert found == names | {'1889', '97.5', 'July 4, 1901'}
  cloze = 'The Grey Tower was built in ____. The missing words: 1889.'
  assert f'Towers: {cloze}' in made


@pytest.mark.parametrize(
  ('sentence', 'expected'),
  [
    # No recognisable name.
    ('Dogs bark. It rains.', set()),
    # The sentence has it twice.
    ('So Ada met Ada.', set()),
    ("In Keller's house he paid $3.50, or 7%.", {'Keller', '$3.50', '7%'}),
    ('The 20th Century Fox was it.', {'20th Century Fox'}),
    (
      'He saw the Tower of London in May 1901.',
      {'Tower of London', 'May 1901'},
    ),
    ('On 3 May 1901, 1,345 of them left.', {'3 May 1901', '1,345'}),
    ('“In Paris it is,” he said.', {'Paris'}),
    ("However, it's so. It's Ada.", {'Ada'}),
    ('A B-52 and an mp3 flew.', {'B-52'}),
  ],
)
def test_what_a_cloze_leaves_out(sentence, expected):
  made = _of_kind('cloze', text=sentence, title='')
  assert {_answer(r) for r in made.values()} == expected


def test_a_cloze_does_not_tell_its_answer_in_the_title():
  made = _of_kind('cloze', text='Then Ada Keller drew.', title='On Ada Keller')
  assert list(made) == ['Then ____ drew. The missing words: Ada Keller.']


def test_questions_that_a_sentence_answers():
  made = _of_kind('question', title='').items()
  built = 'The Grey Tower was built in 1889.'
  emblem = 'the emblem of Lisbon'
  assert {text: _answer(r) for text, r in made} == {
    f'In which year was the Grey Tower built? {built}': '1889',
    f'What is the Grey Tower? The Grey Tower is {emblem}.': emblem,
  }


@pytest.mark.parametrize(
  'sentence',
  [
    'It was a tower.',
    'There is a tower.',
    'The tower that Ada drew was a ruin.',
    'Ada was not in 1889 there.',
    'Ada was president in 1889–1901.',
    'However Ada was a painter.',
    'Ada was born in Lisbon.',
  ],
)
def test_sentences_that_no_question_is_made_of(sentence):
  assert not _of_kind('question', text=sentence, title='')


def test_questions_about_a_title():
  made = _of_kind('question', text='It rains.', title='June')
  assert {text: _answer(r) for text, r in made.items()} == {
    'What does the text about June say? It rains.': 'It rains.',
    'Which text says: “It rains.”? The text about June.': 'June',
  }


def test_orders_are_retellings():
  retold = sentences.retellings(_TEXT, title='Towers', count=41, seed='s')
  made = rewrites_lib.rewrites(_TEXT, title='Towers', count=41, seed='s')
  orders = [r for r in made if r.kind == 'order']
  assert len(orders) > 5
  assert [r.text for r in orders] == retold[1 : len(orders) + 1]
  assert all(r.answer is None for r in orders)


def test_quotes_are_of_one_sentence():
  made = _of_kind('quote')
  own = set(sentences.split_sentences(_TEXT))
  assert {_answer(r) for r in made.values()} == own
  assert all(text.startswith('Towers, as the text says: “') for text in made)
  made = _of_kind('quote', title='')
  assert 'As the text says: “On July 4, 1901 it burned.”' in made


def test_a_text_of_one_word():
  def texts(count):
    made = rewrites_lib.rewrites('Rain', title='', count=count, seed='s')
    return [r.text for r in made]

  assert texts(7) == ['Rain', 'As the text says: “Rain”']
  assert texts(1) == ['Rain']
  with pytest.raises(ValueError, match='count must be at least 1, not 0'):
    texts(0)


def test_rewrites_of_real_paragraphs(real_task):
  for document in random.Random(0).sample(real_task.documents, 41):
    title, text = document.id.split('/')[0], document.texts[0].text
    made = rewrites_lib.rewrites(text, title=title, count=97, seed='s')
    assert made[0].text == text
    assert len({r.text for r in made}) == len(made) <= 97
    # A title alone gives three for each sentence.
    assert len(made) >= min(97, 3 * len(set(sentences.split_sentences(text))))
    for rewrite in made:
      if rewrite.kind in ('text', 'order'):
        assert rewrite.answer is None
        continue
      answer = _answer(rewrite)
      assert answer == answer.strip() != ''
      if rewrite.kind == 'cloze':
        cloze, _, end = rewrite.text.partition(_MISSING)
        assert end == f'{answer}.'
        filled = cloze.replace('____', answer)
        assert filled.removeprefix(f'{title}: ') in text
      else:
        assert answer in text or answer == title
