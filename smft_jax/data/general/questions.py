"""Short questions about the real world, in one format.

Those held out measure what a model still knows; those of the background show
the format, on other facts.
"""

from __future__ import annotations

from collections.abc import Mapping

from smft_jax.data import task
from smft_jax.data.general import background_tables
from smft_jax.data.general import tables
from smft_jax.data.general import words
from smft_jax.data.world import words as world_words


def background() -> tuple[task.Question, ...]:
  """Asks for 200 facts, each once, in the wordings by turns."""
  return _questions(background_tables.TABLES, seen=True)


def held_out() -> tuple[task.Question, ...]:
  """Asks for 700 other facts, each once, in the wordings by turns.

  Example:
    >>> question = next(q for q in held_out() if 'France' in q.prompt)
    >>> question.prompt, question.answers
    ('Question: What is the capital of France? Answer:', ('Paris',))
  """
  return _questions(tables.TABLES | words.TABLES, seen=False)


def _questions(
  found: Mapping[str, tuple[tuple[str, ...], str]], *, seen: bool
) -> tuple[task.Question, ...]:
  questions = []
  for name, (wordings, pairs) in found.items():
    for index, pair in enumerate(' '.join(pairs.split()).split(', ')):
      subject, answers = pair.split(': ')
      wording = wordings[index % len(wordings)]
      questions.append(
        task.Question(
          prompt=world_words.QUESTION_FORMAT.format(
            question=wording.format(subject)
          ),
          answers=tuple(answer.strip() for answer in answers.split('|')),
          phrasing=f'{name}/question/{index % len(wordings)}',
          seen=seen,
          fact=f'{subject}/{name}',
        )
      )
  return tuple(questions)
