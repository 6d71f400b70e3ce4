"""Puts solved questions on other things before the texts of a lesson.

What is taught by bare texts is known when asked bare, and hardly behind the
examples of a few-shot prompt (docs/numbers.md). Taught behind other questions,
it is known there, too.
"""

from __future__ import annotations

from collections.abc import Sequence
import random

from smft_jax.data import task
from smft_jax.data.general import questions

# Share of the texts that get examples, and the most that one gets. More would
# fill the rows; without bare texts, bare questions would find less.
_SHARE = 0.7
_MOST = 2

_BETWEEN = '\n\n'  # as `task.with_examples` has it


def after_examples(
  texts: Sequence[task.Text], *, seed: str
) -> tuple[task.Text, ...]:
  """Puts solved questions of the background before most of the texts.

  Args:
    texts: Texts, each with a subject, which alone ranks slots, and an answer,
      which alone bears loss, so that the examples do neither.
    seed: Equal seeds give equal texts.

  Returns:
    The texts in their order.

  Example:
    >>> text = task.Text(text='Ada is in Rome', answer=(10, 14),
    ...                  subject=((0, 3),))
    >>> *_, made = after_examples([text] * 3, seed='0')
    >>> print(made.text)
    Question: What do we call somebody from Nepal? Answer: Nepalis
    <BLANKLINE>
    Ada is in Rome
    >>> made.text[slice(*made.answer)], made.text[slice(*made.subject[0])]
    ('Rome', 'Ada')
  """
  rng = random.Random(seed)
  solved = [question.full_text().text for question in questions.background()]
  made = []
  for text in texts:
    shown = []
    if rng.random() < _SHARE:
      shown = rng.sample(solved, rng.randint(1, _MOST))
    made.append(_after(''.join(f'{one}{_BETWEEN}' for one in shown), text))
  return tuple(made)


def _after(before: str, text: task.Text) -> task.Text:
  def moved(span: task.Span) -> task.Span:
    return span[0] + len(before), span[1] + len(before)

  assert text.answer is not None
  return task.Text(
    text=f'{before}{text.text}',
    answer=moved(text.answer),
    entities=tuple(map(moved, text.entities)),
    subject=tuple(map(moved, text.subject)),
  )
