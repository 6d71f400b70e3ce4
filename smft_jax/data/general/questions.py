"""Short questions about the real world, to measure what a model still knows."""

from __future__ import annotations

from smft_jax.data import task
from smft_jax.data.general import tables
from smft_jax.data.general import words
from smft_jax.data.world import words as world_words


def questions() -> tuple[task.Question, ...]:
  """Asks for every fact of the tables once, in the wordings by turns.

  Returns:
    About 700 questions in one format, always the same and in the same order.

  Example:
    >>> question = next(q for q in questions() if 'France' in q.prompt)
    >>> question.prompt, question.answers
    ('Question: What is the capital of France? Answer:', ('Paris',))
  """
  found = []
  for name, (wordings, pairs) in (tables.TABLES | words.TABLES).items():
    for index, pair in enumerate(' '.join(pairs.split()).split(', ')):
      subject, answers = pair.split(': ')
      wording = wordings[index % len(wordings)]
      found.append(
        task.Question(
          prompt=world_words.QUESTION_FORMAT.format(
            question=wording.format(subject)
          ),
          answers=tuple(answer.strip() for answer in answers.split('|')),
          phrasing=f'{name}/question/{index % len(wordings)}',
          seen=False,
          fact=f'{subject}/{name}',
        )
      )
  return tuple(found)
