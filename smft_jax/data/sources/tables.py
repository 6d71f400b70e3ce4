"""Reads tables: comma- or tab-separated values, and Parquet."""

from __future__ import annotations

from collections.abc import Iterator
import csv
import io

from smft_jax import schema
from smft_jax.data.sources import files
from smft_jax.data.sources import json_lines
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows


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
    yield from _parquet(path, name)
    return
  with files.opened(path) as stream:
    text = io.TextIOWrapper(stream, encoding='utf-8-sig', newline='')
    csv.field_size_limit(json_lines.MAX_LINE_BYTES)
    reader = csv.DictReader(text, delimiter='\t' if ending == '.tsv' else ',')
    number = 0
    while True:
      try:
        fields = next(reader, None)
      except (csv.Error, UnicodeDecodeError) as error:
        is_utf8 = not isinstance(error, UnicodeDecodeError)
        fault = problems_lib.Fault(
          'wrong_form' if is_utf8 else 'bad_utf8', problems_lib.shortened(error)
        )
        problems.report(fault, f'{path}:{reader.line_num + 1}')
        return
      if fields is None:
        return
      number += 1
      place = f'{path}:{reader.line_num}'
      if None in fields:
        fault = problems_lib.Fault(
          'wrong_form', 'there are more cells than columns in the first line'
        )
        problems.report(fault, place)
        continue
      yield rows.Row(
        place=place,
        default_id=f'{name}:{number}',
        fields={key: cell for key, cell in fields.items() if cell},
      )


def _parquet(path: str, name: str) -> Iterator[rows.Row]:
  file = files.existing(path)
  try:
    # Imported late: an extra, that only this needs.
    import pyarrow
    from pyarrow import parquet
  except ImportError:
    raise schema.UserError(
      f'{path}: Parquet files need pyarrow: pip install "smft_jax[parquet]"'
    ) from None
  try:
    with parquet.ParquetFile(file) as table:
      number = 0
      for batch in table.iter_batches():
        for fields in batch.to_pylist():
          number += 1
          yield rows.Row(
            place=f'{path}, row {number}',
            default_id=f'{name}:{number}',
            fields=fields,
          )
  except (pyarrow.ArrowException, OSError) as error:
    raise schema.UserError(
      f'{path} is cut short or damaged: {problems_lib.shortened(error)}'
    ) from None
