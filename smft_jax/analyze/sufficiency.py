"""Asks the base with some of the rows that a run changed.

Rows of the finished table are put into the base, a few at a time. A row that
several lessons changed holds all of their changes. Rows are left out after
training, so this shows which rows carry an answer, not what a run with a
smaller t would have learned.
"""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx
import numpy as np

from smft_jax import lesson as lesson_lib
from smft_jax import overlay as overlay_lib
from smft_jax.data import task
from smft_jax.evaluation import evaluate
from smft_jax.evaluation import scores

# Numbers in the rows that a batch of questions reads besides the table: 256 MB.
_MOST_NUMBERS = 2**26


def batch_size(questions: int, max_rows: int, value_dim: int, most: int) -> int:
  """Returns how many questions to ask at once, `most` at most.

  Each has up to `max_rows` rows of `value_dim` numbers. Batches are of similar
  size.

  Example:
    >>> batch_size(300, max_rows=600, value_dim=128, most=256)
    150
  """
  most = max(1, min(most, _MOST_NUMBERS // (max_rows * value_dim)))
  return -(-questions // -(-questions // most))


def answered(
  evaluator: evaluate.Evaluator,
  params: nnx.State,
  changed: lesson_lib.Lesson,
  questions: Sequence[task.Question],
  slots: Sequence[np.ndarray],
  max_rows: int,
) -> np.ndarray:
  """Asks the base questions, each with its own rows in the table.

  Args:
    evaluator: Asks the questions.
    params: The base.
    changed: What the run changed.
    questions: The questions.
    slots: For each question the slots whose changed rows it reads.
    max_rows: Most slots of a question. Calls with one value of it share a
      compiled program.

  Returns:
    Bool [questions], whether each answer matches.
  """
  right: list[bool] = []
  size = evaluator.batch_size
  for start in range(0, len(questions), size):
    part = slice(start, start + size)
    versions = [_rows(changed, np.sort(chosen)) for chosen in slots[part]]
    versions += [versions[-1]] * (size - len(versions))
    # One more version, which no question reads, fixes the shape.
    versions.append(_rows(changed, changed.slots[:max_rows]))
    overlay = overlay_lib.make(versions, range(size))
    answers = evaluator.answers(params, questions[part], overlay)
    right += matches(answers, questions[part]).tolist()
  return np.array(right, bool)


def matches(
  answers: Sequence[str], questions: Sequence[task.Question]
) -> np.ndarray:
  """Returns bool [questions], whether each answer matches exactly."""
  return np.array(
    [
      scores.exact_match(answer, question.answers) > 0
      for answer, question in zip(answers, questions, strict=True)
    ],
    bool,
  )


def _rows(changed: lesson_lib.Lesson, slots: np.ndarray):
  places = np.searchsorted(changed.slots, slots)
  return slots, changed.new[places], changed.new_lessons[places]
