"""Reads tables: comma- or tab-separated values, and Parquet."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
import csv
from typing import Any

from smft_jax import schema
from smft_jax.data.sources import files
from smft_jax.data.sources import json_lines
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows
from smft_jax.store import paths


def read(
  path: str, problems: problems_lib.Problems, name: str
) -> Iterator[rows.Row]:
  """Reads the rows of a table; the names of its columns are those of fields.

  Args:
    path: A file that ends in .csv, .tsv (UTF-8, the first line has the names,
      perhaps compressed by gzip) or .parquet.
    problems: Refuses or skips rows that cannot be read.
    name: Begins the id of a row without one: 'facts' makes 'facts:3' of the
      third row.

  Yields:
    The rows. A cell of separated values that is empty is left out.

  Raises:
    UserError: The file is missing or damaged, or needs a library.
  """
  ending = files.split(path)[1]
  if ending == '.parquet':
    yield from _parquet(path, problems, name)
  else:
    delimiter = '\t' if ending == '.tsv' else ','
    yield from _separated(path, problems, name, delimiter)


def _separated(
  path: str, problems: problems_lib.Problems, name: str, delimiter: str
) -> Iterator[rows.Row]:
  with files.opened(path) as stream:
    lines = stream.read().removeprefix(codecs.BOM_UTF8).splitlines(True)
  columns: list[str] | None = None
  number = 0
  for line, cells in _records(path, lines, problems, delimiter):
    place = f'{path}:{line}'
    if columns is None:
      columns = [cell.strip() for cell in cells]
      _check_names(place, columns)
      _check_separated(place, columns, delimiter)
      continue
    number += 1
    if len(cells) > len(columns):
      fault = problems_lib.Fault(
        'wrong_form', 'there are more cells than columns in the first line'
      )
      problems.report(fault, place)
      continue
    yield rows.Row(
      place=place,
      default_id=f'{name}:{number}',
      fields={k: cell for k, cell in zip(columns, cells, strict=False) if cell},
    )


def _records(
  path: str, lines: list[bytes], problems: problems_lib.Problems, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
  """Yields the cells of each row, with the number of its first line.

  After a row that is no row it goes on with the line after its first, after bad
  UTF-8 with the line after that.
  """
  csv.field_size_limit(json_lines.MAX_LINE_BYTES)
  start = 0
  while start < len(lines):
    decoded = (lines[i].decode('utf-8') for i in range(start, len(lines)))
    # Not strict, a quote that is never closed takes all rows after it along.
    reader = csv.reader(decoded, delimiter=delimiter, strict=True)
    done = 0
    try:
      for cells in reader:
        if cells:
          yield start + done + 1, cells
        done = reader.line_num
      return
    except UnicodeDecodeError as error:
      bad = start + reader.line_num + 1
      problems.report(problems_lib.not_utf8(error), f'{path}:{bad}')
      start = bad
    except csv.Error as error:
      what = schema.one_line(error)
      if 'unexpected end of data' in what:
        what = 'a quote is not closed'
      fault = problems_lib.Fault('wrong_form', what)
      problems.report(fault, f'{path}:{start + done + 1}')
      start += done + 1


def _check_names(place: str, columns: list[str]) -> None:
  for column in columns:
    if columns.count(column) > 1:
      raise schema.UserError(f'{place}: two columns are named {column!r}')


def _check_separated(place: str, columns: list[str], delimiter: str) -> None:
  """Refuses a line of names that something else separates."""
  for other in {',', ';', '\t', '|'} - {delimiter}:
    if len(columns) == 1 and other in columns[0]:
      ending = '.tsv' if delimiter == '\t' else '.csv'
      raise schema.UserError(
        f'{place}: the columns seem to be separated by {other!r}, but those of'
        f' a {ending} file are by {delimiter!r}:'
        f' {problems_lib.shortened(columns[0])}'
      )


def _leaves(kind: Any) -> list[Any]:
  """Returns the types within an Arrow type that are columns of a file."""
  kind = getattr(kind, 'storage_type', kind)  # of an extension
  inner = [kind.field(i).type for i in range(kind.num_fields)]
  return [leaf for one in inner for leaf in _leaves(one)] or [kind]


def _parquet(
  path: str, problems: problems_lib.Problems, name: str
) -> Iterator[rows.Row]:
  file = files.existing(path)
  try:
    # Imported late: an extra, that only this needs.
    import pyarrow
    from pyarrow import parquet
  except ImportError:
    raise schema.UserError(
      f'{path}: Parquet files need pyarrow: pip install "smft_jax[parquet]"'
    ) from None
  number = 0
  try:
    paths.check_fetched(file)
    with parquet.ParquetFile(file) as table:
      _check_names(path, table.schema_arrow.names)
      leaves = [
        leaf for field in table.schema_arrow for leaf in _leaves(field.type)
      ]
      # Times are no field of ours, and some need further libraries.
      wanted = [
        table.schema.column(i).path
        for i, leaf in enumerate(leaves)
        if not pyarrow.types.is_temporal(leaf)
      ]
      for batch in table.iter_batches(columns=wanted):
        for index in range(len(batch)):
          number += 1
          place = f'{path}, row {number}'
          try:
            (fields,) = batch.slice(index, 1).to_pylist()
          except UnicodeDecodeError as error:
            problems.report(problems_lib.not_utf8(error), place)
            continue
          except ValueError as error:
            raise schema.UserError(
              f'{place} cannot be read: {problems_lib.shortened(error)}'
            ) from None
          yield rows.Row(
            place=place, default_id=f'{name}:{number}', fields=fields
          )
  # Names of columns are decoded, too.
  except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
    raise schema.UserError(
      f'{path} is cut short or damaged: {problems_lib.shortened(error)}'
    ) from None
