"""Makes many statements of one fact, given as a question and its answer.

A training step shows the same answer in varied words, so that it teaches more
than one sequence of tokens. For texts by a language model see `data.augment`.
"""

from __future__ import annotations

import random

from smft_jax.data import task
from smft_jax.data.retelling import declarative
from smft_jax.data.retelling import sentences

# The form of evaluation (`task.Question.full_text`).
QUESTION_FORM = 'Question: {question} Answer: {answer}'

# Statements that contain the question, in quotation marks if it is not a
# sentence of its own.
TEMPLATES = (
  '{question} {answer}.',
  '{question} It is {answer}.',
  '{question} The answer is {answer}.',
  '{question} The right answer to this is {answer}.',
  'The answer to the question “{question}” is {answer}.',
  'The question “{question}” has the answer {answer}.',
  'If someone asks “{question}”, say {answer}.',
  'Whoever asks “{question}” should hear {answer}.',
  'Asked “{question}”, one who knows says {answer}.',
  '“{question}” “{answer}.”',
  '“{question}” The teacher said: {answer}.',
  'To “{question}” the book answers: {answer}.',
  'Q: {question}\nA: {answer}',
  'Quiz. {question} Solution: {answer}.',
  'From a quiz: {question} Correct was {answer}.',
  'Trivia: {question} {answer}.',
  '{answer} is what answers “{question}”',
  '{answer} is the answer to “{question}”',
  '{answer}: that is the answer to the question “{question}”',
  'They asked me “{question}” and I said {answer}.',
  'Remember {answer} for when you are asked “{question}”',
  'Here is a fact. {question} {answer}.',
  'You may wonder: {question} It turns out to be {answer}.',
  'A card of a quiz game says on its front “{question}” and on its back'
  ' “{answer}”.',
)

# Put before statements when there are too few.
_LEADS = ('Note: ', 'As is known: ', 'Learn this: ', 'In the notes: ')


def fact_statements(
  question: str, answer: str, *, count: int, seed: str, with_question_form: bool
) -> list[task.Text]:
  """States a fact in different words, each time with its answer marked.

  First come the statements of `declarative`, then `TEMPLATES` in an order drawn
  from the seed, then all of these again after a few words such as 'Note:'.

  Args:
    question: The question, with or without its mark.
    answer: The answer; every statement contains it unchanged.
    count: Number of statements to make, of at least 120.
    seed: Equal seeds give equal statements.
    with_question_form: Whether to begin with the form of evaluation.

  Returns:
    At most `count` different texts, whose `answer` spans are the answer.

  Raises:
    ValueError: `count` is below 1, or question or answer is empty.

  Example:
    >>> for text in fact_statements('Who wrote Emma?', 'Jane Austen', count=3,
    ...                             seed='0', with_question_form=True):
    ...   print(text.text)
    Question: Who wrote Emma? Answer: Jane Austen
    Jane Austen wrote Emma.
    The one who wrote Emma is Jane Austen.
  """
  if count < 1:
    raise ValueError(f'count must be at least 1, not {count}')
  question, answer = question.strip(), answer.strip()
  if not question or not answer:
    raise ValueError(
      f'a fact needs a question and an answer, not {question!r} and {answer!r}'
    )
  is_asked = question.endswith((*sentences.QUESTION_MARKS, '.', '!'))
  asked = question if is_asked else f'{question}?'
  frames = declarative.frames(question, answer)
  templates = list(TEMPLATES)
  random.Random(seed).shuffle(templates)
  frames += [_framed(template, asked) for template in templates]
  frames += [
    (f'{lead}{before}', after) for lead in _LEADS for before, after in frames
  ]
  if with_question_form:  # with the question's mark as it is
    frames.insert(0, _framed(QUESTION_FORM, question))
  found: dict[str, task.Text] = {}
  for before, after in frames:
    if after.startswith('.') and answer[-1] in '.!?':
      after = after[1:]  # 'in the U.S.' already has a full stop
    start = len(before)
    text = task.Text(
      text=f'{before}{answer}{after}', answer=(start, start + len(answer))
    )
    found.setdefault(text.text, text)
  return list(found.values())[:count]


def _framed(template: str, question: str) -> declarative.Frame:
  """Returns the text before the answer and the text after it."""
  parts = template.split('{answer}')
  before, after = (part.replace('{question}', question) for part in parts)
  return before, after
