"""The texts that a run knows beside its documents: background and replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import functools
import hashlib
import itertools
import json
import typing

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import background as background_lib
from smft_jax import config as config_lib
from smft_jax import method as method_lib
from smft_jax import metrics
from smft_jax import preemption
from smft_jax import schema
from smft_jax.data import batches
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers

if typing.TYPE_CHECKING:
  from smft_jax import base as base_lib


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
  if path.exists():
    return background_lib.load(path, provenance)
  # What a run that was asked to stop had counted.
  unfinished = {
    int(part.suffixes[0][1:]): part
    for part in path.parent.glob(f'{path.stem}.*.npz')
  }
  start = max(unfinished, default=0)
  statistics = None
  if start:
    statistics = background_lib.load(
      unfinished[start], provenance | {'counted': start}
    )
  # Another order than pretraining's: the corpus, not the very batches.
  found = stream(
    texts,
    base.tokenizer,
    experiment.base.max_length,
    batch_size=settings.batch_size,
    seed=experiment.seed + 1,
    start=start,
  )
  with metrics.Progress(
    'background', settings.num_batches, 'batch', start=start
  ) as bar:
    for step in range(start, settings.num_batches):
      batch = next(found)
      counted = background_lib.count(
        base.graphdef, base.params, [batch], document=settings.document
      )
      if statistics is not None:  # whole numbers, so that no order counts
        counted = jax.tree.map(jnp.add, statistics, counted)
      statistics = counted
      bar.update(step + 1, tokens=int(np.sum(batch.mask)))
      if preemption.requested() and step + 1 < settings.num_batches:
        background_lib.save(
          path.with_suffix(f'.{step + 1}.npz'),
          statistics,
          provenance | {'counted': step + 1},
        )
        preemption.check()
  assert statistics is not None
  background_lib.save(path, statistics, provenance)
  for part in unfinished.values():
    part.unlink()
  return statistics


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


def stream(
  texts: Sequence[task_lib.Text],
  tokenizer: tokenizers.Tokenizer,
  max_length: int,
  *,
  batch_size: int,
  seed: int,
  start: int = 0,
) -> Iterator[batches.Batch]:
  """Batches of texts without end, epochs in orders of their own.

  Args:
    texts: The corpus.
    tokenizer: Its tokenizer.
    max_length: Most tokens in a row; longer texts are split.
    batch_size: Rows of a batch.
    seed: What the orders are made from.
    start: Batches to leave out at the beginning.

  Yields:
    Batches, all of one shape.
  """
  rows = batches.tokenize(texts, tokenizer, max_length=max_length)
  length = batches.bucket_length(rows.longest, 4)
  for step in itertools.count(start):
    yield batches.batch_at(
      rows, step, batch_size, seed, length, tokenizer.pad_id
    )


@functools.lru_cache(maxsize=1)
def pretraining_rows(base: base_lib.Base, max_length: int) -> batches.Encoded:
  """What a base was trained on, as rows; runs that share it share them."""
  return batches.tokenize(
    base.task.pretraining, base.tokenizer, max_length=max_length
  )


def _corpus_key(name: str, texts: Sequence[task_lib.Text]) -> str:
  """The name of a corpus; a hash beside it where the base does not fix it."""
  if name == 'pretraining':
    return name
  digest = hashlib.sha256('\0'.join(t.text for t in texts).encode())
  return f'{name} {digest.hexdigest()[:16]}'
