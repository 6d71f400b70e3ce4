"""Reads texts, questions, documents and choices from data sets and files.

A source is one string. It names a split of a TFDS data set, such as
'squad/v1.1:validation'; or a file that ends in .jsonl or .json (a JSON object a
line) or .txt (one text); or a folder of .txt files, written with a slash, as in
'./notes'. The fields of its rows decide what they mean, not the source's name:
a data set, a part of it and its export as JSON lines read alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any, NamedTuple
import urllib.parse

from smft_jax.data import task
from smft_jax.data.sources import named
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionAnswer:
  """A question and its accepted answers.

  Attributes:
    id: Unique name within the source.
    question: The question.
    answers: Accepted answers, at least one, the canonical one first.
    working: The worked solution, as in GSM8K; '' if there is none.
  """

  id: str
  question: str
  answers: tuple[str, ...]
  working: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceDocument:
  """A text and the questions about it.

  Attributes:
    id: Unique name within the source.
    title: Its title; '' if unknown.
    text: The text, not blank.
    questions: Questions about it, perhaps none.
  """

  id: str
  title: str
  text: str
  questions: tuple[QuestionAnswer, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads sources; every method returns items in the order of the source.

  Each method raises a UserError if the source is missing, broken or empty, or
  if a row is bad and `problems` refuses it.

  Attributes:
    problems: Refuses or skips bad rows.
    data_dir: The TFDS data directory; not needed for files.

  Example:
    >>> import pathlib, tempfile
    >>> reader = Reader(problems_lib.Problems('refuse'))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = pathlib.Path(folder, 'facts.jsonl')
    ...   _ = file.write_text('{"question": "Who?", "answer": ["Ada"]}')
    ...   question, = reader.questions(str(file))
    >>> question.id, question.question, question.answers
    ('facts:1', 'Who?', ('Ada',))
  """

  problems: problems_lib.Problems
  data_dir: str = ''

  def texts(self, name: str) -> list[SourceDocument]:
    """Reads running text, unchanged: rows with `text`, or .txt files.

    Blank texts are left out, since some data sets have a row for each line.
    """

    def make(row: rows.Row) -> SourceDocument | None:
      text = row.fields.get('text')
      if isinstance(text, str) and not text.strip():
        return None
      return SourceDocument(
        id=row.id(),
        title=rows.title(row.fields),
        text=rows.text(row.fields, 'text'),
      )

    return named.read(name, self.data_dir, self.problems, make, 'text')

  def questions(self, name: str) -> list[QuestionAnswer]:
    """Reads questions without a document, such as those of GSM8K.

    Rows have `question` or `problem`, and answers as `rows.answers` reads them.
    """

    def make(row: rows.Row) -> QuestionAnswer:
      return _question(row.fields, row.id())

    return named.read(name, self.data_dir, self.problems, make, 'question')

  def documents(self, name: str) -> list[SourceDocument]:
    """Reads documents with their questions; texts are stripped.

    Rows are documents, of which only `text` is required:

      {"id": "a1", "title": "Lisbon", "text": "Lisbon is ...", "questions": [
        {"question": "Where ...?", "answers": ["in Portugal", "Portugal"]}]}

    or questions with the fields of SQuAD: `id`, `title`, `context`, `question`,
    `answers`. SQuAD's documents are its paragraphs, articles by title, with ids
    'Title/place'. A document stays if only its question is bad and skipped.
    """

    def make(row: rows.Row) -> SourceDocument | _SquadRow:
      if 'text' not in row.fields and 'context' in row.fields:
        return _squad_row(row, self.problems)
      return _document(row, self.problems)

    found = named.read(name, self.data_dir, self.problems, make, 'document')
    documents = [item for item in found if isinstance(item, SourceDocument)]
    asked = [item for item in found if isinstance(item, _SquadRow)]
    return documents + _paragraphs(asked)

  def choices(self, name: str) -> list[task.Choice]:
    """Reads HellaSwag, or other choices with the fields of `rows.choice`."""

    def make(row: rows.Row) -> task.Choice:
      prompt, endings, label = rows.choice(row.fields)
      return task.Choice(prompt=prompt, endings=endings, label=label)

    return named.read(name, self.data_dir, self.problems, make, 'choice')


def _question(fields: Mapping[str, Any], question_id: str) -> QuestionAnswer:
  question = rows.text(fields, 'question', 'problem')
  answers, working = rows.answers(fields)
  return QuestionAnswer(
    id=question_id, question=question.strip(), answers=answers, working=working
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
      problems.report(fault, f'{row.place}, question {index}')
  return SourceDocument(
    id=row.id(),
    title=rows.title(row.fields),
    text=text,
    questions=tuple(questions),
  )


class _SquadRow(NamedTuple):
  """A row of SQuAD: a paragraph and one question, None if that is bad."""

  title: str
  id: str
  text: str
  question: QuestionAnswer | None


def _squad_row(row: rows.Row, problems: problems_lib.Problems) -> _SquadRow:
  title = rows.text(row.fields, 'title')
  text = rows.text(row.fields, 'context').strip()
  row_id = row.id() if 'id' in row.fields else ''
  question = None
  try:
    question = _question(row.fields, row.id())
  except problems_lib.Fault as fault:
    problems.report(fault, row.place)
  return _SquadRow(title, row_id, text, question)


def _paragraphs(asked: Iterable[_SquadRow]) -> list[SourceDocument]:
  """Gathers the paragraphs of SQuAD, articles by title, each in its order.

  TFDS shuffles the questions and drops their places in the article. Their ids
  begin with the time of writing, and annotators went page by page, so a
  paragraph's least id restores its place closely enough, whatever the order of
  the files. Rows without ids keep their order.
  """
  found: dict[tuple[str, str], list[QuestionAnswer]] = {}
  for row in sorted(asked, key=lambda row: (row.title, row.id)):
    questions = found.setdefault((row.title, row.text), [])
    if row.question is not None:
      questions.append(row.question)
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
