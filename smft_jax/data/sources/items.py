"""Makes questions and documents of rows, by their fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any, NamedTuple
import urllib.parse

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
    place: Its place, for messages.
  """

  id: str
  question: str
  answers: tuple[str, ...]
  working: str = ''
  place: str = dataclasses.field(default='', compare=False)


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


def running_text(row: rows.Row) -> SourceDocument | None:
  """Returns a row's text, unchanged; None if it is blank."""
  text = row.fields.get('text')
  if isinstance(text, str) and not text.strip():
    return None
  return SourceDocument(
    id=row.id(),
    title=rows.title(row.fields),
    text=rows.text(row.fields, 'text'),
  )


def question(
  fields: Mapping[str, Any], question_id: str, place: str
) -> QuestionAnswer:
  """Reads a question with its answers."""
  asked = rows.text(fields, 'question', 'problem')
  answers, working = rows.answers(fields)
  return QuestionAnswer(
    id=question_id,
    question=asked.strip(),
    answers=answers,
    working=working,
    place=place,
  )


def document(row: rows.Row, problems: problems_lib.Problems) -> SourceDocument:
  """Reads a document; `problems` refuses or skips bad questions about it."""
  text = rows.text(row.fields, 'text').strip()
  asked = rows.get(row.fields, 'questions')
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
    place = f'{row.place}, question {index}'
    try:
      questions.append(question(fields, f'{row.id()}/{index}', place))
    except problems_lib.Fault as fault:
      problems.report(fault, place)
  return SourceDocument(
    id=row.id(),
    title=rows.title(row.fields),
    text=text,
    questions=tuple(questions),
  )


class SquadRow(NamedTuple):
  """A row of SQuAD: a paragraph and one question; None if it has no answer."""

  title: str
  id: str
  text: str
  question: QuestionAnswer | None


def is_unanswerable(fields: Mapping[str, Any]) -> bool:
  """Whether a question is one of SQuAD 2 that its paragraph does not answer."""
  answers = fields.get('answers')
  if isinstance(answers, Mapping) and 'context' in fields:
    return answers.get('text') == []
  return fields.get('is_impossible') is True


def squad_row(row: rows.Row, problems: problems_lib.Problems) -> SquadRow:
  """Reads a row with SQuAD's fields; a bad question leaves its paragraph."""
  title = rows.text(row.fields, 'title')
  text = rows.text(row.fields, 'context').strip()
  has_id = rows.get(row.fields, 'id') is not None
  row_id = row.id() if has_id else ''
  asked = None
  try:
    if not is_unanswerable(row.fields):
      asked = question(row.fields, row.id(), row.place)
  except problems_lib.Fault as fault:
    problems.report(fault, row.place)
  return SquadRow(title, row_id, text, asked)


def paragraphs(asked: Iterable[SquadRow]) -> list[SourceDocument]:
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
