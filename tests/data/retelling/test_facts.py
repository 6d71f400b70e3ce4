"""Facts of a paragraph, and the texts that teach them."""

import pytest

from smft_jax.data.retelling import facts

TEXT = (
  'The Grey Mill was built by Ana Ruiz in 1889. It has nine arches (two are'
  ' closed) and stands near the bridge. When the river rose, the wheel broke.'
)
CONTEXTS = ['It rained.', 'Bees make honey.']


def begun(text, title=''):
  found = facts.paragraph_facts(text, title)
  return [(f.prompt, f.answer) for f in found if not f.is_asked]


def texts(text=TEXT, title='The Grey Mill', seed='0'):
  return facts.fact_texts(text, title=title, contexts=CONTEXTS, seed=seed)


@pytest.mark.parametrize(
  ('text', 'title', 'want'),
  [
    (
      TEXT,
      'The Grey Mill',
      [
        ('The Grey Mill was built by', 'Ana Ruiz'),
        ('The Grey Mill was built by Ana Ruiz in', '1889'),
        ('The Grey Mill has', 'nine arches'),
        ('The Grey Mill has nine arches and stands near', 'the bridge'),
      ],
    ),
    # Before the name, it stands in front.
    (
      'In 1889 Ana Ruiz built Grey Mill.',
      'Grey Mill',
      [
        ('Grey Mill: In', '1889'),
        ('Grey Mill: In 1889', 'Ana Ruiz'),
      ],
    ),
    # A participle says nothing, two words say something.
    ('Ada was buried.', 'Ada', []),
    ('Ada was buried alive.', 'Ada', [('Ada was', 'buried alive')]),
    # Without a title.
    (
      'Ada left Rome in May.',
      '',
      [('Ada left', 'Rome'), ('Ada left Rome in', 'May')],
    ),
    ('Rain fell.', 'Grey Mill', []),
    ('The Grey Mill stands.', '', []),
    # A title that stands in an aside only.
    ('Bees (of Ada) live in trees.', 'Ada', [('Ada: Bees live in', 'trees')]),
    ('Er ging mit 23.', '', [('Er ging mit', '23')]),
  ],
)
def test_sentences_stop_before_what_they_say(text, title, want):
  assert begun(text, title) == want


def test_every_answer_is_marked_and_stands_in_the_paragraph():
  made = texts()
  answered = [text for text in made if text.answer]
  assert len(answered) > 20
  for text in answered:
    start, end = text.answer
    assert text.text[start:end] in TEXT
    assert start > 0


def test_sentences_come_first_then_every_fact_once():
  made = texts()
  first = [text.text for text in made[:3]]
  assert first == [
    'The Grey Mill was built by Ana Ruiz in 1889.',
    'The Grey Mill has nine arches (two are closed) and stands near the'
    ' bridge.',
    'The Grey Mill: When the river rose, the wheel broke.',
  ]
  assert all(text.answer is None for text in made[:3])
  assert all(text.answer for text in made[3:])
  # One text of each fact, before the next of any.
  found = list(facts.paragraph_facts(TEXT, 'The Grey Mill'))
  first = {t.text[slice(*t.answer)] for t in made[3 : 3 + len(found)]}
  assert first == {fact.answer for fact in found}


def test_facts_are_told_in_several_forms():
  made = [text.text for text in texts()]
  assert len(made) == len(set(made))
  for want in (
    'The Grey Mill was built by Ana Ruiz in 1889',
    'Question: The Grey Mill was built by Ana Ruiz in which year? Answer: 1889',
    'Question: When was the Grey Mill built? Answer: 1889',
    'Question: The Grey Mill has how many? Answer: nine arches',
    # The last part of a sentence by itself.
    'The Grey Mill: stands near the bridge',
    'Question: The Grey Mill: stands near what? Answer: the bridge',
  ):
    assert want in made
  after_another = [t for t in made if t.startswith(tuple(CONTEXTS))]
  assert len(after_another) == len(begun(TEXT, 'The Grey Mill'))


@pytest.mark.parametrize(
  ('sentence', 'question'),
  [
    ('It was built by Ana Ruiz.', 'It was built by whom?'),
    ('It was built by hand tools.', 'It was built by what?'),
    ('It was built in Porto.', 'It was built in which place?'),
    ('It was built in the valley.', 'It was built in what?'),
    ('It has lasted since 1889.', 'It has lasted since which year?'),
    ('It was the year 1889.', 'It was the year when?'),
    ('It lies 23 miles off.', 'It lies how many?'),
    ('It is made of copper.', 'It is made of what?'),
  ],
)
def test_what_is_asked_for_fits_the_answer(sentence, question):
  made = [text.text for text in texts(sentence, title='')]
  assert any(text.startswith(f'Question: {question} Answer: ') for text in made)


def test_equal_seeds_give_equal_texts():
  assert texts() == texts()
  assert texts(seed='1') != texts()
  assert {t.text for t in texts(seed='1')[:3]} == {t.text for t in texts()[:3]}


def test_lines_are_no_sentences_but_items_of_lists_are():
  text = (
    '# Grey Mill\nThe mill was\nbuilt by Ana\nRuiz\n- nine arches\n'
    '- 3 wheels\n 2) 1889 it burned\nto the ground'
  )
  assert [one.text for one in texts(text, 'Grey Mill') if not one.answer] == [
    'Grey Mill',
    'Grey Mill: The mill was built by Ana Ruiz',
    'Grey Mill: nine arches',
    'Grey Mill: 3 wheels',
    'Grey Mill: 1889 it burned to the ground',
  ]


def test_long_sentences_are_begun_at_their_last_words():
  long = 'Ada walked ' + 'and walked ' * 40 + 'to Porto'
  [(prompt, answer)] = begun(f'{long}.', 'Ada')
  assert answer == 'Porto'
  assert prompt.startswith(('Ada: walked and', 'Ada: and w'))
  assert prompt.endswith('and walked to')
  assert len(prompt) < 170


@pytest.mark.parametrize('text', ['一二三。', '?', 'Rain.', 'a' * 5000])
def test_text_without_facts_is_taught_by_its_sentences(text):
  assert [one.text for one in texts(text, title='')] == [text]


@pytest.mark.parametrize(
  'text',
  [
    'The a ' * 5_000,
    'was in ' * 5_000,
    'of a b c d ' * 10_000,
    '( ' * 20_000,
  ],
)
def test_text_of_any_length_is_done_with(text):
  assert texts(text)
