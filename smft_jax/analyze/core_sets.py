"""Finds core sets: the slots that hold a fact, however it is phrased.

The core set of a fact is the slots that **every** paraphrase reads and that are
also read while a question about the fact is answered (Lin et al., Continual
Learning via Sparse Memory Finetuning, arXiv:2510.15103). The paraphrases are
the training texts that state the fact; the question is in a phrasing that
training never showed, if there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools

import numpy as np

from smft_jax.data import task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
  """A fact of a document.

  Attributes:
    name: Its id, or the document's if facts cannot be told apart.
    texts: Indices of the document's augmentations that state it.
    question: A question about it; None if the document has none.
  """

  name: str
  texts: tuple[int, ...]
  question: task.Question | None


def find_facts(document: task.Document) -> tuple[Fact, ...]:
  """Finds the facts of a document that at least two of its texts state.

  A text states the fact whose answer is marked in it. Facts that share an
  answer cannot be told apart and are skipped. If none is found, for instance
  because no answers are marked, the whole document counts as one fact.

  Example:
    >>> texts = [task.Text(text=text, answer=(len(text) - 6, len(text)))
    ...          for text in ('Ada is from Lisbon', 'Home of Ada: Lisbon')]
    >>> asked = task.Question(prompt='From where is Ada?', answers=('Lisbon',),
    ...                       phrasing='0', seen=False, fact='Ada/home')
    >>> document = task.Document(id='Ada', augmentations=tuple(texts),
    ...                          questions=(asked,), texts=())
    >>> [(fact.name, fact.texts) for fact in find_facts(document)]
    [('Ada/home', (0, 1))]
  """
  asked: dict[str, list[task.Question]] = {}
  for question in document.questions:
    asked.setdefault(question.fact, []).append(question)
  answers = {
    name: {answer for question in questions for answer in question.answers}
    for name, questions in asked.items()
  }
  found = []
  for name, questions in asked.items():
    others = {a for other in answers if other != name for a in answers[other]}
    texts = tuple(
      index
      for index, text in enumerate(document.augmentations)
      if text.answer is not None
      and text.text[slice(*text.answer)] in answers[name]
    )
    if len(texts) > 1 and not answers[name] & others:
      found.append(Fact(name=name, texts=texts, question=_choose(questions)))
  if found:
    return tuple(found)
  texts = tuple(range(len(document.augmentations)))
  chosen = _choose(document.questions)
  return (Fact(name=document.id, texts=texts, question=chosen),)


def _choose(questions: Sequence[task.Question]) -> task.Question | None:
  """Returns a question, in an unseen phrasing if possible."""
  unseen = (question for question in questions if not question.seen)
  return next(unseen, next(iter(questions), None))


def shared_slots(slots: Sequence[np.ndarray]) -> np.ndarray:
  """Returns the slots that every one of several texts reads, ascending.

  Raises:
    ValueError: If there is no text.

  Example:
    >>> shared_slots([np.array([3, 5, 9]), np.array([9, 3])]).tolist()
    [3, 9]
  """
  if not slots:
    raise ValueError('shared_slots takes at least one text, got none')
  return functools.reduce(np.intersect1d, slots, np.unique(slots[0]))


def core_set(
  paraphrases: Sequence[np.ndarray], answering: np.ndarray | None = None
) -> np.ndarray:
  """Returns the slots that hold a fact, ascending.

  Args:
    paraphrases: For each paraphrase the slots it reads; at least one.
    answering: The slots read while a question about the fact is answered; None
      without a question.

  Example:
    >>> core_set([np.array([3, 5, 9]), np.array([9, 3])], np.array([5, 9]))
    array([9])
  """
  shared = shared_slots(paraphrases)
  return shared if answering is None else np.intersect1d(shared, answering)


def in_rank_order(slots: np.ndarray, scores: np.ndarray) -> np.ndarray:
  """Sorts slots [M] by `scores` [N], best first, ties to the lower id.

  Example:
    >>> scores = np.array([1.0, 0.0, 4.0, 1.0])
    >>> in_rank_order(np.array([0, 2, 3]), scores).tolist()
    [2, 0, 3]
  """
  slots = np.sort(slots)
  return slots[np.argsort(-scores[slots], kind='stable')]


def sizes_to_try(most: int) -> list[int]:
  """Returns numbers of rows to try: 1, 2, 5, 10, 15, 20, 30 ... and `most`.

  Example:
    >>> sizes_to_try(42)
    [1, 2, 5, 10, 15, 20, 30, 40, 42]
  """
  found, decade = [1, 2, 5], 10
  while decade < most:
    found += [decade * step // 10 for step in (10, 15, 20, 30, 40, 50, 60, 80)]
    decade *= 10
  return [size for size in found if size < most] + [most]


def smallest_sufficient(
  sizes: Sequence[int], right: Sequence[bool] | np.ndarray
) -> int | None:
  """Returns the smallest of ascending sizes from which on all are right.

  Returns None if the largest is wrong.

  Example:
    >>> smallest_sufficient([1, 2, 5, 10], [True, False, True, True])
    5
  """
  sufficient = None
  for size, is_right in zip(reversed(sizes), right[::-1], strict=True):
    if not is_right:
      break
    sufficient = size
  return sufficient
