"""Augmentations from a file: paraphrases and rewrites by any language model.

    python -m smft_jax.data.augment check FILE [--sources=SOURCES.jsonl]
        [--least=N]

A file has one JSON object a line: {"source": "<document or fact id>", "text":
"...", "kind": "paraphrase"}. How to have it written is in
docs/augmentations.md. `check` prints what a file holds and what is wrong with
it.
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
from smft_jax.runtime import arguments as arguments_lib

DEFAULT_KIND = 'rewrite'

_NOTHING = 'holds no augmentation; each line is {"source": ..., "text": ...}'
# To look for the nearest of many ids takes long, and few are read.
_MAX_HINTS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
  """A text that tells a document or a fact once more.

  Attributes:
    source: Id of the document or fact.
    text: The text, without space at its ends.
    kind: How it was made, a word such as 'paraphrase' or 'timeline'.
  """

  source: str
  text: str
  kind: str = DEFAULT_KIND


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """What a file of augmentations holds, and what is wrong with it.

  Attributes:
    counts: Lines such as 'sources: 3', for a person.
    problems: A line for each, with file and line; none for a good file.
  """

  counts: tuple[str, ...]
  problems: tuple[str, ...]


def read(path: str) -> dict[str, list[Augmentation]]:
  """Reads a file of augmentations, blank lines left out.

  Args:
    path: A UTF-8 file whose lines look like `{"source": "a1", "text": "Lisbon
      is ...", "kind": "paraphrase"}`. The kind may be missing, further keys
      are left alone.

  Returns:
    The augmentations of each source, both in the order of the file. Texts that
    the file repeats are repeated.

  Raises:
    UserError: The file is missing or holds no augmentation, or a line is not
      as described; the message names file and line.
  """
  found: dict[str, list[Augmentation]] = {}
  for number, line in json_lines.numbered(path):
    try:
      made = _augmentation(line)
    except (ValueError, problems_lib.Fault) as error:
      raise schema.UserError(f'{path}:{number}: {error}') from error
    found.setdefault(made.source, []).append(made)
  if not found:
    raise schema.UserError(f'{path} {_NOTHING}')
  return found


def check(path: str, *, sources: str | None = None, least: int = 1) -> Report:
  """Looks through a whole file, and does not stop at what is wrong.

  Args:
    path: The file of augmentations.
    sources: A file of JSON lines, each with the `id` of a document or fact:
      those that there are to be texts of. None takes those that `path` names.
    least: Fewest texts that each source is to have.

  Returns:
    Counts and problems. What is counted are good lines: no problem is told of
    them, they repeat no text of their source, and it is one of `sources`.

  Raises:
    UserError: A file is missing.
  """
  ids, of_sources = (None, []) if sources is None else _ids(sources)
  # Line and kind of each text.
  texts: dict[tuple[str, str], tuple[int, str]] = {}
  problems = []
  hints: dict[str, str] = {}
  lines = duplicates = 0
  for number, line in json_lines.numbered(path):
    lines += 1
    try:
      made = _augmentation(line)
      if ids is not None and made.source not in ids:
        if made.source not in hints and len(hints) < _MAX_HINTS:
          hints[made.source] = _did_you_mean(made.source, ids)
        hint = hints.get(made.source, '')
        raise ValueError(f'{sources} has no id {made.source!r}{hint}')
      key = (made.source, made.text)
      if key in texts:
        duplicates += 1
        raise ValueError(
          f'{made.source!r} has the same text in line {texts[key][0]}'
        )
      texts[key] = (number, made.kind)
    except (ValueError, problems_lib.Fault) as error:
      problems.append(f'{path}:{number}: {error}')
  if not lines:
    problems.append(f'{path} {_NOTHING}')
  per_source = collections.Counter(source for source, _ in texts)
  # Where each source is named first.
  named = ids
  if named is None:
    named = {}
    for (source, _), (number, _) in texts.items():
      named.setdefault(source, number)
  too_few = [
    f'{sources or path}:{number}: {source!r} has {per_source[source]} of the'
    f' {least} texts that are wanted'
    for source, number in named.items()
    if per_source[source] < least
  ]
  return Report(
    counts=(
      f'lines: {lines}',
      f'sources: {len(per_source)}' + (f' of {len(named)}' if sources else ''),
      *_counts(texts, named),
      f'duplicates: {duplicates}',
    ),
    problems=(*problems, *of_sources, *too_few),
  )


def main(argv: Sequence[str]) -> int:
  """The program.

  Args:
    argv: The arguments after its name.

  Returns:
    The exit code: 0 for a file without a problem, otherwise 2.
  """
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
  if total:
    print(f'{total} problem{"s" if total > 1 else ""}')
  else:
    print('no problem')
  return 2 if total else 0


def _counts(
  texts: Mapping[tuple[str, str], tuple[int, str]], sources: Iterable[str]
) -> Iterator[str]:
  """What there is of which kind and source, and how long it is."""
  by_kind = collections.Counter(kind for _, kind in texts.values())
  for kind, count in sorted(by_kind.items()):
    yield f'{kind}: {count}'
  per_source = collections.Counter(dict.fromkeys(sources, 0))
  per_source.update(source for source, _ in texts)
  if per_source:
    # The first of those that are alike.
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
    description='Looks through a file of augmentations.',
  )
  parser.add_argument('command', choices=('check',))
  parser.add_argument('file', help='JSON lines with source, text and kind')
  parser.add_argument(
    '--sources', help='JSON lines with the id of each document or fact'
  )
  parser.add_argument(
    '--least',
    type=int,
    default=1,
    help='fewest texts of a source (default 1)',
  )
  arguments = parser.parse(argv)
  if arguments.least < 0:
    raise schema.UserError(f'--least must be at least 0, not {arguments.least}')
  return arguments


def _augmentation(line: bytes) -> Augmentation:
  """Checks one line."""
  values = json_lines.parse(line)
  kind = values.get('kind', DEFAULT_KIND)
  if not isinstance(kind, str) or not kind or kind.split() != [kind]:
    fitting = f", such as '{'-'.join(kind.split())}'" if _is_text(kind) else ''
    raise ValueError(f'kind {kind!r} must be a word without spaces{fitting}')
  return Augmentation(
    source=rows.text(values, 'source'),
    text=rows.text(values, 'text').strip(),
    kind=kind,
  )


def _ids(path: str) -> tuple[dict[str, int], list[str]]:
  """The line of each id, and what is wrong with the file."""
  ids: dict[str, int] = {}
  problems = []
  for number, line in json_lines.numbered(path):
    try:
      name = rows.text(json_lines.parse(line), 'id')
      if name in ids:
        raise ValueError(f'id {name!r} is that of line {ids[name]}')
      ids[name] = number
    except (ValueError, problems_lib.Fault) as error:
      problems.append(f'{path}:{number}: {error}')
  if not ids:
    problems.append(f'{path} holds no id; each line is {{"id": ...}}')
  return ids, problems


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and bool(value.strip())


def _did_you_mean(name: str, choices: Iterable[str]) -> str:
  close = schema.nearest(name, choices)
  return f'; did you mean {close!r}?' if close else ''


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
