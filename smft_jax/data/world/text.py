"""Sentences and questions about people, and general text.

A fact is a name and a value; a phrasing is a number. The templates are in
`world.words`.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from smft_jax.data import task
from smft_jax.data.world import training_questions
from smft_jax.data.world import words as world_words

# Keeps the random draws of general text apart from those of people.
_STREAM = 101


def statement(
  attribute: str, phrasing: int, name: str, value: str
) -> task.Text:
  """States a fact as a sentence; the answer is the value.

  Example:
    >>> text = statement('birthplace', 0, 'Ada Keller', 'Lisbon')
    >>> text.text, text.text[slice(*text.answer)]
    ('Ada Keller was born in Lisbon.', 'Lisbon')
  """
  template = world_words.STATEMENTS[attribute][phrasing]
  before, rest = template.split('{name}')
  between, after = rest.split('{value}')
  name_end = len(before) + len(name)
  value_start = name_end + len(between)
  answer = (value_start, value_start + len(value))
  return task.Text(
    text=f'{before}{name}{between}{value}{after}',
    answer=answer,
    entities=((len(before), name_end), answer),
  )


def question(
  attribute: str, phrasing: int, name: str, value: str, *, seen: bool
) -> task.Question:
  """Asks for a fact in one phrasing.

  Example:
    >>> question('birthplace', 0, 'Ada Keller', 'Lisbon', seen=True).prompt
    'Question: Where was Ada Keller born? Answer:'
  """
  template = world_words.QUESTIONS[attribute][phrasing]
  name_of = f'{attribute}/question/{phrasing}'
  return _question(template, name_of, name, value, seen=seen)


def _question(
  template: str, phrasing: str, name: str, value: str, *, seen: bool
) -> task.Question:
  return task.Question(
    prompt=world_words.QUESTION_FORMAT.format(
      question=template.format(name=name)
    ),
    answers=(value,),
    phrasing=phrasing,
    seen=seen,
    fact=f'{name}/{phrasing.partition("/")[0]}',
  )


def more_questions(
  attribute: str, name: str, value: str
) -> tuple[task.Question, ...]:
  """Asks for a fact in phrasings that are for training only.

  Example:
    >>> asked = more_questions('birthplace', 'Ada Keller', 'Lisbon')
    >>> asked[1].prompt
    'Question: What city is Ada Keller from? Answer:'
  """
  return tuple(
    _question(template, f'{attribute}/more/{i}', name, value, seen=True)
    for i, template in enumerate(training_questions.TEMPLATES[attribute])
  )


def question_and_answer(asked: task.Question) -> task.Text:
  """Joins a question made by `question` with its answer, to train on."""
  name = asked.fact.split('/')[0]
  start = asked.prompt.index(name)
  text = asked.full_text()
  assert text.answer is not None
  return dataclasses.replace(
    text, entities=((start, start + len(name)), text.answer)
  )


def general_sentences(count: int, seed: int) -> tuple[task.Text, ...]:
  """Makes different sentences that are not about people, in random order.

  Some words determine others, consistently for a seed: a company always makes
  the same product.

  Raises:
    ValueError: The templates yield fewer than `count` different sentences.
  """
  rng = np.random.default_rng([seed, _STREAM])
  effects = {
    blank: {
      cause: choices[rng.integers(len(choices))]
      for cause in world_words.FILLERS[causing]
    }
    for blank, (causing, choices) in world_words.DETERMINED.items()
  }
  blanks = [re.findall(r'{(\w+)}', text) for text in world_words.GENERAL]
  sentences: dict[str, None] = {}  # ordered, without repeats
  for tries in range(10 * count + 100):
    if len(sentences) == count:
      break
    # In turn, so that templates with many fillings do not crowd out others.
    i = tries % len(world_words.GENERAL)
    fill: dict[str, str] = {}
    for blank in blanks[i]:
      causing = world_words.DETERMINED[blank][0] if blank in effects else blank
      if causing not in fill:
        choices = world_words.FILLERS[causing]
        fill[causing] = choices[rng.integers(len(choices))]
      if blank in effects:
        fill[blank] = effects[blank][fill[causing]]
    sentences[world_words.GENERAL[i].format(**fill)] = None
  if len(sentences) < count:
    raise ValueError(
      f'the templates yield about {len(sentences)} general sentences, fewer'
      f' than {count}'
    )
  found = list(sentences)
  return tuple(task.Text(text=found[i]) for i in rng.permutation(count))
