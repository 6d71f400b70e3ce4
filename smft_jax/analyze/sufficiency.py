"""What a model answers with some of the rows that a run changed.

Rows of the finished table are put into the base, a few at a time. A row that
several lessons changed holds the changes of all of them. And rows are left out
after training: a run with a smaller t would have moved those it changed by
other steps, so that this says which rows carry an answer, not what such a run
would have learned.
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

# Numbers in the rows that a batch of questions reads beside the table: 256 MB.
_MOST_NUMBERS = 2**26


def batch_size(questions: int, room: int, value_dim: int, most: int) -> int:
  """How many questions to ask at once, each with rows of its own.

  Args:
    questions: How many there are; batches are made alike in size.
    room: Most rows of a question.
    value_dim: V, numbers in a row.
    most: Largest batch.

  Example:
    >>> batch_size(300, room=600, value_dim=128, most=256)
    150
  """
  most = max(1, min(most, _MOST_NUMBERS // (room * value_dim)))
  return -(-questions // -(-questions // most))


def answered(
  evaluator: evaluate.Evaluator,
  params: nnx.State,
  changed: lesson_lib.Lesson,
  questions: Sequence[task.Question],
  slots: Sequence[np.ndarray],
  room: int,
) -> np.ndarray:
  """Which questions are answered, each with some rows of its own.

  Args:
    evaluator: Asks the base.
    params: The base.
    changed: What the run changed.
    questions: What is asked.
    slots: Of each question the slots whose rows are the finished run's, all of
      them changed; for every other slot it reads the base's.
    room: Most slots of a question in this call and in those beside it: calls
      that share it share a program.

  Returns:
    Bool [questions].
  """
  right: list[bool] = []
  size = evaluator.batch_size
  for start in range(0, len(questions), size):
    part = slice(start, start + size)
    versions = [_rows(changed, np.sort(chosen)) for chosen in slots[part]]
    versions += [versions[-1]] * (size - len(versions))
    # One more, which nothing reads, for the shape.
    versions.append((changed.slots[:room], changed.new[:room]))
    overlay = overlay_lib.make(versions, range(size))
    answers = evaluator.answers(params, questions[part], overlay)
    right += [
      scores.exact_match(answer, question.answers) > 0
      for answer, question in zip(answers, questions[part], strict=True)
    ]
  return np.array(right, bool)


def _rows(changed: lesson_lib.Lesson, slots: np.ndarray):
  return slots, changed.new[np.searchsorted(changed.slots, slots)]
