"""The parts of a learning task: texts, questions, choices and documents.

Every source of data (`data.world`, `data.documents`, `data.facts`) makes one
`Task`; tokenizers, batches and evaluation read nothing else. Spans are
half-open character offsets into a text, so they do not depend on a tokenizer.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import itertools
import json
from typing import Any

from smft_jax import schema
from smft_jax.data import prepared as prepared_lib

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
  """A text to train on, or to measure the loss of.

  Attributes:
    text: The text, not empty.
    answer: Span of the answer; None if the text has none.
    entities: Spans of the names and values in the text, in order.
    subject: Spans of what the text is about, whose accesses alone rank slots;
      () for those of the whole text.

  Raises:
    ValueError: The text is empty, or a span is empty or leaves the text.

  Example:
    >>> text = Text(text='Ada was born in Lisbon.', answer=(16, 22))
    >>> text.text[slice(*text.answer)]
    'Lisbon'
  """

  text: str
  answer: Span | None = None
  entities: tuple[Span, ...] = ()
  subject: tuple[Span, ...] = ()

  def __post_init__(self) -> None:
    if not self.text:
      raise ValueError('a Text needs a non-empty text')
    spans = [('entity', span) for span in self.entities]
    spans += [('subject', span) for span in self.subject]
    if self.answer is not None:
      spans.append(('answer', self.answer))
    for name, (start, end) in spans:
      if not 0 <= start < end <= len(self.text):
        raise ValueError(
          f'{name} span {(start, end)} is not a non-empty part of a text of '
          f'{len(self.text)} characters: {self.text[:40]!r}'
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """A prompt that a model continues, and the accepted answers.

  Attributes:
    prompt: The model's whole input; its continuation is the answer.
    answers: Accepted answers. The first is canonical: its likelihood is
      measured.
    phrasing: Name of the phrasing, shared by questions worded alike.
    seen: Whether training on the document shows this phrasing.
    fact: Id of the fact asked for, such as 'Ada Keller/birthplace'.
    place: Where it was read, for messages; '' if it was made.

  Raises:
    ValueError: There is no answer, or an empty one.

  Example:
    >>> q = Question(prompt='Question: Where was Ada born? Answer:',
    ...              answers=('Lisbon',), phrasing='birthplace/question/0',
    ...              seen=True, fact='Ada/birthplace')
    >>> q.full_text().text
    'Question: Where was Ada born? Answer: Lisbon'
  """

  prompt: str
  answers: tuple[str, ...]
  phrasing: str
  seen: bool
  fact: str
  place: str = dataclasses.field(default='', compare=False)

  def __post_init__(self) -> None:
    if not self.answers or not all(self.answers):
      raise ValueError(
        f'question {self.prompt[:40]!r} needs at least one answer, none empty'
      )

  def full_text(self) -> Text:
    """Returns prompt, space and canonical answer, with the answer's span."""
    start = len(self.prompt) + 1
    answer = self.answers[0]
    return Text(
      text=f'{self.prompt} {answer}', answer=(start, start + len(answer))
    )


def with_examples(
  questions: Sequence[Question], examples: Sequence[Question], shots: int
) -> tuple[Question, ...]:
  r"""Makes few-shot prompts: puts solved examples before each question.

  An example is its prompt, a space and its first answer; blank lines separate
  examples and the question's own prompt. Each question gets the first examples
  that do not ask for its own fact, nor in its own words: files and data sets
  share questions, under other ids.

  Args:
    questions: Questions to extend.
    examples: Candidates for the examples, in order of preference.
    shots: Number of examples before each question.

  Returns:
    The questions in their order, with only the prompts changed.

  Raises:
    UserError: `shots` is negative, or there are too few examples.

  Example:
    >>> asked = [
    ...   Question(prompt=f'Q: 1 + {n}? A:', answers=(f'{1 + n}',),
    ...            phrasing='sum', seen=True, fact=f'1 + {n}')
    ...   for n in (1, 2)
    ... ]
    >>> for question in with_examples(asked, asked, shots=1):
    ...   print(repr(question.prompt))
    'Q: 1 + 2? A: 3\n\nQ: 1 + 1? A:'
    'Q: 1 + 1? A: 2\n\nQ: 1 + 2? A:'
  """
  if shots < 0:
    raise schema.UserError(f'shots must be at least 0, not {shots}')

  def prompt_of(question: Question) -> str:
    others = (
      e
      for e in examples
      if e.fact != question.fact and e.prompt != question.prompt
    )
    shown = [e.full_text().text for e in itertools.islice(others, shots)]
    if len(shown) < shots:
      raise schema.UserError(
        f'shots = {shots} is more than the {len(shown)} examples that do not'
        f' ask the same as {question.prompt[-60:]!r}'
      )
    return '\n\n'.join([*shown, question.prompt])

  return tuple(
    dataclasses.replace(question, prompt=prompt_of(question))
    for question in questions
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
  """A prompt and several endings, one of them right.

  Attributes:
    prompt: The text that every ending continues.
    endings: At least two endings.
    label: Index of the right ending.

  Raises:
    ValueError: There are too few endings, one is empty, or the label is out of
      range.

  Example:
    >>> c = Choice(prompt='She takes the kettle and', label=0,
    ...            endings=('pours the tea.', 'reads it aloud.'))
    >>> c.full_texts()[c.label].text
    'She takes the kettle and pours the tea.'
  """

  prompt: str
  endings: tuple[str, ...]
  label: int

  def __post_init__(self) -> None:
    if len(self.endings) < 2 or not all(e.strip() for e in self.endings):
      raise ValueError(
        f'choice {self.prompt[:40]!r} needs at least two endings, none empty'
      )
    if not 0 <= self.label < len(self.endings):
      raise ValueError(
        f'label {self.label} of choice {self.prompt[:40]!r} must be from 0 to'
        f' {len(self.endings) - 1}'
      )

  def full_texts(self) -> tuple[Text, ...]:
    """Returns prompt, space and ending of each; the rest is the answer."""
    texts = [f'{self.prompt} {ending}' for ending in self.endings]
    return tuple(
      Text(text=text, answer=(len(self.prompt), len(text))) for text in texts
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
  """One document of the target stream.

  Attributes:
    id: Unique name within the task.
    augmentations: The texts that training may see.
    questions: Questions about it, in seen and unseen phrasings.
    texts: The document itself, to measure its loss.
    kept: Questions on other things, whose answers must stay what they are.

  Raises:
    ValueError: There is nothing to train on.
  """

  id: str
  augmentations: tuple[Text, ...]
  questions: tuple[Question, ...]
  texts: tuple[Text, ...]
  kept: tuple[Question, ...] = ()

  def __post_init__(self) -> None:
    if not self.augmentations:
      raise ValueError(f'document {self.id!r} has no augmentations')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """All data of one experiment.

  Attributes:
    pretraining: Texts that the base model is trained on.
    documents: The target stream, in the order of learning.
    questions: Held-out sets of questions, by name.
    texts: Held-out sets of texts, by name.
    choices: Held-out sets of choices, by name.
    counts: Sizes of the task's parts, for the record.
    are_edits: Whether the documents are edits, see `evaluation.edits`.
    prepared: Rows that the base model is trained on, in front of those of
      `pretraining`; None for none.

  Raises:
    ValueError: Two documents share an id.
  """

  pretraining: tuple[Text, ...]
  documents: tuple[Document, ...]
  questions: dict[str, tuple[Question, ...]]
  texts: dict[str, tuple[Text, ...]]
  choices: dict[str, tuple[Choice, ...]] = dataclasses.field(
    default_factory=dict
  )
  counts: dict[str, int]
  are_edits: bool = False
  prepared: prepared_lib.Prepared | None = None

  def __post_init__(self) -> None:
    ids = collections.Counter(document.id for document in self.documents)
    for name, count in ids.most_common(1):
      if count > 1:
        raise ValueError(f'two documents have the id {name!r}')

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hex digest that changes with the data, not with where it was read."""
    parts = [getattr(self, field.name) for field in dataclasses.fields(self)]
    contents = json.dumps(parts, default=_compared)
    return hashlib.sha256(contents.encode()).hexdigest()

  def vocabulary_texts(self) -> tuple[str, ...]:
    """Returns every text that a word-level tokenizer must be able to spell."""
    texts = [t.text for t in self.pretraining]
    for document in self.documents:
      texts += (t.text for t in document.augmentations + document.texts)
    asked = [d.questions + d.kept for d in self.documents]
    for question in itertools.chain(*asked, *self.questions.values()):
      texts += [question.prompt, *question.answers]
    texts += (t.text for t in itertools.chain(*self.texts.values()))
    for choice in itertools.chain(*self.choices.values()):
      texts += [choice.prompt, *choice.endings]
    return tuple(texts)


def _compared(part: Any) -> dict[str, Any]:
  """Returns the fields of a dataclass that comparisons count."""
  if isinstance(part, prepared_lib.Prepared):
    return {'prepared': part.fingerprint()}
  fields = dataclasses.fields(part)
  return {f.name: getattr(part, f.name) for f in fields if f.compare}
