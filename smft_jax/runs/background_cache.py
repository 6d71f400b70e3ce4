"""Document frequencies of the background corpus, cached next to the base.

Several jobs may count a part of the batches each (`python -m
smft_jax.background`); their counts add up to those of one.
"""

from __future__ import annotations

from collections.abc import Iterator
import hashlib
import json
import pathlib
import re
import time

from absl import logging
import jax
import jax.numpy as jnp

from smft_jax import schema
from smft_jax.config import sections
from smft_jax.runs import base as base_lib
from smft_jax.runs import corpus as corpus_lib
from smft_jax.runtime import disk
from smft_jax.runtime import preemption
from smft_jax.runtime import processes
from smft_jax.runtime import progress
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import paths
from smft_jax.training import background as background_lib
from smft_jax.training import count
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib

# Sums of floats are exact below this.
_EXACT = 2**24
# A kill costs the last batches, and what was counted in the last seconds.
_SUMMED = 16
_SAVE_EVERY_S = 60


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
  every = range(settings.num_batches)
  provenance = _provenance(settings, base, max_length, every)
  if settings.counts:
    path, statistics, stored = _given(settings.counts)
    background_lib.check(path, stored, provenance)
    return background_lib.to_floats(statistics)
  digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode())
  path = base.folder / (
    f'background-{settings.document}-{settings.num_batches}x'
    f'{settings.batch_size}-{digest.hexdigest()[:8]}.npz'
  )
  return count_batches(
    settings, base, every, path, max_length=max_length, seed=seed
  )


def count_batches(
  settings: sections.BackgroundConfig,
  base: base_lib.Base,
  batches: range,
  path: pathlib.Path,
  *,
  max_length: int,
  seed: int,
) -> method_lib.Background:
  """Counts some batches of the background into a file.

  A call that was interrupted or killed is resumed by the next one.

  Args:
    settings: The background.
    base: The model.
    batches: Which of its batches, consecutive ones.
    path: The file.
    max_length: Tokens in a row.
    seed: The run's seed.

  Returns:
    The statistics.

  Raises:
    ValueError: If the file has other batches, or those of another model.
  """
  statistics = None
  start = processes.on_main('the background', _counted, path, batches)
  if start > batches.start:
    file = path if start == batches.stop else _partial_path(path, start)
    logging.info('%s has batches %d-%d', file, batches.start, start)
    statistics, stored = background_lib.read(file)
    provenance = _provenance(
      settings, base, max_length, range(batches.start, start)
    )
    background_lib.check(file, stored, provenance)
    if start == batches.stop:
      return background_lib.to_floats(statistics)
  saved_at = time.monotonic()
  for step, recent in _summed(
    settings, base, range(start, batches.stop), max_length, seed
  ):
    found = (recent,) if statistics is None else (statistics, recent)
    statistics = background_lib.total(*found)
    is_last = step + 1 == batches.stop
    stops = preemption.requested() and not is_last
    if is_last or stops or time.monotonic() - saved_at > _SAVE_EVERY_S:
      done = range(batches.start, step + 1)
      provenance = _provenance(settings, base, max_length, done)
      _save(path, batches, step + 1, statistics, provenance)
      saved_at = time.monotonic()
    if stops:
      preemption.check()
  assert statistics is not None
  return background_lib.to_floats(statistics)


def _summed(
  settings: sections.BackgroundConfig,
  base: base_lib.Base,
  steps: range,
  max_length: int,
  seed: int,
) -> Iterator[tuple[int, method_lib.Background]]:
  """Counts batches; yields sums of a few, which are exact, and the last step.

  Every process gets the whole sums, at the same steps.
  """
  corpus = corpus_lib.batches(
    settings,
    base.folder,
    base.task,
    base.tokenizer,
    max_length=max_length,
    seed=seed,
    layout=base.layout,
  )
  config = base.config.memory
  assert config is not None
  layers = len(base.config.memory_layers)
  accesses = corpus.rows.longest * config.num_heads * config.k * layers
  exact = max(1, _EXACT // max(1, settings.batch_size * accesses))
  most = min(exact, _SUMMED)
  recent, num_recent = None, 0
  with progress.Progress(
    'background', settings.num_batches, 'batch', start=steps.start
  ) as bar:
    for step in steps:
      counted = count.background(
        base.graphdef,
        base.params,
        [corpus.batch(step)],
        document=settings.document,
      )
      if recent is not None:
        counted = jax.tree.map(jnp.add, recent, counted)
      recent, num_recent = counted, num_recent + 1
      bar.update(step + 1, tokens=corpus.num_tokens(step))
      is_last = step + 1 == steps.stop
      if is_last or num_recent == most or preemption.requested():
        yield step, jax.tree.map(layout_lib.to_numpy, recent)
        recent, num_recent = None, 0


def check(settings: sections.BackgroundConfig | None) -> None:
  """Checks counts that a config names as far as it can be done without a base.

  Raises:
    UserError: If there is no such file, or it is of other batches.
  """
  if settings is None or not settings.counts:
    return
  path, _, stored = _given(settings.counts)
  wanted = _batches_key(settings, range(settings.num_batches))
  background_lib.check(
    path, {key: stored.get(key, '') for key in wanted}, wanted
  )


def _given(
  name: str,
) -> tuple[pathlib.Path, method_lib.Background, background_lib.Provenance]:
  """Reads the counts that a config names."""
  path = paths.expand(name)
  if not path.is_file():
    raise schema.UserError(f'config.background.counts: there is no file {path}')
  try:
    return path, *background_lib.read(path)
  except ValueError:
    raise schema.UserError(
      f'config.background.counts: {path} is no file of counts'
    ) from None


def _provenance(
  settings: sections.BackgroundConfig,
  base: base_lib.Base,
  max_length: int,
  batches: range,
) -> dict[str, str | int]:
  """Returns everything that the counts of some batches depend on."""
  config = base.config.memory
  assert config is not None
  return {
    'model': base.fingerprint,
    'corpus': _corpus_key(settings.corpus, base),
    'max_length': max_length,
    'heads': config.num_heads,
    'k': config.k,
    **_batches_key(settings, batches),
  }


def _batches_key(
  settings: sections.BackgroundConfig, batches: range
) -> dict[str, str | int]:
  """Returns what the settings alone say of the counts of some batches."""
  return {
    'document': settings.document,
    'num_batches': settings.num_batches,
    'batch_size': settings.batch_size,
    'batches': f'{batches.start}-{batches.stop}',
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
  batches: range,
  counted: int,
  statistics: method_lib.Background,
  provenance: background_lib.Provenance,
) -> None:
  """Writes what was counted so far, in process 0."""
  if not processes.is_main():
    return
  into = path if counted == batches.stop else _partial_path(path, counted)
  try:
    background_lib.save(into, statistics, provenance)
    # A kill just here leaves two. Another run may have counted the same.
    for file in _partial(path).values():
      if file != into:
        file.unlink(missing_ok=True)
  except OSError as error:
    if error.errno in disk.FULL:
      raise
    logging.warning('%s is not kept: %s', into, error.strerror)


def _counted(path: pathlib.Path, batches: range) -> int:
  """Returns the first batch that the stored counts lack."""
  if path.exists():
    return batches.stop
  return max((n for n in _partial(path) if n in batches), default=batches.start)


def _partial_path(path: pathlib.Path, counted: int) -> pathlib.Path:
  """Returns the file of an interrupted count, up to a batch."""
  return path.with_name(f'.{path.name}.to-{counted}')


def _partial(path: pathlib.Path) -> dict[int, pathlib.Path]:
  """Returns the files of interrupted counts, by the first batch they lack."""
  named = re.compile(re.escape(_partial_path(path, 0).name[:-1]) + r'(\d+)')
  found = {named.fullmatch(file.name): file for file in path.parent.iterdir()}
  return {int(match[1]): file for match, file in found.items() if match}
