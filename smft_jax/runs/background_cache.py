"""Document frequencies of the background corpus, cached next to the base."""

from __future__ import annotations

import hashlib
import json
import pathlib

from absl import logging
import jax
import jax.numpy as jnp

from smft_jax.config import sections
from smft_jax.data import stream as stream_lib
from smft_jax.runs import base as base_lib
from smft_jax.runs import corpus as corpus_lib
from smft_jax.runtime import disk
from smft_jax.runtime import preemption
from smft_jax.runtime import processes
from smft_jax.runtime import progress
from smft_jax.sharded import layout as layout_lib
from smft_jax.training import background as background_lib
from smft_jax.training import count
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib


def find_or_count(
  settings: sections.BackgroundConfig | None,
  base: base_lib.Base,
  *,
  max_length: int,
  seed: int,
) -> method_lib.Background:
  """Reads a base's background statistics from the cache, or counts them.

  A count that is interrupted is resumed by the next call.

  Args:
    settings: The background; None if the ranking reads no document frequencies.
    base: The model.
    max_length: Tokens in a row.
    seed: The run's seed.

  Returns:
    The statistics; of no documents without settings.

  Raises:
    ValueError: If there is no such corpus, or stored statistics are of another
      model.
  """
  if settings is None:
    num_slots = state_lib.value_table(base.params).shape[0]
    return method_lib.Background(jnp.zeros(num_slots), jnp.zeros(()))
  provenance = _provenance(settings, base, max_length)
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
  corpus = corpus_lib.batches(
    settings,
    base.folder,
    base.task,
    base.tokenizer,
    max_length=max_length,
    seed=seed,
    layout=base.layout,
  )
  return _count(settings, base, corpus, path, provenance, start)


def _count(
  settings: sections.BackgroundConfig,
  base: base_lib.Base,
  corpus: stream_lib.Batches,
  path: pathlib.Path,
  provenance: dict[str, str | int],
  start: int,
) -> method_lib.Background:
  """Counts the batches from `start` on, and saves the sum."""
  statistics = None
  if start:
    statistics = background_lib.load(
      _partial_path(path, start), provenance | {'counted': start}
    )
  with progress.Progress(
    'background', settings.num_batches, 'batch', start=start
  ) as bar:
    for step in range(start, settings.num_batches):
      counted = count.background(
        base.graphdef,
        base.params,
        [corpus.batch(step)],
        document=settings.document,
      )
      if statistics is not None:  # whole numbers, exact in any order
        counted = jax.tree.map(jnp.add, statistics, counted)
      statistics = counted
      bar.update(step + 1, tokens=corpus.num_tokens(step))
      if preemption.requested() and step + 1 < settings.num_batches:
        _save(
          _partial_path(path, step + 1),
          statistics,
          provenance | {'counted': step + 1},
        )
        preemption.check()
  assert statistics is not None
  _save(path, statistics, provenance)
  if start and processes.is_main():
    # Another run may have counted the same.
    _partial_path(path, start).unlink(missing_ok=True)
  return statistics


def _provenance(
  settings: sections.BackgroundConfig, base: base_lib.Base, max_length: int
) -> dict[str, str | int]:
  """Returns everything that the counts depend on."""
  config = base.config.memory
  assert config is not None
  return {
    'model': base.fingerprint,
    'corpus': _corpus_key(settings.corpus, base),
    'document': settings.document,
    'num_batches': settings.num_batches,
    'batch_size': settings.batch_size,
    'max_length': max_length,
    'heads': config.num_heads,
    'k': config.k,
  }


def _corpus_key(name: str, base: base_lib.Base) -> str:
  """Returns a corpus's name, with a hash unless the base fixes its texts."""
  if name == 'pretraining':
    return name
  found = corpus_lib.find(name, base.task)
  if found.prepared is not None:
    return f'prepared {found.prepared.fingerprint()[:16]}'
  digest = hashlib.sha256('\0'.join(t.text for t in found.texts).encode())
  return f'{name} {digest.hexdigest()[:16]}'


def _save(
  path: pathlib.Path,
  statistics: method_lib.Background,
  provenance: dict[str, str | int],
) -> None:
  """Writes the statistics, which processes may hold in parts."""
  whole = jax.tree.map(layout_lib.to_numpy, statistics)
  if not processes.is_main():
    return
  try:
    background_lib.save(path, whole, provenance)
  except OSError as error:
    if error.errno in disk.FULL:
      raise
    logging.warning('%s is not kept: %s', path, error.strerror)


def _batches_counted(path: pathlib.Path, num_batches: int) -> int:
  """Returns how many batches the stored counts cover."""
  if path.exists():
    return num_batches
  parts = path.parent.glob(f'{path.stem}.*.npz')
  return max((int(part.suffixes[0][1:]) for part in parts), default=0)


def _partial_path(path: pathlib.Path, counted: int) -> pathlib.Path:
  """Returns the file of an interrupted count."""
  return path.with_suffix(f'.{counted}.npz')
