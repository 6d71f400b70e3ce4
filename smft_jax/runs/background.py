"""The texts that a run knows beside its documents: background and replay.

Texts are encoded once a base: their rows lie in its folder, `tokens-*.npz`.
"""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import json
import pathlib
import typing

import jax
import jax.numpy as jnp

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import stream as stream_lib
from smft_jax.data import task as task_lib
from smft_jax.data import token_cache
from smft_jax.runtime import preemption
from smft_jax.runtime import processes
from smft_jax.runtime import progress
from smft_jax.sharded import layout as layout_lib
from smft_jax.training import background as background_lib
from smft_jax.training import method as method_lib

if typing.TYPE_CHECKING:
  from smft_jax.runs import base as base_lib


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
  corpus = stream_lib.Batches(
    rows=token_cache.tokenized(
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
        [corpus.batch(step)],
        document=settings.document,
      )
      if statistics is not None:  # whole numbers, so that no order counts
        counted = jax.tree.map(jnp.add, statistics, counted)
      statistics = counted
      bar.update(step + 1, tokens=corpus.num_tokens(step))
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
  whole = jax.tree.map(layout_lib.to_numpy, statistics)
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


def _corpus_key(name: str, texts: Sequence[task_lib.Text]) -> str:
  """The name of a corpus; a hash beside it where the base does not fix it."""
  if name == 'pretraining':
    return name
  digest = hashlib.sha256('\0'.join(t.text for t in texts).encode())
  return f'{name} {digest.hexdigest()[:16]}'
