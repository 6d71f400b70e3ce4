"""What a learning task is made of: texts, questions, documents.

Every source of data (`data.world`, `data.documents`) ends in one `Task`, and
everything after it (tokenizer, batches, evaluation) reads only a `Task`.
Spans are character offsets, half-open, into the text they belong to, so that
they outlive any choice of tokenizer.
"""

from __future__ import annotations

import dataclasses

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
  """A text a model is trained on or whose loss is measured.

  Attributes:
    text: The text itself, not empty.
    answer: Span of the part that counts as the answer, or None when no part
      is special.
    entities: Spans of the names and values in the text, in order.

  Raises:
    ValueError: The text is empty, or a span is empty or leaves the text.

  Example:
    >>> t = Text(text='Ada was born in Lisbon.', answer=(16, 22))
    >>> t.text[slice(*t.answer)]
    'Lisbon'
  """

  text: str
  answer: Span | None = None
  entities: tuple[Span, ...] = ()

  def __post_init__(self) -> None:
    if not self.text:
      raise ValueError('a Text needs a non-empty text')
    if self.answer is not None:
      self._check('answer', self.answer)
    for span in self.entities:
      self._check('entity', span)

  def _check(self, name: str, span: Span) -> None:
    start, end = span
    if not 0 <= start < end <= len(self.text):
      raise ValueError(
        f'{name} span {span} is not a non-empty part of a text of '
        f'{len(self.text)} characters: {self.text[:40]!r}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """A prompt that a model continues, and what counts as a right answer.

  Attributes:
    prompt: All the model is given; the answer is what it writes next.
    answers: Accepted answers; the first is the canonical one, the one whose
      likelihood is measured.
    phrasing: Name of the phrasing, shared by the questions asked alike.
    seen: Whether this phrasing is among what training on the document shows.
    fact: Id of the fact asked for, such as 'Ada Keller/birthplace'.

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

  def __post_init__(self) -> None:
    if not self.answers or not all(self.answers):
      raise ValueError(
        f'question {self.prompt[:40]!r} needs at least one answer, none empty'
      )

  def full_text(self) -> Text:
    """Prompt, a space and the canonical answer, with the answer's span."""
    start = len(self.prompt) + 1
    answer = self.answers[0]
    return Text(
      text=f'{self.prompt} {answer}', answer=(start, start + len(answer))
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
  """One piece of the stream of things to learn.

  Attributes:
    id: Unique name within the task.
    augmentations: What training may see of it, in no special order.
    questions: What is asked about it, in seen and unseen phrasings.
    texts: The document itself, for measuring its loss.

  Raises:
    ValueError: There is nothing to train on.
  """

  id: str
  augmentations: tuple[Text, ...]
  questions: tuple[Question, ...]
  texts: tuple[Text, ...]

  def __post_init__(self) -> None:
    if not self.augmentations:
      raise ValueError(f'document {self.id!r} has no augmentations')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """All data of one experiment.

  Attributes:
    pretraining: What the base model is trained on.
    documents: The target stream, in the order it is learned.
    questions: Evaluation sets of questions outside the stream, by name.
    texts: Evaluation sets of texts outside the stream, by name.
    counts: How many of what there is, for the record.

  Raises:
    ValueError: Two documents share an id.
  """

  pretraining: tuple[Text, ...]
  documents: tuple[Document, ...]
  questions: dict[str, tuple[Question, ...]]
  texts: dict[str, tuple[Text, ...]]
  counts: dict[str, int]

  def __post_init__(self) -> None:
    ids = set()
    for document in self.documents:
      if document.id in ids:
        raise ValueError(f'two documents have the id {document.id!r}')
      ids.add(document.id)

  def vocabulary_texts(self) -> tuple[str, ...]:
    """Every text a word-level tokenizer must be able to spell."""
    texts = [t.text for t in self.pretraining]
    questions: list[Question] = []
    for document in self.documents:
      texts.extend(t.text for t in document.augmentations + document.texts)
      questions.extend(document.questions)
    for group in self.questions.values():
      questions.extend(group)
    for question in questions:
      texts.append(question.prompt)
      texts.extend(question.answers)
    for measured in self.texts.values():
      texts.extend(t.text for t in measured)
    return tuple(texts)
