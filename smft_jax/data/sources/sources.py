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

from collections.abc import Callable, Iterator
import dataclasses
import pathlib
from typing import TypeVar

from absl import logging

from smft_jax import schema
from smft_jax.data import prepared
from smft_jax.data import task
from smft_jax.data.sources import edits as edits_lib
from smft_jax.data.sources import files
from smft_jax.data.sources import items
from smft_jax.data.sources import json_files
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows
from smft_jax.data.sources import tables
from smft_jax.data.sources import text_files
from smft_jax.data.sources import tfds_files
from smft_jax.store import paths

_Item = TypeVar('_Item')

# No data set's name begins like this.
_PATHS = ('/', './', '../', '~', '$')


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads sources; every method returns items in the order of the source.

  Each method raises a UserError if the source is missing, broken or empty, or
  if a row is bad and `problems` refuses it.

  Attributes:
    problems: Refuses or skips bad rows.
    data_dir: The TFDS data directory; not needed for files.
    setting: What gave `data_dir`, for messages.

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
  setting: str = 'config.data.data_dir'

  def texts(self, name: str) -> list[items.SourceDocument]:
    """Reads running text, unchanged: rows with `text`, or files of text.

    Blank texts are left out, since some data sets have a row for each line.
    """
    return self._items(name, items.running_text, 'text')

  def each_text(self, name: str) -> Iterator[items.SourceDocument]:
    """Yields what `texts` returns, one by one, for sources of any size.

    Of JSON lines, Parquet and data sets only a part is in memory. Ids are not
    compared: those of all texts would be, too.
    """
    return self._each(name, items.running_text, 'text')

  def questions(self, name: str) -> list[items.QuestionAnswer]:
    """Reads questions without a document, such as those of GSM8K.

    Rows have `question` or `problem`, and answers as `rows.answers` reads them.
    Questions that SQuAD calls impossible are left out.
    """

    def make(row: rows.Row) -> items.QuestionAnswer | None:
      if items.is_unanswerable(row.fields):
        return None
      return items.question(row.fields, row.id(), row.place)

    return self._items(name, make, 'question')

  def documents(self, name: str) -> list[items.SourceDocument]:
    """Reads documents with their questions; texts are stripped.

    Rows are documents, with only `text` required:

      {"id": "a1", "title": "Lisbon", "text": "Lisbon is ...", "questions": [
        {"question": "Where ...?", "answers": ["in Portugal", "Portugal"]}]}

    or questions with the fields of SQuAD: `id`, `title`, `context`, `question`,
    `answers`. SQuAD's documents are its paragraphs, articles by title, with ids
    'Title/place'. A document stays if its question is impossible, or only it is
    bad and skipped.
    """

    def make(row: rows.Row) -> items.SourceDocument | items.SquadRow:
      if rows.get(row.fields, 'text') is None and 'context' in row.fields:
        return items.squad_row(row, self.problems)
      return items.document(row, self.problems)

    found = self._items(name, make, 'document')
    documents = [
      item for item in found if isinstance(item, items.SourceDocument)
    ]
    asked = [item for item in found if isinstance(item, items.SquadRow)]
    return documents + items.paragraphs(asked)

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
    kind = files.kind_of(name)
    if path.is_dir() and (kind or '/' in name):
      return self._folder(name, path)
    if kind:
      stem = pathlib.PurePath(files.split(files.readable(name))[0]).name
      return _READERS[kind](name, self.problems, stem)
    # No data set's name ends like this.
    if path.is_file() or (path.suffix[1:2].isalpha() and ':' not in name):
      raise schema.UserError(
        f'{name} is a file of an unknown kind; files that can be read end in'
        f' {files.ENDINGS}'
      )
    if name.startswith(_PATHS):
      files.existing(name)  # raises
    data_set, _, split = name.partition(':')
    return tfds_files.read_examples(
      data_set, split, self.data_dir, self.problems, self.setting
    )

  def _folder(self, name: str, folder: pathlib.Path) -> Iterator[rows.Row]:
    """Reads the files in a folder and its folders, sorted by their paths."""
    found, others = files.below(folder)
    if not found:
      raise schema.UserError(
        f'folder {name} holds no file that ends in {files.ENDINGS}; if the TFDS'
        f' data set is meant, name its split: {name}:SPLIT'
      )
    for path in found:
      if path.name == prepared.MANIFEST:
        raise schema.UserError(
          f'{path.parent} holds rows of `python -m smft_jax.prepare`, not text:'
          ' give the text that they were made of'
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

  A folder whose name lacks the slash is none, so that it is not passed over.

  Example:
    >>> is_data_set('squad/v1.1:validation'), is_data_set('./notes')
    (True, False)
  """
  if files.kind_of(name) or paths.expand(name).is_dir():
    return False
  return ':' in name or '/' not in name
