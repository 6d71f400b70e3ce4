"""Writes a folder of prepared rows, or what is missing of it.

The texts are read once, in order, piece by piece. A shard ends with the piece
that fills it, so it depends on the text with which it begins and on nothing
before. Of a folder that is not finished, or damaged, whole shards are kept:
their texts are read and passed over.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import itertools
import os
import pathlib
import time
from typing import Any

from absl import logging

from smft_jax import schema
from smft_jax.data import prepared
from smft_jax.data import shard as shard_lib
from smft_jax.data import tokenizers
from smft_jax.data.sources import files
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources as sources_lib
from smft_jax.prepare import work
from smft_jax.runtime import preemption
from smft_jax.store import manifest
from smft_jax.store import paths

SHARD_TOKENS = 2**26
PIECE_CHARS = 2**20
# Tokenising takes some hundred bytes for each character.
_MOST_CHARS = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What to prepare.

  Attributes:
    out: The folder.
    sources: Sources of running text, see `data.sources`.
    tokenizer: The tokenizer.
    max_length: Most tokens in a row; longer texts are split.
    packed: Whether several short texts share a row.
    data_dir: The TFDS data directory; '' for none.
    bad_input: Whether to refuse a bad row of a source, or to skip it.
    workers: Processes that tokenise.
  """

  out: pathlib.Path
  sources: tuple[str, ...]
  tokenizer: tokenizers.Tokenizer
  max_length: int
  packed: bool = False
  data_dir: str = ''
  bad_input: problems_lib.Policy = 'refuse'
  workers: int = 1

  def reader(self) -> sources_lib.Reader:
    """Returns what reads the sources."""
    return sources_lib.Reader(
      problems_lib.Problems(self.bad_input), self.data_dir, '--data_dir'
    )

  def identity(self) -> dict[str, Any]:
    """Returns all that the rows depend on, as prepared.json has it."""
    return {
      'tokenizer': self.tokenizer.fingerprint(),
      'vocab_size': self.tokenizer.vocab_size,
      'max_length': self.max_length,
      'packed': self.packed,
      'bad_input': self.bad_input,
      'sources': [[name, _num_bytes(name)] for name in self.sources],
    }


def check(plan: Plan) -> list[dict[str, Any]]:
  """Checks all that can be checked before anything is written.

  Returns:
    The shards that the folder says it has; none if it is new.

  Raises:
    UserError: A source cannot be read or has no text, or the folder holds
      something else.
  """
  for name in plan.sources:
    source = paths.expand(name).resolve()
    if source.is_dir() and plan.out.resolve().is_relative_to(source):
      raise schema.UserError(
        f'--out={plan.out} is in the source {name}, which would then hold it,'
        ' too: choose a folder outside'
      )
    next(plan.reader().each_text(name))
  file = plan.out / prepared.MANIFEST
  if not file.exists():
    _check_empty(plan.out)
    return []
  try:
    stored = manifest.unseal(file)
    shards = stored['shards']
  except (manifest.Damaged, LookupError) as error:
    raise schema.UserError(
      f'{error}: remove {plan.out}, or choose another --out'
    ) from None
  for key, value in plan.identity().items():
    if stored.get(key) != value:
      raise schema.UserError(
        f'{plan.out} holds rows prepared with {key} = {stored.get(key)!r}, not'
        f' {value!r}: choose another --out'
      )
  return shards


def write(plan: Plan, stored: Sequence[dict[str, Any]]) -> prepared.Prepared:
  """Writes the shards that are missing, and reads the whole.

  Args:
    plan: What to prepare.
    stored: From `check`.

  Returns:
    The rows.

  Raises:
    UserError: A row of a source is bad, or a source has changed.
  """
  facts = plan.identity() | {'finished': False, 'shards': list(stored)}
  is_whole = [_is_whole(plan.out, entry) for entry in stored]
  file = plan.out / prepared.MANIFEST
  if stored and all(is_whole) and manifest.unseal(file)['finished']:
    logging.info('%s holds these rows, and no byte is wrong', plan.out)
    return prepared.read(plan.out)
  manifest.seal(file, facts)
  plan.tokenizer.write(plan.out)
  reader = plan.reader()
  texts = _Texts(reader, plan.sources)
  index = 0
  for whole, group in itertools.groupby(
    range(len(stored)), is_whole.__getitem__
  ):
    entries = [stored[i] for i in group]
    mine = itertools.islice(texts, sum(entry['texts'] for entry in entries))
    if whole:
      logging.info('%d shards are there', len(entries))
      collections.deque(mine, maxlen=0)
    else:
      _write_shards(plan, facts, mine, texts.count, index)
    index += len(entries)
  _write_shards(plan, facts, texts, texts.count, index)
  facts |= {'finished': True, **reader.problems.record()}
  manifest.seal(file, facts)
  return prepared.read(plan.out)


class _Texts:
  """The texts of all sources, counted.

  Attributes:
    count: Texts read so far.
  """

  def __init__(self, reader: sources_lib.Reader, names: Iterable[str]):
    self._texts = self._read(reader, names)
    self.count = 0

  def __iter__(self) -> Iterator[str]:
    return self

  def __next__(self) -> str:
    text = next(self._texts)
    self.count += 1
    return text

  def _read(self, reader, names) -> Iterator[str]:
    for name in names:
      for document in reader.each_text(name):
        if len(document.text) > _MOST_CHARS:
          fault = problems_lib.Fault(
            'too_long',
            f'a text of {len(document.text)} characters, more than'
            f' {_MOST_CHARS}: split it into several documents, such as the'
            ' lines of a .jsonl file',
          )
          reader.problems.report(fault, f'{name}, {document.id}')
        else:
          yield document.text


def _write_shards(
  plan: Plan,
  facts: dict[str, Any],
  texts: Iterable[str],
  first: int,
  index: int,
) -> None:
  """Writes shards from number `index` on; enters each into prepared.json."""
  form = work.Form(
    tokenizer=plan.out, max_length=plan.max_length, packed=plan.packed
  )
  pieces = _pieces(texts, first)
  began, num_tokens = time.monotonic(), 0
  with contextlib.closing(
    work.tokenize_all(pieces, form, plan.workers)
  ) as parts:
    for part in parts:
      entry = _write_shard(plan.out / prepared.file_name(index), part, parts)
      if facts['shards'][index : index + 1] not in ([], [entry]):
        raise schema.UserError(
          f'{", ".join(plan.sources)}: the texts have changed since'
          f' {entry["file"]} was made: remove {plan.out}, or choose another'
          ' --out'
        )
      facts['shards'][index : index + 1] = [entry]
      manifest.seal(plan.out / prepared.MANIFEST, facts)
      index += 1
      num_tokens += entry['tokens']
      logging.info(
        '%s: %d texts, %d rows, %d tokens; %.0f tokens/s',
        *(entry[key] for key in ('file', 'texts', 'rows', 'tokens')),
        num_tokens / (time.monotonic() - began),
      )


def _write_shard(
  path: pathlib.Path, first: work.Tokenized, more: Iterator[work.Tokenized]
) -> dict[str, Any]:
  """Writes a shard of a part, and of more until it is full.

  Returns:
    Its entry in prepared.json.
  """
  file, num_tokens, num_texts = shard_lib.Writer(path), 0, 0
  try:
    for part in itertools.chain([first], more):
      preemption.check()
      file.write(part.records, part.lengths)
      num_tokens += int(part.lengths.sum())
      num_texts += part.num_texts
      if num_tokens >= SHARD_TOKENS:
        break
    return file.finish() | {'texts': num_texts}
  except BaseException:
    file.abandon()
    raise


def _pieces(texts: Iterable[str], first: int) -> Iterator[work.Piece]:
  """Groups texts by their numbers of characters."""
  gathered: list[str] = []
  size = 0
  for text in texts:
    gathered.append(text)
    size += len(text)
    if size >= PIECE_CHARS:
      yield work.Piece(first, gathered)
      first += len(gathered)
      gathered, size = [], 0
  if gathered:
    yield work.Piece(first, gathered)


def _is_whole(folder: pathlib.Path, entry: dict[str, Any]) -> bool:
  """Returns whether a shard has the bytes that it should have."""
  file = folder / entry['file']
  if not file.is_file() or shard_lib.checksum(file) != entry['sha256']:
    logging.warning('%s is missing or damaged, and made again', file)
    return False
  return True


def _check_empty(out: pathlib.Path) -> None:
  if out.exists() and not out.is_dir():
    raise schema.UserError(f'{out} is a file: choose another --out')
  names = sorted(
    # Hidden ones are files that a killed run left unfinished.
    name
    for name in (os.listdir(out) if out.exists() else [])
    if not name.startswith('.')
  )
  if names:
    raise schema.UserError(
      f'{out} holds something else, such as {names[0]}: choose another --out'
    )


def _num_bytes(name: str) -> int | None:
  """Returns the size of a source's files; None for a data set."""
  path = paths.expand(name)
  if path.is_dir():
    return sum(file.stat().st_size for file in files.below(path)[0])
  return path.stat().st_size if path.is_file() else None
