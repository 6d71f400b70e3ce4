"""Reads and checks files of paraphrases and rewrites made by a language model.

    python -m smft_jax.data.augment check FILE [--sources=SOURCES.jsonl]
        [--least=N]

A file has one JSON object a line: {"source": "<document or fact id>", "text":
"...", "kind": "paraphrase"}, or "question" and "answer" in place of "text".
docs/augmentations.md has prompts that produce it.
`check` prints the contents of a file, and its problems.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import sys
from typing import Any

from smft_jax import schema
from smft_jax.data.sources import json_lines
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows
from smft_jax.data.world import words
from smft_jax.runtime import arguments as arguments_lib

DEFAULT_KIND = 'rewrite'
_QUESTION = 'question'

_NOTHING = 'holds no augmentation; each line is {"source": ..., "text": ...}'
# Finding the nearest of many ids is slow, and a few hints suffice.
_MAX_HINTS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
  """A paraphrase or rewrite of a document or fact.

  Attributes:
    source: Id of the document or fact.
    text: The text, stripped.
    kind: A word for its kind, such as 'paraphrase' or 'timeline'.
    answer: Span of the answer in the text, if one is given.
  """

  source: str
  text: str
  kind: str = DEFAULT_KIND
  answer: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """Contents and problems of a file of augmentations, in lines of text."""

  counts: tuple[str, ...]
  problems: tuple[str, ...]


def read(path: str) -> dict[str, list[Augmentation]]:
  """Reads a file of augmentations.

  Args:
    path: A UTF-8 file whose lines look like `{"source": "a1", "text": "Lisbon
      is ...", "kind": "paraphrase"}`, with an "answer" perhaps, or a "question"
      with its "answer" in place of the text. Blank lines and further keys are
      ignored; the kind may be missing.

  Returns:
    The augmentations of each source, both in the order of the file, repeats
    included.

  Raises:
    UserError: The file is missing or empty, or a line is malformed; the message
      names file and line.
  """
  found = collections.defaultdict(list)
  for number, line in json_lines.numbered(path):
    try:
      augmentation = _augmentation(line)
    except (ValueError, problems_lib.Fault) as error:
      raise schema.UserError(f'{path}:{number}: {error}') from error
    found[augmentation.source].append(augmentation)
  if not found:
    raise schema.UserError(f'{path} {_NOTHING}')
  return dict(found)


def check(path: str, *, sources: str | None = None, least: int = 1) -> Report:
  """Checks a whole file and collects its problems.

  Args:
    path: The file of augmentations.
    sources: A file of JSON lines with the `id` of each document or fact that
      needs texts. None takes the sources that `path` names.
    least: Fewest texts that each source needs.

  Returns:
    Counts such as 'sources: 3', of good lines only: well-formed, with a text
    new to its source, which is one of `sources`. And a line for each problem.

  Raises:
    UserError: A file is missing.
  """
  ids, source_problems = (None, []) if sources is None else _ids(sources)
  # Line and kind of each text, by source and text.
  texts: dict[tuple[str, str], tuple[int, str]] = {}
  problems = []
  hints: dict[str, str] = {}
  lines = duplicates = 0
  for number, line in json_lines.numbered(path):
    lines += 1
    try:
      augmentation = _augmentation(line)
      source = augmentation.source
      if ids is not None and source not in ids:
        if source not in hints and len(hints) < _MAX_HINTS:
          close = schema.nearest(source, ids)
          hints[source] = f'; did you mean {close!r}?' if close else ''
        raise ValueError(
          f'{sources} has no id {source!r}{hints.get(source, "")}'
        )
      key = (source, augmentation.text)
      if key in texts:
        duplicates += 1
        raise ValueError(
          f'{source!r} has the same text in line {texts[key][0]}'
        )
      texts[key] = (number, augmentation.kind)
    except (ValueError, problems_lib.Fault) as error:
      problems.append(f'{path}:{number}: {error}')
  if not lines:
    problems.append(f'{path} {_NOTHING}')
  per_source = collections.Counter(source for source, _ in texts)
  # The line that first names each source.
  first_lines = ids
  if first_lines is None:
    first_lines = {}
    for (source, _), (number, _) in texts.items():
      first_lines.setdefault(source, number)
  too_few = [
    f'{sources or path}:{number}: {source!r} has {per_source[source]} of the'
    f' {least} texts that are wanted'
    for source, number in first_lines.items()
    if per_source[source] < least
  ]
  of = f' of {len(first_lines)}' if sources else ''
  return Report(
    counts=(
      f'lines: {lines}',
      f'sources: {len(per_source)}{of}',
      *_counts(texts, first_lines),
      f'duplicates: {duplicates}',
    ),
    problems=(*problems, *source_problems, *too_few),
  )


def main(argv: Sequence[str]) -> int:
  """Runs the program and returns its exit code, 2 if there are problems."""
  try:
    arguments = _arguments(argv)
    report = check(
      arguments.file, sources=arguments.sources, least=arguments.least
    )
  except (schema.UserError, OSError) as error:
    print(f'error: {schema.one_line(error)}', file=sys.stderr)
    return 2
  for line in (*report.counts, *report.problems):
    print(line)
  total = len(report.problems)
  print(f'{total or "no"} problem{"s" if total > 1 else ""}')
  return 2 if total else 0


def _counts(
  texts: Mapping[tuple[str, str], tuple[int, str]], sources: Iterable[str]
) -> Iterator[str]:
  """Counts texts by kind and by source, and measures their length."""
  by_kind = collections.Counter(kind for _, kind in texts.values())
  for kind, count in sorted(by_kind.items()):
    yield f'{kind}: {count}'
  per_source = collections.Counter(dict.fromkeys(sources, 0))
  per_source.update(source for source, _ in texts)
  if per_source:
    most = max(per_source, key=lambda source: per_source[source])
    fewest = min(per_source, key=lambda source: per_source[source])
    yield f'most of a source: {per_source[most]} ({most})'
    yield f'fewest of a source: {per_source[fewest]} ({fewest})'
  if texts:
    mean = sum(len(text) for _, text in texts) / len(texts)
    yield f'mean length: {mean:.0f} characters'


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
  """Reads the command line."""
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.data.augment',
    description='Checks a file of augmentations.',
  )
  parser.add_argument('command', choices=('check',))
  parser.add_argument('file', help='JSON lines with source, text and kind')
  parser.add_argument(
    '--sources', help='JSON lines with the id of each document or fact'
  )
  parser.add_argument(
    '--least', type=int, default=1, help='fewest texts of a source (default 1)'
  )
  arguments = parser.parse(argv)
  if arguments.least < 0:
    raise schema.UserError(f'--least must be at least 0, not {arguments.least}')
  return arguments


def _augmentation(line: bytes) -> Augmentation:
  """Parses and checks one line."""
  values = json_lines.parse(line)
  is_question = values.get('question') is not None
  kind = values.get('kind', _QUESTION if is_question else DEFAULT_KIND)
  if not isinstance(kind, str) or not kind or kind.split() != [kind]:
    words = kind.split() if isinstance(kind, str) else []
    fitting = f", such as '{'-'.join(words)}'" if words else ''
    raise ValueError(f'kind {kind!r} must be a word without spaces{fitting}')
  source = rows.text(values, 'source')
  text, answer = (_asked if is_question else _told)(values)
  return Augmentation(source=source, text=text, kind=kind, answer=answer)


def _asked(values: Mapping[str, Any]) -> tuple[str, tuple[int, int]]:
  """Returns a question with its answer, and the answer's span."""
  if values.get('text') is not None:
    raise ValueError("there are 'question' and 'text': give one of them")
  question, answer = (
    rows.text(values, name).strip() for name in ('question', 'answer')
  )
  text = f'{words.QUESTION_FORMAT.format(question=question)} {answer}'
  return text, (len(text) - len(answer), len(text))


def _told(values: Mapping[str, Any]) -> tuple[str, tuple[int, int] | None]:
  """Returns a text, and the span of the answer that it ends with, if any."""
  text = rows.text(values, 'text').strip()
  if values.get('answer') is None:
    return text, None
  answer = rows.text(values, 'answer').strip()
  start = text.rfind(answer)
  if start < 1:
    raise ValueError(f'the answer {answer!r} follows nothing in the text')
  return text, (start, start + len(answer))


def _ids(path: str) -> tuple[dict[str, int], list[str]]:
  """Reads the line of each id, and the problems of the file."""
  ids: dict[str, int] = {}
  problems = []
  for number, line in json_lines.numbered(path):
    try:
      fields = json_lines.parse(line)
      rows.find(fields, 'id')
      name = rows.Row(place='', default_id='', fields=fields).id()
      if name in ids:
        raise ValueError(f'id {name!r} repeats line {ids[name]}')
      ids[name] = number
    except (ValueError, problems_lib.Fault) as error:
      problems.append(f'{path}:{number}: {error}')
  if not ids:
    problems.append(f'{path} holds no id; each line is {{"id": ...}}')
  return ids, problems


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
