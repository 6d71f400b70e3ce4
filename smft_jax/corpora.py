"""The texts that a run knows beside its documents: background and replay.

Texts are encoded once a base: their rows lie in its folder, `tokens-*.npz`.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import json
import pathlib
import typing
import zipfile

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import background as background_lib
from smft_jax import config as config_lib
from smft_jax import feed
from smft_jax import method as method_lib
from smft_jax import preemption
from smft_jax import processes
from smft_jax import progress
from smft_jax import schema
from smft_jax import sharding
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers

if typing.TYPE_CHECKING:
  from smft_jax import base as base_lib

# Raise it where `encoding.tokenize` changes: rows that are stored do not.
_TOKENS_FORMAT = 1

# What is stored of rows.
_ARRAYS = ('tokens', 'loss_weights', 'starts', 'sources')

# What reading a damaged archive may raise.
_DAMAGE = (
  OSError,
  KeyError,
  ValueError,
  EOFError,
  RuntimeError,
  zipfile.BadZipFile,
)


def background(
  experiment: config_lib.Experiment, base: base_lib.Base
) -> method_lib.Background:
  """Document frequencies over the background corpus, counted once a base.

  Args:
    experiment: The run's config.
    base: The model.

  Returns:
    The statistics; of no documents for a config without a background, which
    is one whose ranking does not look at them.

  Raises:
    ValueError: If there is no such corpus, or stored statistics belong to
      another model.
  """
  settings = experiment.background
  if settings is None:
    return method_lib.Background(
      jnp.zeros(experiment.memory.num_slots), jnp.zeros(())
    )
  texts = texts_of(experiment, base.task)
  provenance: dict[str, str | int] = {
    'model': base.fingerprint,
    'corpus': _corpus_key(settings.corpus, texts),
    'document': settings.document,
    'num_batches': settings.num_batches,
    'batch_size': settings.batch_size,
    'max_length': experiment.base.max_length,
    'heads': experiment.memory.num_heads,
    'k': experiment.memory.k,
  }
  digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode())
  path = base.folder / (
    f'background-{settings.document}-{settings.num_batches}x'
    f'{settings.batch_size}-{digest.hexdigest()[:8]}.npz'
  )
  start = processes.on_main(
    'the background', _batches_counted, path, settings.num_batches
  )
  if start == settings.num_batches:
    return background_lib.load(path, provenance)
  statistics = None
  if start:
    statistics = background_lib.load(
      _unfinished(path, start), provenance | {'counted': start}
    )
  # Another order than pretraining's: the corpus, not the very batches.
  corpus = Batches(
    rows=tokenized(
      base.folder, texts, base.tokenizer, experiment.base.max_length
    ),
    batch_size=settings.batch_size,
    seed=experiment.seed + 1,
    pad_id=base.tokenizer.pad_id,
    layout=base.layout,
  )
  with progress.Progress(
    'background', settings.num_batches, 'batch', start=start
  ) as bar:
    for step in range(start, settings.num_batches):
      counted = background_lib.count(
        base.graphdef,
        base.params,
        [corpus.at(step)],
        document=settings.document,
      )
      if statistics is not None:  # whole numbers, so that no order counts
        counted = jax.tree.map(jnp.add, statistics, counted)
      statistics = counted
      bar.update(step + 1, tokens=corpus.tokens(corpus.rows_at(step)))
      if preemption.requested() and step + 1 < settings.num_batches:
        _save(
          _unfinished(path, step + 1),
          statistics,
          provenance | {'counted': step + 1},
        )
        preemption.check()
  assert statistics is not None
  _save(path, statistics, provenance)
  if start and processes.is_main():
    _unfinished(path, start).unlink()
  return statistics


def _save(
  path: pathlib.Path,
  statistics: method_lib.Background,
  provenance: dict[str, str | int],
) -> None:
  """Writes the statistics, which may lie in parts with many processes."""
  whole = jax.tree.map(sharding.to_numpy, statistics)
  if processes.is_main():
    background_lib.save(path, whole, provenance)


def _batches_counted(path: pathlib.Path, num_batches: int) -> int:
  """Batches whose counts are stored: all, or those a stopped run came to."""
  if path.exists():
    return num_batches
  parts = path.parent.glob(f'{path.stem}.*.npz')
  return max((int(part.suffixes[0][1:]) for part in parts), default=0)


def _unfinished(path: pathlib.Path, counted: int) -> pathlib.Path:
  """Where the counts of so many batches are kept, until all are there."""
  return path.with_suffix(f'.{counted}.npz')


def texts_of(
  experiment: config_lib.Experiment, task: task_lib.Task
) -> tuple[task_lib.Text, ...]:
  """The texts of `config.background.corpus`.

  Raises:
    UserError: If there is no such corpus.
  """
  assert experiment.background is not None
  found = {
    'pretraining': task.pretraining,
    'stream': tuple(t for d in task.documents for t in d.augmentations),
    **task.texts,
  }
  name = experiment.background.corpus
  return found[schema.one_of('config.background.corpus', name, found)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batches:
  """Batches of rows without end, epochs in orders of their own.

  Attributes:
    rows: What to draw from.
    batch_size: Rows of a batch.
    seed: What the orders are made from.
    pad_id: Token that fills the padding.
    layout: The mesh whose replicas split a batch; None without one.
  """

  rows: encoding.Encoded
  batch_size: int
  seed: int
  pad_id: int
  layout: sharding.Layout | None = None

  def at(self, step: int) -> batches.Batch:
    """The batch of a step. Each process makes its own part of it."""
    length = batches.bucket_length(self.rows.longest, 4)
    part = batches.batch_at(
      self.rows,
      step,
      self.batch_size,
      self.seed,
      length,
      self.pad_id,
      here=feed.rows_here(self.layout, self.batch_size),
    )
    return feed.assemble(self.layout, part, self.batch_size)

  def rows_at(self, step: int) -> np.ndarray:
    """Which rows the batch of a step has, int [B]."""
    return batches.rows_at(len(self.rows), step, self.batch_size, self.seed)

  def tokens(self, chosen: np.ndarray) -> int:
    """Tokens in these rows."""
    return int(np.sum(self.rows.lengths[chosen]))


@functools.lru_cache(maxsize=1)
def pretraining_rows(base: base_lib.Base, max_length: int) -> encoding.Encoded:
  """What a base was trained on, as rows; runs that share it share them."""
  return tokenized(
    base.folder, base.task.pretraining, base.tokenizer, max_length
  )


def tokenized(
  folder: pathlib.Path,
  texts: Sequence[task_lib.Text],
  tokenizer: tokenizers.Tokenizer,
  max_length: int,
) -> encoding.Encoded:
  """Texts as rows with weights of 1, from a base's folder or made for it.

  The file is named by a hash of all that the rows depend on. It is no harm if a
  process does not see what process 0 wrote: it makes the same rows.

  Args:
    folder: The base's, where the rows are kept.
    texts: What to encode.
    tokenizer: As for `encoding.tokenize`.
    max_length: As for `encoding.tokenize`.

  Returns:
    What `encoding.tokenize` gives.
  """
  parts = [_TOKENS_FORMAT, tokenizer.fingerprint(), max_length]
  contents = json.dumps([*parts, *(text.text for text in texts)])
  digest = hashlib.sha256(contents.encode()).hexdigest()
  path = folder / f'tokens-{digest[:16]}.npz'
  rows = _load_rows(path)
  if rows is None:
    logging.info('tokenizing %d texts', len(texts))
    rows = encoding.tokenize(texts, tokenizer, max_length=max_length)
    if processes.is_main():
      _save_rows(path, rows)
  return rows


def _load_rows(path: pathlib.Path) -> encoding.Encoded | None:
  """The rows of a file; None if it is not there, or damaged."""
  if not path.exists():
    return None
  try:
    with open(path, 'rb') as file, np.load(file) as arrays:
      return encoding.Encoded(**{name: arrays[name] for name in _ARRAYS})
  except _DAMAGE as error:
    logging.warning('%s is damaged, and made again: %s', path, error)
    return None


def _save_rows(path: pathlib.Path, rows: encoding.Encoded) -> None:
  """Writes a file so that it is there whole or not at all."""
  partial = path.with_name(path.name + '.partial')
  try:
    with partial.open('wb') as file:
      np.savez(file, **{name: getattr(rows, name) for name in _ARRAYS})
    partial.replace(path)
  finally:  # as where the disk is full
    partial.unlink(missing_ok=True)


def _corpus_key(name: str, texts: Sequence[task_lib.Text]) -> str:
  """The name of a corpus; a hash beside it where the base does not fix it."""
  if name == 'pretraining':
    return name
  digest = hashlib.sha256('\0'.join(t.text for t in texts).encode())
  return f'{name} {digest.hexdigest()[:16]}'
