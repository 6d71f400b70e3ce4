"""Reads texts, questions, documents and choices from data sets and files.

A source is one string. It names a split of a TFDS data set, such as
'squad/v1.1:validation'; or a file, of JSON (.jsonl, .ndjson, .json), of plain
text (.txt, .md: one text) or a table (.csv, .tsv, .parquet), all but Parquet
perhaps compressed (.gz); or a folder of such files, written with a slash, as in
'./notes', with those in its folders. The fields of its rows decide what they
mean, not the source's name: a data set, a part of it and its export as JSON
lines read alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import pathlib
from typing import Any, NamedTuple, TypeVar
import urllib.parse

from absl import logging

from smft_jax import schema
from smft_jax.data import task
from smft_jax.data.sources import edits as edits_lib
from smft_jax.data.sources import files
from smft_jax.data.sources import json_files
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows
from smft_jax.data.sources import tables
from smft_jax.data.sources import text_files
from smft_jax.data.sources import tfds_files
from smft_jax.store import paths

_Item = TypeVar('_Item')


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
    """Reads running text, unchanged: rows with `text`, or files of text.

    Blank texts are left out, since some data sets have a row for each line.
    """
    return self._items(name, _running_text, 'text')

  def each_text(self, name: str) -> Iterator[SourceDocument]:
    """Yields what `texts` returns, one by one, for sources of any size.

    Of JSON lines, Parquet and data sets only a part is in memory. Ids are not
    compared: those of all texts would be, too.
    """
    return self._each(name, _running_text, 'text')

  def questions(self, name: str) -> list[QuestionAnswer]:
    """Reads questions without a document, such as those of GSM8K.

    Rows have `question` or `problem`, and answers as `rows.answers` reads them.
    Questions that SQuAD calls impossible are left out.
    """

    def make(row: rows.Row) -> QuestionAnswer | None:
      if _is_unanswerable(row.fields):
        return None
      return _question(row.fields, row.id(), row.place)

    return self._items(name, make, 'question')

  def documents(self, name: str) -> list[SourceDocument]:
    """Reads documents with their questions; texts are stripped.

    Rows are documents, with only `text` required:

      {"id": "a1", "title": "Lisbon", "text": "Lisbon is ...", "questions": [
        {"question": "Where ...?", "answers": ["in Portugal", "Portugal"]}]}

    or questions with the fields of SQuAD: `id`, `title`, `context`, `question`,
    `answers`. SQuAD's documents are its paragraphs, articles by title, with ids
    'Title/place'. A document stays if its question is impossible, or only it is
    bad and skipped.
    """

    def make(row: rows.Row) -> SourceDocument | _SquadRow:
      if rows.get(row.fields, 'text') is None and 'context' in row.fields:
        return _squad_row(row, self.problems)
      return _document(row, self.problems)

    found = self._items(name, make, 'document')
    documents = [item for item in found if isinstance(item, SourceDocument)]
    asked = [item for item in found if isinstance(item, _SquadRow)]
    return documents + _paragraphs(asked)

  def edits(
    self, name: str, fields: edits_lib.Fields
  ) -> list[edits_lib.SourceEdit]:
    """Reads knowledge edits, rows with the given fields."""
    return self._items(name, lambda row: edits_lib.edit(row, fields), 'edit')

  def choices(self, name: str) -> list[task.Choice]:
    """Reads HellaSwag, or other choices with the fields of `rows.choice`."""

    def make(row: rows.Row) -> task.Choice:
      prompt, endings, label = rows.choice(row.fields)
      return task.Choice(prompt=prompt, endings=endings, label=label)

    return self._items(name, make, 'choice')

  def _items(
    self, name: str, make: Callable[[rows.Row], _Item | None], what: str
  ) -> list[_Item]:
    """Makes an item of each row; skips bad rows, and silently those of None."""
    places: dict[str, str] = {}

    def make_once(row: rows.Row) -> _Item | None:
      item = make(row)
      if item is not None:
        if row.id() in places:
          raise problems_lib.Fault(
            'duplicate_id', f'id {row.id()!r} repeats {places[row.id()]}'
          )
        places[row.id()] = row.place
      return item

    return list(self._each(name, make_once, what))

  def _each(
    self, name: str, make: Callable[[rows.Row], _Item | None], what: str
  ) -> Iterator[_Item]:
    """Yields the item of each row, as `_items` returns them."""
    skipped_before = self.problems.total()
    is_empty = True
    for row in self._rows(name):
      try:
        item = make(row)
      except problems_lib.Fault as fault:
        self.problems.report(fault, row.place)
        continue
      if item is not None:
        is_empty = False
        yield item
    skipped = self.problems.total() - skipped_before
    if skipped:
      self.problems.log_counts()
    if is_empty:
      raise schema.UserError(
        f'{name} holds no {what} that can be read; bad rows: {skipped}'
      )

  def _rows(self, name: str) -> Iterator[rows.Row]:
    """Reads the rows of a source of any kind."""
    path = paths.expand(name)
    if '/' in name and path.is_dir():
      return self._folder(name, path)
    kind = files.kind_of(name)
    if kind:
      stem = pathlib.PurePath(files.split(files.readable(name))[0]).name
      return _READERS[kind](name, self.problems, stem)
    # No data set's name ends like this.
    if path.is_file() or (path.suffix[1:2].isalpha() and ':' not in name):
      raise schema.UserError(
        f'{name} is a file of an unknown kind; files that can be read end in'
        f' {files.ENDINGS}'
      )
    data_set, _, split = name.partition(':')
    return tfds_files.read_examples(
      data_set, split, self.data_dir, self.problems
    )

  def _folder(self, name: str, folder: pathlib.Path) -> Iterator[rows.Row]:
    """Reads the files in a folder and its folders, sorted by their paths."""
    found, others = files.below(folder)
    if not found:
      raise schema.UserError(
        f'folder {name} holds no file that ends in {files.ENDINGS}; if the TFDS'
        f' data set is meant, name its split: {name}:SPLIT'
      )
    if others:
      logging.warning(
        'left out %d files of other kinds in %s, such as %s',
        *(len(others), name, ', '.join(others[:3])),
      )
    inner = [
      files.readable(path.relative_to(folder).as_posix()) for path in found
    ]
    stems = [files.split(name)[0] for name in inner]
    for path, whole, stem in zip(found, inner, stems, strict=True):
      kind = files.kind_of(path.name)
      assert kind is not None
      # Files that differ only in their endings keep them.
      name = stem if stems.count(stem) == 1 else whole
      yield from _READERS[kind](str(path), self.problems, name)


_READERS = {
  'json': json_files.read,
  'text': text_files.read,
  'table': tables.read,
}


def is_data_set(name: str) -> bool:
  """Returns whether a source names a TFDS data set, not files.

  Example:
    >>> is_data_set('squad/v1.1:validation'), is_data_set('./notes')
    (True, False)
  """
  return not files.kind_of(name) and (':' in name or '/' not in name)


def _running_text(row: rows.Row) -> SourceDocument | None:
  text = row.fields.get('text')
  if isinstance(text, str) and not text.strip():
    return None
  return SourceDocument(
    id=row.id(),
    title=rows.title(row.fields),
    text=rows.text(row.fields, 'text'),
  )


def _question(
  fields: Mapping[str, Any], question_id: str, place: str
) -> QuestionAnswer:
  question = rows.text(fields, 'question', 'problem')
  answers, working = rows.answers(fields)
  return QuestionAnswer(
    id=question_id,
    question=question.strip(),
    answers=answers,
    working=working,
    place=place,
  )


def _document(row: rows.Row, problems: problems_lib.Problems) -> SourceDocument:
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
      questions.append(_question(fields, f'{row.id()}/{index}', place))
    except problems_lib.Fault as fault:
      problems.report(fault, place)
  return SourceDocument(
    id=row.id(),
    title=rows.title(row.fields),
    text=text,
    questions=tuple(questions),
  )


class _SquadRow(NamedTuple):
  """A row of SQuAD: a paragraph and one question; None if it has no answer."""

  title: str
  id: str
  text: str
  question: QuestionAnswer | None


def _is_unanswerable(fields: Mapping[str, Any]) -> bool:
  """Whether a question is one of SQuAD 2 that its paragraph does not answer."""
  answers = fields.get('answers')
  if isinstance(answers, Mapping) and 'context' in fields:
    return answers.get('text') == []
  return fields.get('is_impossible') is True


def _squad_row(row: rows.Row, problems: problems_lib.Problems) -> _SquadRow:
  title = rows.text(row.fields, 'title')
  text = rows.text(row.fields, 'context').strip()
  has_id = rows.get(row.fields, 'id') is not None
  row_id = row.id() if has_id else ''
  question = None
  try:
    if not _is_unanswerable(row.fields):
      question = _question(row.fields, row.id(), row.place)
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
