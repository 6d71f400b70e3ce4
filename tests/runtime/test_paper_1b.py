"""configs/paper_1b.py, as launch/README.md runs it, on eight CPU devices."""

import itertools
import json
import signal

import numpy as np
import pytest

from smft_jax import background
from smft_jax.data import prepared
from smft_jax.runtime import program as program_lib
from smft_jax.store import records as records_lib
from smft_jax.training import background as background_lib
from tests.support import many_processes
from tests.support import prepared_rows
from tests.support import process_results
from tests.support import repository

CONFIG = repository.ROOT / 'configs' / 'paper_1b.py:tiny'
MESH = ('--config.mesh.data=2', '--config.mesh.memory=4')
BASE_ONLY = ('--config.stream=none', '--config.background=none')
STEP = 'smft_jax.training.step.train_step'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder with texts, rows prepared from them, facts, and held-out text."""
  folder = tmp_path_factory.mktemp('paper')
  prepared_rows.make(folder, '--max_length=32', count=300)
  prepared_rows.write_texts(
    folder / 'held_out.jsonl', prepared_rows.texts(10, seed=1)
  )
  words = itertools.combinations(prepared_rows.WORDS, 2)
  facts = [
    {
      'id': f'{hill}-{lane}',
      'text': f'{hill} {lane} rain {sea}.',
      'questions': [{'question': f'{hill} {lane} rain', 'answers': [sea]}],
    }
    for (hill, lane), sea in zip(words, prepared_rows.WORDS[:4], strict=False)
  ]
  lines = [f'{json.dumps(fact)}\n' for fact in facts]
  (folder / 'facts.jsonl').write_text(''.join(lines))
  return folder


def flags_of(root, cache):
  return (
    f'--config.data.running_text={root}/rows',
    f'--config.data.held_out_text={root}/held_out.jsonl',
    f'--config.data.documents_file={root}/facts.jsonl',
    f'--config.base.cache_dir={cache}',
    '--config.stream.micro_batch_size=4',
  )


def losses(workdir, event):
  return [
    record['loss']
    for record in records_lib.read_records(workdir)
    if record['event'] == event
  ]


def base_of(cache):
  [folder] = cache.glob('base-text-*')
  return folder


def count_of(cache):
  [path] = base_of(cache).glob('background-*.npz')
  return path


@pytest.mark.slow
def test_from_shards_to_facts_with_a_process_lost_at_every_stage(
  root, tmp_path, monkeypatch
):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'compiled'))
  # Threads of XLA. A device that waits for others holds one, so that as many as
  # devices, which it takes on few cores, can all wait for what none computes.
  monkeypatch.setenv('NPROC', '16')
  assert len(prepared.read(root / 'rows').facts['shards']) > 2
  whole, kept = tmp_path / 'whole', tmp_path / 'kept'

  def start(workdir, *more, cache='cache', processes=2, devices=8, **named):
    return many_processes.run(
      *(CONFIG, tmp_path / workdir, processes),
      *(*flags_of(root, tmp_path / cache), *more),
      devices=devices,
      **named,
    )

  def ends(*arguments, **named):
    process_results.succeeded(start(*arguments, **named))

  def loses_one(victim, program, place, call, *arguments, **named):
    own = {victim: (f'tests.support.{program}', 'SIGKILL', place, str(call))}
    ended = start(*arguments, '--limit_s=25', **named, own=own)
    assert ended[victim][0] == -signal.SIGKILL, ended
    assert ended[1 - victim][0] not in (0, 2), ended

  # Undisturbed, by one command.
  ends('whole', *MESH, cache='whole-cache')
  assert process_results.results_of(whole)['method'] == 'sparse_memory'

  # Pretraining; the checkpoint of step 4 is resumed.
  pretraining = ('base', *MESH, *BASE_ONLY)
  loses_one(1, 'stopped_run', STEP, 7, *pretraining)
  ends(*pretraining)
  assert losses(tmp_path / 'base', 'pretrain') == losses(whole, 'pretrain')

  # Counting, by two jobs.
  counting = ('smft_jax.background', 'count')
  parts = [tmp_path / f'{part}.npz' for part in range(2)]
  jobs = [
    ('none', *MESH, f'--part={part}/2', f'--out={path}')
    for part, path in enumerate(parts)
  ]
  batch = 'smft_jax.training.count.background'
  loses_one(0, 'stopped_count', batch, 3, *jobs[0], module=counting)
  assert (tmp_path / '.0.npz.to-2').is_file()
  for job in jobs:
    ends(*job, module=counting)
  counts = tmp_path / 'counts.npz'
  merged = ['merge', f'--out={counts}', *map(str, parts)]
  assert program_lib.run(background.main, merged) == 0
  _, provenance = background_lib.read(counts)
  assert provenance['batches'] == '0-6'
  assert counts.read_bytes() == count_of(tmp_path / 'whole-cache').read_bytes()

  # The stream, saved after two facts; the others are learned on half of the
  # devices, by one process.
  given = f'--config.background.counts={counts}'
  loses_one(0, 'stopped_run', STEP, 4, 'kept', *MESH, given)
  assert losses(kept, 'stream') == losses(whole, 'stream')[:3]
  other = '--config.mesh.data=1', '--config.mesh.memory=4'
  ends('kept', *other, given, processes=1, devices=4)
  assert not list(base_of(tmp_path / 'cache').glob('*background*'))
  found, expected = losses(kept, 'stream'), losses(whole, 'stream')
  assert len(found) == 4
  assert found[:2] == expected[:2]
  # In bfloat16, which other sums round differently.
  np.testing.assert_allclose(found, expected, rtol=2e-2)
  results = process_results.results_of(kept)
  assert results['steps'] == 4
  assert results['slots_updated'] > 20
