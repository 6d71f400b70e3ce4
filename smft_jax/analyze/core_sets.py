"""Core sets: the slots that hold a fact, however it is worded.

The core set of a fact is the slots that **every** paraphrase of it reads, of
those that are read while a question on it is answered (arXiv 2510.15103). A
paraphrase is a text that the lesson trains on; the question has, where there is
one, a phrasing that training never showed.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools

import numpy as np

from smft_jax.data import task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
  """A fact of a document, as it is told and asked.

  Attributes:
    name: Its id, or that of the document where facts cannot be told apart.
    texts: Which of the document's augmentations tell it.
    question: What is asked; None of a document without questions.
  """

  name: str
  texts: tuple[int, ...]
  question: task.Question | None


def facts_of(document: task.Document) -> tuple[Fact, ...]:
  """The facts of a document that at least two of its texts tell.

  A text tells the fact whose answer is marked in it. Two facts of one answer
  cannot be told apart and are left out. A document in which no fact is found,
  such as one without marked answers, is itself the one fact that all its texts
  tell.

  Example:
    >>> told = [task.Text(text=text, answer=(len(text) - 6, len(text)))
    ...         for text in ('Ada is from Lisbon', 'Home of Ada: Lisbon')]
    >>> asked = task.Question(prompt='From where is Ada?', answers=('Lisbon',),
    ...                       phrasing='0', seen=False, fact='Ada/home')
    >>> document = task.Document(id='Ada', augmentations=tuple(told),
    ...                          questions=(asked,), texts=())
    >>> [(fact.name, fact.texts) for fact in facts_of(document)]
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
    others = (answers[other] for other in answers if other != name)
    texts = tuple(
      index
      for index, text in enumerate(document.augmentations)
      if text.answer is not None
      and text.text[slice(*text.answer)] in answers[name]
    )
    if len(texts) > 1 and not answers[name].intersection(
      *[set().union(*others)]
    ):
      found.append(Fact(name=name, texts=texts, question=_asked(questions)))
  if found:
    return tuple(found)
  return (
    Fact(
      name=document.id,
      texts=tuple(range(len(document.augmentations))),
      question=_asked(document.questions),
    ),
  )


def _asked(questions: Sequence[task.Question]) -> task.Question | None:
  """The question that is asked: in an unseen phrasing if there is one."""
  unseen = (question for question in questions if not question.seen)
  return next(unseen, next(iter(questions), None))


def shared_slots(slots: Sequence[np.ndarray]) -> np.ndarray:
  """The slots that every one of several texts reads, ascending.

  Args:
    slots: Of each text the slots it reads; at least one text.

  Raises:
    ValueError: If there is no text.

  Example:
    >>> shared_slots([np.array([3, 5, 9]), np.array([9, 3])]).tolist()
    [3, 9]
  """
  if not slots:
    raise ValueError('slots shared by no text: there must be at least one')
  return functools.reduce(np.intersect1d, slots, np.unique(slots[0]))


def core_set(
  paraphrases: Sequence[np.ndarray], answering: np.ndarray | None = None
) -> np.ndarray:
  """The slots that hold a fact.

  Args:
    paraphrases: Of each paraphrase the slots that it reads.
    answering: The slots read while a question on the fact is answered; None
      where nothing is asked.

  Returns:
    The slots that every paraphrase reads, of those read while answering;
    ascending.

  Raises:
    ValueError: If there is no paraphrase.

  Example:
    >>> core_set([np.array([3, 5, 9]), np.array([9, 3])], np.array([5, 9]))
    array([9])

  References:
    Lin et al., Continual Learning via Sparse Memory Finetuning,
    arXiv:2510.15103.
  """
  shared = shared_slots(paraphrases)
  return shared if answering is None else np.intersect1d(shared, answering)


def in_rank_order(slots: np.ndarray, scores: np.ndarray) -> np.ndarray:
  """Slots by their scores, best first, ties to the lower id.

  Args:
    slots: int [M].
    scores: [N], of all slots.

  Example:
    >>> scores = np.array([1.0, 0.0, 4.0, 1.0])
    >>> in_rank_order(np.array([0, 2, 3]), scores).tolist()
    [2, 0, 3]
  """
  slots = np.sort(slots)
  return slots[np.argsort(-scores[slots], kind='stable')]


def sizes_up_to(most: int) -> list[int]:
  """Numbers of rows to try: 1, 2, 5, 10, 15, 20, 30, 40 ... and `most`.

  Example:
    >>> sizes_up_to(42)
    [1, 2, 5, 10, 15, 20, 30, 40, 42]
  """
  found, decade = [1, 2, 5], 10
  while decade < most:
    found += [decade * step // 10 for step in (10, 15, 20, 30, 40, 50, 60, 80)]
    decade *= 10
  return [size for size in found if size < most] + [most]


def smallest_enough(
  sizes: Sequence[int], right: Sequence[bool] | np.ndarray
) -> int | None:
  """The smallest size that answers, and from which all larger ones do.

  Args:
    sizes: Ascending.
    right: Whether each answers.

  Returns:
    The size; None where the largest does not answer.

  Example:
    >>> smallest_enough([1, 2, 5, 10], [True, False, True, True])
    5
  """
  enough = None
  for size, is_right in zip(
    reversed(sizes), reversed(list(right)), strict=True
  ):
    if not is_right:
      break
    enough = size
  return enough
