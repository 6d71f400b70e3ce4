"""A run that is disturbed again and again must end as one left alone.

  python -m benchmarks.soak [--minutes M] [--seed S] [--out FILE.json]

A small run on a stream of documents is first made undisturbed. The same run is
then started over and over, and each time one thing goes wrong: a signal, a full
disk, a cache that cannot be written, a flipped bit in the newest checkpoint, a
clock that jumps, a second run in the same workdir. It must resume each time and
end with the same arrays. Then comes the next run, with another seed, until the
minutes are over. Prints how often each thing happened, and what it cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from smft_jax import schema
from smft_jax import train
from smft_jax.runtime import arguments
from smft_jax.runtime import program
from smft_jax.store import atomic
from smft_jax.store import paths

FAULTS = (
  'SIGTERM',
  'SIGKILL',
  'full disk',
  'cache not writable',
  'flipped bit',
  'clock jumps',
  'second run',
)
_DOCUMENTS = 20
# A start is ended after such a share of the time that an undisturbed run takes.
# The shortest end it before its first document.
_LIFE = (0.1, 0.8)
_CONFIG = """
from ml_collections import config_dict

def get_config():
  return config_dict.ConfigDict(dict(
    seed={seed},
    data=dict(
      kind='world', num_known=20, num_new={documents}, num_never_seen=5,
      general_sentences=50, general_test_sentences=10,
    ),
    model=dict(
      num_layers=2, model_dim=64, num_heads=4, num_kv_heads=2, head_dim=16,
      ffn_dim=128, memory_layers=(1,),
    ),
    memory=dict(num_slots=4096, value_dim=64, num_heads=2, k=8, key_dim=16),
    base=dict(
      steps=50, batch_size=16, learning_rate=1e-3, value_learning_rate=1e-2,
      max_length=32, checkpoint_every=10,
    ),
    background=dict(num_batches=8, batch_size=16),
    stream=dict(steps_per_document=200, batch_size=16, checkpoint_every=1),
    method=dict(name='sparse_memory', t=100, optimizer='adam'),
    evaluation=dict(
      every_documents=10**6, batch_size=32, max_entries=20, max_answer_tokens=3,
    ),
  ))
"""


@dataclasses.dataclass
class Life:
  """One start of the run.

  Attributes:
    fault: What went wrong.
    seconds: How long it lasted.
    documents: Documents that it brought the run forward.
  """

  fault: str
  seconds: float
  documents: int


class Run:
  """A run in a folder, started as often as it takes."""

  def __init__(self, folder: pathlib.Path, name: str, config: pathlib.Path):
    self.workdir = folder / name
    self.cache = folder / f'cache of {name}'
    self._flags = [
      f'--config={config}',
      f'--workdir={self.workdir}',
      f'--config.base.cache_dir={self.cache}',
    ]

  def start(
    self, offset: float = 0.0, cache: str = '', most_bytes: int | None = None
  ) -> subprocess.Popen:
    """Starts it in a process of its own.

    Args:
      offset: Seconds by which its clock is wrong.
      cache: A folder into which it cannot write.
      most_bytes: Size at which its disk is full, for a file.
    """

    def limit():
      if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.Popen(
      [sys.executable, '-m', 'benchmarks.soak', '--child', str(offset), cache]
      + self._flags,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      preexec_fn=limit,
    )

  @property
  def documents(self) -> int:
    """Documents learned."""
    file = self.workdir / 'metrics.jsonl'
    lines = file.read_text().splitlines() if file.exists() else []
    return sum('"event": "stream"' in line for line in lines)

  @property
  def is_done(self) -> bool:
    """Whether it has its results."""
    return (self.workdir / 'results.json').exists()

  def newest(self) -> pathlib.Path | None:
    """The folder of the newest checkpoint."""
    steps = [p for p in self.workdir.glob('*/*') if p.name.isdigit()]
    return max(steps, key=lambda p: int(p.name), default=None)

  def arrays(self) -> dict[str, Any]:
    """Shape and checksum of each array at the end."""
    newest = self.newest()
    assert newest is not None
    return json.loads((newest / 'manifest.json').read_text())['arrays']


def disturb(run: Run, fault: str, rng: random.Random, whole_s: float) -> Life:
  """Starts a run and lets something go wrong.

  Args:
    run: The run.
    fault: One of FAULTS.
    rng: Chooses when, and how bad it is.
    whole_s: Seconds that the run takes if nothing goes wrong.

  Raises:
    AssertionError: If it ended in another way than it should.
  """
  before, began = run.documents, time.monotonic()
  if fault == 'flipped bit':
    _flip(run.newest(), rng)
  full = rng.randrange(2_000, 200_000) if fault == 'full disk' else None
  process = run.start(
    offset=rng.uniform(-1e8, 1e8) if fault == 'clock jumps' else 0.0,
    cache=str(run.cache) if fault == 'cache not writable' else '',
    most_bytes=full,
  )
  said = ''
  with contextlib.suppress(subprocess.TimeoutExpired):
    said = process.communicate(timeout=whole_s * rng.uniform(*_LIFE))[1]
  expected = {0}
  if fault == 'second run' and process.poll() is None:
    second = run.start()
    refused = second.communicate(timeout=600)[1]
    assert second.returncode == 2 or process.poll() is not None, refused
  if process.poll() is None:
    kills = fault in ('SIGKILL', 'flipped bit', 'second run')
    process.send_signal(signal.SIGKILL if kills else signal.SIGTERM)
    said += process.communicate(timeout=600)[1] or ''
    if kills:
      expected = {0, -signal.SIGKILL}
    elif not said:  # Python still imports, and nothing takes signals yet
      expected = {0, -signal.SIGTERM}
  if fault == 'full disk':
    expected |= {1}
  if fault == 'cache not writable':
    expected |= {2}  # before the base is in it
  assert process.returncode in expected, (fault, process.returncode, said)
  assert 'Traceback' not in said, (fault, said)
  return Life(fault, time.monotonic() - began, run.documents - before)


def _flip(step: pathlib.Path | None, rng: random.Random) -> None:
  """Flips a bit in a file of a checkpoint."""
  if step is None:
    return
  files = [f for f in step.rglob('*') if f.is_file() and f.stat().st_size]
  file = rng.choice(sorted(files))
  data = bytearray(file.read_bytes())
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  file.write_bytes(data)


def _schedule(rng: random.Random) -> Iterator[str]:
  """Yields faults without end: each in every round, in another order."""
  while True:
    yield from rng.sample(FAULTS, len(FAULTS))


def soak(
  folder: pathlib.Path, seed: int, faults: Iterator[str], rng: random.Random
) -> list[Life]:
  """Makes a run undisturbed and disturbed, and compares them.

  Args:
    folder: An empty folder.
    seed: Of the run.
    faults: What disturbs it.
    rng: As in `disturb`.

  Returns:
    All starts of the disturbed one.
  """
  config = folder / 'soak.py'
  config.write_text(_CONFIG.format(documents=_DOCUMENTS, seed=seed))
  calm, run = (Run(folder, name, config) for name in ('calm', 'disturbed'))
  began = time.monotonic()
  _, said = calm.start().communicate()
  assert calm.is_done, said
  whole_s = time.monotonic() - began
  print(f'{_DOCUMENTS} documents undisturbed: {whole_s:.0f} s', flush=True)
  lives: list[Life] = []
  while not run.is_done:
    lives.append(disturb(run, next(faults), rng, whole_s))
    print(f'  {lives[-1]}', flush=True)
  assert run.arrays() == calm.arrays()
  print(f'{len(lives)} starts: the same arrays, bit for bit')
  return lives


def child(offset: str, cache: str, *flags: str) -> int:
  """Runs the program with a wrong clock or a cache that cannot be written."""
  now = time.time
  time.time = lambda: now() + float(offset)

  def refusing(path, mode='r', *arguments, **named):
    if cache and 'w' in mode and str(path).startswith(cache):
      raise PermissionError(13, 'Permission denied', str(path))
    return open(path, mode, *arguments, **named)

  vars(atomic)['open'] = refusing
  sys.argv[1:] = flags
  return program.run(train.main)


def main(argv: list[str]) -> None:
  """Runs the program."""
  parser = arguments.Parser(
    prog='python -m benchmarks.soak',
    description='A run that is disturbed again and again.',
  )
  parser.add_argument(
    '--minutes',
    type=float,
    default=10.0,
    help='after which no other run begins',
  )
  parser.add_argument(
    '--seed',
    type=int,
    default=0,
    help='of the first run, and of what goes wrong',
  )
  parser.add_argument('--out', type=paths.expand, help='write FILE.json')
  options = parser.parse(argv)
  if not options.minutes > 0:
    raise schema.UserError(f'--minutes = {options.minutes} must be above 0')
  if options.seed < 0:
    raise schema.UserError(f'--seed = {options.seed} must be at least 0')
  began = time.monotonic()
  rng = random.Random(options.seed)
  faults = _schedule(rng)
  lives: list[Life] = []
  runs = 0
  while time.monotonic() - began < 60 * options.minutes:
    with tempfile.TemporaryDirectory() as folder:
      lives += soak(pathlib.Path(folder), options.seed + runs, faults, rng)
    runs += 1
  rows = []
  for fault in FAULTS:
    found = [life for life in lives if life.fault == fault]
    if found:
      rows.append(_row(fault, found))
      print(
        f'{fault}: {len(found)} times, {rows[-1]["seconds"]:.0f} s a start,'
        f' {rows[-1]["documents"]:.1f} documents'
      )
  minutes = (time.monotonic() - began) / 60
  print(f'{runs} runs, {len(lives)} starts, {minutes:.0f} minutes')
  if options.out:
    atomic.write_json(options.out, rows)


def _row(fault: str, lives: Sequence[Life]) -> dict[str, Any]:
  return {
    'fault': fault,
    'times': len(lives),
    'seconds': statistics.median(life.seconds for life in lives),
    'documents': statistics.mean(life.documents for life in lives),
  }


if __name__ == '__main__':
  if sys.argv[1:2] == ['--child']:
    sys.exit(child(*sys.argv[2:]))
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  sys.exit(program.run(main))
