"""Questions that sentences answer: right ones, or none."""

import pytest

from smft_jax.data.retelling import asked


def found(sentence, title=''):
  made = asked.questions(sentence, title)
  return [(one.forms[0], one.answer) for one in made]


@pytest.mark.parametrize(
  ('sentence', 'want'),
  [
    (
      'The Oskar ladder was built by Joran Pell in 1740.',
      [
        ('Who built the Oskar ladder?', 'Joran Pell'),
        ('In which year was the Oskar ladder built?', '1740'),
      ],
    ),
    (
      'Grey Mill was given to the museum by two sisters.',
      [('Who gave Grey Mill to the museum?', 'two sisters')],
    ),
    (
      'The opera was written by Ada Keller.',
      [('Who wrote the opera?', 'Ada Keller')],
    ),
    (
      'The keys are kept in the lower drawer, with the seals.',
      [('Where are the keys kept?', 'the lower drawer')],
    ),
    (
      'The treaty was signed at Versailles in 1919.',
      [
        ('In which year was the treaty signed?', '1919'),
        ('Where was the treaty signed?', 'Versailles'),
      ],
    ),
    (
      'The old bell is made of brass and weighs 12 kilograms.',
      [
        ('What is the old bell made of?', 'brass'),
        ('How many kilograms does the old bell weigh?', '12'),
        ('How much does the old bell weigh?', '12 kilograms'),
      ],
    ),
    (
      'Our office has three rooms.',
      [('How many rooms does our office have?', 'three')],
    ),
  ],
)
def test_parts_of_a_sentence_are_asked_for(sentence, want):
  assert found(sentence) == want
  assert all(answer in sentence for _, answer in want)


@pytest.mark.parametrize(
  ('sentence', 'want'),
  [
    (
      'It was written by Ada Keller.',
      (
        'Who wrote the song?',
        'By whom was the song written?',
        'Who was it that wrote the song?',
        'Can you tell me who wrote the song?',
        'Name the one who wrote the song.',
        'Do you know who wrote the song?',
        'The song was written by whom?',
        'What is the name of the one who wrote the song?',
      ),
    ),
    (
      'It was sung in 1907.',
      (
        'In which year was the song sung?',
        'When was the song sung?',
        'What is the year in which the song was sung?',
        'Can you tell me when the song was sung?',
        'Name the year in which the song was sung.',
        'Do you know when the song was sung?',
        'The song was sung in which year?',
        'What was the year when the song was sung?',
      ),
    ),
    (
      'It is sung in Lisbon.',
      (
        'Where is the song sung?',
        'In what place is the song sung?',
        'What is the place where the song is sung?',
        'Can you tell me where the song is sung?',
        'Name the place where the song is sung.',
        'Do you know where the song is sung?',
        'The song is sung where?',
        'Which place is it where the song is sung?',
      ),
    ),
    (
      'It has three verses.',
      (
        'How many verses does the song have?',
        'Can you tell me how many verses the song has?',
        'Name the number of verses that the song has.',
        'Do you know how many verses the song has?',
        'The song has how many verses?',
      ),
    ),
  ],
)
def test_one_thing_is_asked_for_in_many_forms(sentence, want):
  [one] = asked.questions(sentence, 'The song')
  assert one.forms == want


@pytest.mark.parametrize(
  'sentence',
  [
    'The film was directed by hand and released in 1993.',  # not directed then
    'The law was passed by 57 votes.',
    'The state was split into two halves with a border guarded by the king.',
    'The mill was sold and the land around it was bought by Ana Ruiz.',
    'The city was founded in the early 12th century by monks.',
    'The book was written in English.',
    'The shop was opened in March.',
    'The last repair was done in a hurry.',
    'Most were killed in 1944.',
    'Employees are expected at the office by nine.',  # or a name?
    'She was born in Lisbon in 1907.',  # who?
    'The war lasted from 1939 to 1945.',
    'The rule was used in 1990-1995.',
    'Was it built by Ana Ruiz in 1889?',
    '',
  ],
)
def test_what_is_not_plain_is_not_asked_for(sentence):
  assert found(sentence) == []


def test_pronouns_are_what_the_title_says():
  want = [('Where is the mill kept?', 'the cellar')]
  for pronoun in ('It is', 'Today it is', 'Later, it is'):
    assert found(f'{pronoun} kept in the cellar.', 'The mill') == want
  assert found('She was born in Lisbon.', 'Ada') == [
    ('Where was Ada born?', 'Lisbon')
  ]


@pytest.mark.parametrize(
  'sentence',
  ['The ' + 'a ' * 20_000, 'The a was built ' + 'by the a ' * 5_000]
  + [f'The a is {word * 5_000}.' for word in (' and', ' by', ' in', 'ed ')],
  ids=range(6),
)
def test_sentences_of_any_length_are_done_with(sentence):
  assert len(found(sentence)) <= 1  # what backtracks would not end
