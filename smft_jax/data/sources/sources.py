"""Texts, questions, documents and choices, from data sets and files.

A source is named by one string: a TFDS data set and its split, such as
'squad/v1.1:validation', or a path that ends in .jsonl or .json (JSON objects,
one a line) or .txt (one text), or leads to a folder of .txt files; such a path
has a slash, as in './notes'. What is in it is told by the fields of its rows,
not by its name: a full copy of a data set, a part of it and an export of it as
JSON lines read alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any, NamedTuple
import urllib.parse

from smft_jax.data.sources import named
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningText:
  """Text to model, as it is, spaces around it and all.

  Attributes:
    id: Unique name within the source.
    title: What it is about; '' where that is not told.
    text: The text, not blank.
  """

  id: str
  title: str
  text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionAnswer:
  """A question and what counts as a right answer.

  Attributes:
    id: Unique name within the source.
    question: The question.
    answers: Accepted answers, at least one, the canonical one first.
    working: The way to the answer, as GSM8K tells it; '' where it is not told.
  """

  id: str
  question: str
  answers: tuple[str, ...]
  working: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceDocument:
  """A text and what can be asked about it.

  Attributes:
    id: Unique name within the source.
    title: What it is about; '' where that is not told.
    text: The text without spaces around it, not empty.
    questions: What is asked about it; may be none.
  """

  id: str
  title: str
  text: str
  questions: tuple[QuestionAnswer, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoice:
  """A beginning and several endings, of which one is right.

  Attributes:
    id: Unique name within the source.
    prompt: The beginning.
    endings: What may follow it, after a space.
    label: Index of the right ending.
  """

  id: str
  prompt: str
  endings: tuple[str, ...]
  label: int


def read_texts(
  name: str, data_dir: str = '', *, problems: problems_lib.Problems
) -> list[RunningText]:
  """Reads running text: rows with `text`, perhaps `title`, or .txt files.

  Args:
    name: The source, see the module.
    data_dir: The TFDS data directory; files need none.
    problems: What to do with bad rows. A row whose text is blank is none: it
      is one of the blank lines of sets with a row for each line.

  Returns:
    The texts in the order of the source.

  Raises:
    UserError: The source is missing or broken or holds no text, or a row is
      bad and `problems` refuses it.

  Example:
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = pathlib.Path(folder, 'rain.txt')
    ...   _ = file.write_text('It rains.')
    ...   read_texts(str(file), problems=problems_lib.Problems('refuse'))
    [RunningText(id='rain', title='', text='It rains.')]
  """

  def make(row: rows.Row) -> RunningText | None:
    text = row.fields.get('text')
    if isinstance(text, str) and not text.strip():
      return None
    return RunningText(
      id=row.id(),
      title=rows.title(row.fields),
      text=rows.text(row.fields, 'text'),
    )

  return named.read(name, data_dir, problems, make, 'text')


def read_questions(
  name: str, data_dir: str = '', *, problems: problems_lib.Problems
) -> list[QuestionAnswer]:
  """Reads questions that stand alone, such as Natural Questions or GSM8K.

  Args:
    name: The source, see the module. Its rows have `question` or `problem`,
      and answers in any form that `rows.answers` knows.
    data_dir: The TFDS data directory; files need none.
    problems: What to do with bad rows.

  Returns:
    The questions in the order of the source.

  Raises:
    UserError: The source is missing or broken or holds no question, or a row
      is bad and `problems` refuses it.

  Example:
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = pathlib.Path(folder, 'facts.jsonl')
    ...   _ = file.write_text('{"question": "Who?", "answer": ["Ada"]}')
    ...   read_questions(str(file), problems=problems_lib.Problems('skip'))[0]
    QuestionAnswer(id='facts:1', question='Who?', answers=('Ada',), working='')
  """

  def make(row: rows.Row) -> QuestionAnswer:
    return _question(row.fields, row.id())

  return named.read(name, data_dir, problems, make, 'question')


def read_documents(
  name: str, data_dir: str = '', *, problems: problems_lib.Problems
) -> list[SourceDocument]:
  """Reads documents with their questions.

  Args:
    name: The source, see the module. Its rows are documents, `{"id": "a1",
      "title": "Lisbon", "text": "Lisbon is ...", "questions": [{"question":
      "Where ...?", "answers": ["in Portugal", "Portugal"]}]}`, of which only
      `text` is needed; or questions in the fields of SQuAD: `id`, `title`,
      `context`, `question`, `answers`.
    data_dir: The TFDS data directory; files need none.
    problems: What to do with bad rows, and with bad questions of good ones:
      a document stays if its question is skipped.

  Returns:
    The documents in the order of the source. Those of SQuAD are its paragraphs,
    articles by title; they are called 'Title/place' by their place in it.

  Raises:
    UserError: The source is missing or broken or holds no document, or a row
      is bad and `problems` refuses it.

  Example:
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = pathlib.Path(folder, 'notes.jsonl')
    ...   _ = file.write_text('{"text": "It rains."}')
    ...   read_documents(str(file), problems=problems_lib.Problems('refuse'))
    [SourceDocument(id='notes:1', title='', text='It rains.', questions=())]
  """

  def make(row: rows.Row) -> SourceDocument | _Asked:
    if 'text' not in row.fields and 'context' in row.fields:
      return _asked(row, problems)
    return _document(row, problems)

  found = named.read(name, data_dir, problems, make, 'document')
  documents = [item for item in found if isinstance(item, SourceDocument)]
  asked = [item for item in found if isinstance(item, _Asked)]
  return documents + _paragraphs(asked)


def read_choices(
  name: str, data_dir: str = '', *, problems: problems_lib.Problems
) -> list[MultipleChoice]:
  """Reads HellaSwag, or other choices in its fields.

  Args:
    name: The source, see the module. Its rows have the fields that
      `rows.choice` names.
    data_dir: The TFDS data directory; files need none.
    problems: What to do with bad rows.

  Returns:
    The choices in the order of the source.

  Raises:
    UserError: The source is missing or broken or holds no choice, or a row is
      bad and `problems` refuses it.

  Example:
    >>> import json, pathlib, tempfile
    >>> row = {'activity_label': 'Tea', 'ctx': 'She boils water and',
    ...        'endings': ['pours it.', 'flies.'], 'label': '0'}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = pathlib.Path(folder, 'tea.jsonl')
    ...   _ = file.write_text(json.dumps(row))
    ...   tea, = read_choices(str(file), problems=problems_lib.Problems('skip'))
    >>> tea.prompt, tea.endings[tea.label]
    ('Tea: She boils water and', 'pours it.')
  """

  def make(row: rows.Row) -> MultipleChoice:
    prompt, endings, label = rows.choice(row.fields)
    return MultipleChoice(
      id=row.id(), prompt=prompt, endings=endings, label=label
    )

  return named.read(name, data_dir, problems, make, 'choice')


def _question(fields: Mapping[str, Any], question_id: str) -> QuestionAnswer:
  question = rows.text(fields, 'question', 'problem')
  answers, working = rows.answers(fields)
  return QuestionAnswer(
    id=question_id,
    question=question.strip(),
    answers=answers,
    working=working,
  )


def _document(row: rows.Row, problems: problems_lib.Problems) -> SourceDocument:
  text = rows.text(row.fields, 'text').strip()
  asked = row.fields.get('questions')
  if asked is None:
    asked = []
  if not isinstance(asked, list) or not all(
    isinstance(question, Mapping) for question in asked
  ):
    raise problems_lib.Fault(
      'wrong_form',
      '\'questions\' must be a list of {"question": ..., "answers": [...]}',
    )
  questions = []
  for index, fields in enumerate(asked):
    try:
      questions.append(_question(fields, f'{row.id()}/{index}'))
    except problems_lib.Fault as fault:
      place = f'{row.place}, question {index}'
      problems.report(fault.kind, place, fault.what)
  return SourceDocument(
    id=row.id(),
    title=rows.title(row.fields),
    text=text,
    questions=tuple(questions),
  )


class _Asked(NamedTuple):
  """A row of SQuAD: a paragraph and one question, if it is a good one."""

  title: str
  written: str
  text: str
  question: QuestionAnswer | None


def _asked(row: rows.Row, problems: problems_lib.Problems) -> _Asked:
  title = rows.text(row.fields, 'title')
  text = rows.text(row.fields, 'context').strip()
  written = row.id() if 'id' in row.fields else ''
  question = None
  try:
    question = _question(row.fields, row.id())
  except problems_lib.Fault as fault:
    problems.report(fault.kind, row.place, fault.what)
  return _Asked(title, written, text, question)


def _paragraphs(asked: Iterable[_Asked]) -> list[SourceDocument]:
  """Paragraphs of SQuAD: articles by title, each in its own order.

  TFDS stores the questions shuffled and without their place in the article.
  Their ids begin with the time of writing, and they were written page by page:
  the least id of a paragraph gives back its place, near enough, and does not
  hang on the order of the files. Rows without ids keep their order.
  """
  found: dict[tuple[str, str], list[QuestionAnswer]] = {}
  for one in sorted(asked, key=lambda a: (a.title, a.written)):
    questions = found.setdefault((one.title, one.text), [])
    if one.question is not None:
      questions.append(one.question)
  documents = []
  places: dict[str, int] = {}
  for (title, text), questions in found.items():
    place = places.get(title, 0)
    places[title] = place + 1
    documents.append(
      SourceDocument(
        id=f'{title}/{place}',
        title=urllib.parse.unquote(title).replace('_', ' '),
        text=text,
        questions=tuple(questions),
      )
    )
  return documents
