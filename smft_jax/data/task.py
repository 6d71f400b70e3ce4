"""What a learning task is made of: texts, questions, choices, documents.

Every source of data (`data.world`, `data.documents`) ends in one `Task`, and
everything after it (tokenizer, batches, evaluation) reads only a `Task`.
Spans are character offsets, half-open, into the text they belong to, so that
they outlive any choice of tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import itertools

from smft_jax import schema

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


def with_examples(
  questions: Sequence[Question], examples: Sequence[Question], shots: int
) -> tuple[Question, ...]:
  r"""The questions with solved examples before each: few-shot prompts.

  The new prompt is `shots` examples, each its prompt, a space and its first
  answer, and then the question's own prompt, with a blank line between any
  two. The examples are the first ones that do not ask for the question's own
  fact, in their order: the same for all questions but those that are among
  them.

  Args:
    questions: What is asked.
    examples: What to take the examples from.
    shots: How many stand before each question; 0 changes nothing.

  Returns:
    The questions in their order, changed in nothing but the prompt.

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
    others = (e for e in examples if e.fact != question.fact)
    shown = [e.full_text().text for e in itertools.islice(others, shots)]
    if len(shown) < shots:
      raise schema.UserError(
        f'shots = {shots} is more than the {len(shown)} examples that do not'
        f' ask for {question.fact!r}'
      )
    return '\n\n'.join([*shown, question.prompt])

  return tuple(
    dataclasses.replace(question, prompt=prompt_of(question))
    for question in questions
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
  """A prompt and several endings, of which a model should prefer one.

  Attributes:
    prompt: What all endings continue.
    endings: At least two.
    label: Which of them is right, counted from 0.

  Raises:
    ValueError: There are too few endings, one is empty, or the label is none
      of them.

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
    """Prompt, a space and each ending; all past the prompt is the answer."""
    texts = [f'{self.prompt} {ending}' for ending in self.endings]
    return tuple(
      Text(text=text, answer=(len(self.prompt), len(text))) for text in texts
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
    choices: Evaluation sets of choices outside the stream, by name.
    counts: How many of what there is, for the record.

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
    for chosen in self.choices.values():
      for choice in chosen:
        texts.extend([choice.prompt, *choice.endings])
    return tuple(texts)
