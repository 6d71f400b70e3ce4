"""Many statements of one fact, given as a question and its answer.

What a training step shows of a fact: the same answer in other words each time,
so that what is learned is not one row of words. A language model words a fact
more freely, see `data.augment` for a file of its texts.
"""

from __future__ import annotations

import random

from smft_jax.data import task
from smft_jax.data.retelling import declarative

# The form in which evaluation asks (`task.Question.full_text`).
QUESTION_FORMS = ('Question: {question} Answer: {answer}',)

# Statements that contain the question. Where it is not a sentence of its own,
# it is in quotation marks.
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

# In front of a statement, where there are not enough of them.
_LEADS = ('Note: ', 'As is known: ', 'Learn this: ', 'In the notes: ')


def fact_statements(
  question: str,
  answer: str,
  *,
  count: int,
  seed: str,
  with_question_form: bool,
) -> list[task.Text]:
  """Statements of one fact in different words, each with its answer marked.

  First what `declarative` makes of the question, then `TEMPLATES` in an order
  of the seed, and then all these once more after a few words such as 'Note:'.

  Args:
    question: What is asked; its mark may be missing.
    answer: The answer, which every statement has as it stands here.
    count: How many to make; there are at least 120.
    seed: Equal seeds give equal statements.
    with_question_form: Whether the form that evaluation asks in is among them,
      as the first.

  Returns:
    At most `count` texts, no two equal, whose `answer` spans are the answer.

  Raises:
    ValueError: `count` is below 1, or question or answer are empty.

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
  # With a mark, where one does not stand there already.
  asked = question if question[-1] in '?.!' else f'{question}?'
  frames = declarative.frames(question, answer)
  templates = list(TEMPLATES)
  random.Random(seed).shuffle(templates)
  frames += [_framed(template, asked) for template in templates]
  frames += [
    (f'{lead}{before}', after) for lead in _LEADS for before, after in frames
  ]
  if with_question_form:
    # As evaluation has it: without the mark that we put there.
    frames = [_framed(form, question) for form in QUESTION_FORMS] + frames
  found: dict[str, task.Text] = {}
  for before, after in frames:
    if after.startswith('.') and answer[-1] in '.!?':
      after = after[1:]  # 'in the U.S.' has its full stop
    start = len(before)
    text = task.Text(
      text=f'{before}{answer}{after}', answer=(start, start + len(answer))
    )
    found.setdefault(text.text, text)
  return list(found.values())[:count]


def _framed(template: str, question: str) -> declarative.Frame:
  """The text before the answer and the text after it."""
  before, after = template.split('{answer}')
  return (
    before.replace('{question}', question),
    after.replace('{question}', question),
  )
