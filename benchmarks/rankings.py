"""What a pretrained model reads of its lessons, by ranking and t, untrained.

  python -m benchmarks.rankings --path PATH [--data-dir DIR] [--people P]
      [--seeds S ...] [--ts T ...] [--quorum Q] [--out FILE.json]

Selects slots for each invented person as configs/docqa.py:world,hf does, but
takes no step, with a background that is fixed or grows by each lesson; then no
slot is taught twice. Looks for tokens that reach the quorum. A text without
such a token leaves the model, bit for bit, as it was before any lesson,
whatever training would write.
Printed are shares, averages over seeds:

  learned   unseen phrasings about the people in which a token reads
  right     of those, the ones in which no token reads another person's lesson
  stays     of those, the ones whose tokens read what they did, with the same
            weights, when the lessons after their person's were not yet there
  kept      questions about other things in which no token reads
  text      tokens of other text that read
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import functools
import json
import pathlib
import sys
import tempfile
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from smft_jax import memory
from smft_jax import quorum
from smft_jax import ranking
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.methods import sparse_memory
from smft_jax.runs import base as base_lib
from smft_jax.runs import lesson_batches
from smft_jax.runs import sets as sets_lib
from smft_jax.runs import states
from smft_jax.runtime import program
from smft_jax.store import paths
from smft_jax.store import records as records_lib
from smft_jax.training import background as background_lib
from smft_jax.training import method as method_lib

_CONFIG = pathlib.Path(__file__).parents[1] / 'configs' / 'docqa.py'
_ROWS = 32  # of a forward pass
RANKINGS = (
  *('tf_idf', 'tf_idf_squared', 'tf_idf_cubed', 'tf', 'all_accessed'),
  'random',
)
_T = 300  # of the rankings


class Reads(NamedTuple):
  """Accesses of the tokens of some rows.

  Attributes:
    row: int [T], the row of each token.
    slot_ids: int32 [T, A].
    weights: float32 [T, A].
  """

  row: np.ndarray
  slot_ids: jax.Array
  weights: jax.Array


class Data(NamedTuple):
  """What a seed's model reads.

  Attributes:
    lessons: The name in the training texts of each person.
    unseen: Questions on the people, in phrasings that are held out.
    about: int [rows], the person that each of those is about, from 1.
    questions: Questions about other things.
    text: Other text.
    background: Document frequencies.
    threshold: The quorum, in the units of `Reads.weights`.
  """

  lessons: list[Reads]
  unseen: Reads
  about: np.ndarray
  questions: Reads
  text: Reads
  background: method_lib.Background
  threshold: float


def read(options, seed: int) -> Data:
  """Fits a memory, unless it is cached, and finds what texts read."""
  config = config_file.load(f'{_CONFIG}:world,hf')
  config.seed = seed
  config.base.path = options.path
  config.data.num_new = options.people
  config.memory.quorum = options.quorum
  config.evaluation.max_entries = options.entries
  if options.cache_dir:
    config.base.cache_dir = options.cache_dir
  if options.data_dir:
    config.data.data_dir = options.data_dir
  experiment = config_lib.from_config_dict(config)
  assert experiment.stream is not None
  task = base_lib.make_task(experiment)
  with tempfile.TemporaryDirectory() as folder:
    writer = records_lib.MetricsWriter(pathlib.Path(folder))
    base = base_lib.find_or_make(experiment, task, writer)
  drawn = sets_lib.draw(
    task, experiment.evaluation, max_documents=None, seed=seed
  )
  length = experiment.base.max_length
  reads = functools.partial(_reads, base)
  ask = functools.partial(
    encoding.tokenize_questions, tokenizer=base.tokenizer, max_length=length
  )
  name = 'target_unseen_phrasing'
  others = [
    question
    for other, questions in drawn.questions.items()
    if not other.startswith('target')
    for question in questions
  ]
  texts = [
    text
    for other, entries in drawn.texts.items()
    if not other.startswith('target')
    for text in sets_lib.shortened(
      entries,
      base.tokenizer,
      max_length=length,
      max_rows=options.entries,
      seed=seed,
    )
  ]
  documents = lesson_batches.encode_documents(
    experiment.stream, task, base.tokenizer, length
  )
  return Data(
    lessons=[reads(rows) for rows in documents],
    unseen=reads(ask(drawn.questions[name])),
    about=drawn.about[name] + 1,
    questions=reads(ask(others)),
    text=reads(encoding.tokenize(texts, base.tokenizer, max_length=length)),
    background=states.count_background(experiment, base),
    threshold=options.quorum * experiment.memory.num_heads,
  )


def _reads(base: base_lib.Base, rows: encoding.Encoded) -> Reads:
  parts = list(_parts(base, rows))
  return Reads(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _parts(
  base: base_lib.Base, rows: encoding.Encoded
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  order = np.argsort(rows.lengths, kind='stable')
  for start in range(0, len(rows), _ROWS):
    chosen = np.resize(order[start : start + _ROWS], _ROWS)
    part = rows.take(chosen)
    length = batches.bucket_length(part.longest, 32)
    batch = batches.pad(part, length, base.tokenizer.pad_id)
    found = _search(base.graphdef, base.params, batch.tokens, batch.mask)
    # Of a lesson only the names rank.
    mask = batch.mask if batch.ranked is None else batch.ranked
    mask = mask & (np.arange(_ROWS) < len(order) - start)[:, None]
    row = np.broadcast_to(chosen[:, None], mask.shape)
    yield row[mask], *(np.asarray(array)[mask] for array in found)


@functools.partial(jax.jit, static_argnums=0)
def _search(graphdef, params, tokens, mask):
  """Returns slot ids and weights [B, L, A]; blocks above do not run."""
  model = nnx.merge(graphdef, params)
  _, sown = nnx.capture(model, memory.MemoryInput)(tokens, mask)
  (inputs,) = jax.tree.leaves(sown)
  (layer,) = (
    module
    for _, module in nnx.iter_modules(model)
    if isinstance(module, memory.ProductKeyMemory)
  )
  return layer.search(inputs)


def shares(data: Data, name: str, t: int, grows: bool) -> dict[str, float]:
  """Selects slots for every lesson, and returns what this module prints."""
  background = data.background
  num_slots = len(background.document_frequency)
  lessons = jnp.zeros(num_slots, jnp.int32)
  score = sparse_memory.make(
    sparse_memory.Config(ranking=name, t=t, select='document')
  ).score
  assert score is not None

  def reading(reads: Reads) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lesson that each token reads, 0 for none, and its weights."""
    found = lessons[reads.slot_ids]
    weights = quorum.read_one_lesson(found, reads.weights, data.threshold)
    lesson = jnp.max(jnp.where(weights > 0, found, 0), axis=-1)
    return np.asarray(lesson), np.asarray(weights)

  def lesson_of(reads: Reads) -> np.ndarray:
    return reading(reads)[0]

  def rows_with(reads: Reads, hits: np.ndarray) -> np.ndarray:
    return np.bincount(reads.row, hits) > 0

  person = data.about[data.unseen.row]
  first_weights = np.zeros(data.unseen.weights.shape, np.float32)
  for number, taught in enumerate(data.lessons, 1):
    counts = ranking.count_accesses(taught.slot_ids, num_slots)
    known = background
    if grows:
      known = background_lib.without_taught(background, lessons)
      background = _grown(background, taught)
    scores = score(jax.random.key(number), counts, known)
    slots = ranking.top_slots(scores, t)
    lessons = lessons.at[slots].set(number, mode='drop')
    own = Reads(*(np.asarray(part)[person == number] for part in data.unseen))
    first_weights[person == number] = reading(own)[1]

  lesson, weights = reading(data.unseen)
  changed = np.any(weights != first_weights, axis=-1)
  wrong = (lesson > 0) & (lesson != person)
  learned = rows_with(data.unseen, lesson > 0)
  right = learned & ~rows_with(data.unseen, wrong)
  stays = learned & ~rows_with(data.unseen, changed)
  asked = rows_with(data.questions, lesson_of(data.questions) > 0)
  return {
    'learned': float(learned.mean()),
    'right': float(right.sum() / max(learned.sum(), 1)),
    'stays': float(stays.sum() / max(learned.sum(), 1)),
    'kept': float(1 - asked.mean()),
    'text': float((lesson_of(data.text) > 0).mean()),
  }


def _grown(
  background: method_lib.Background, taught: Reads
) -> method_lib.Background:
  """Adds the texts of a lesson."""
  lengths = np.bincount(taught.row)
  mask = np.arange(lengths.max()) < lengths[:, None]
  slot_ids = np.zeros((*mask.shape, taught.slot_ids.shape[-1]), np.int32)
  slot_ids[mask] = taught.slot_ids[np.argsort(taught.row, kind='stable')]
  return background_lib.add(background, slot_ids, mask)


def table(options, points: Sequence[tuple[str, int, bool]]) -> list[dict]:
  """Returns the mean shares over seeds of each (ranking, t, grows)."""
  found: dict[tuple[str, int, bool], list[dict[str, float]]] = {}
  for seed in options.seeds:
    data = read(options, seed)
    for point in points:
      found.setdefault(point, []).append(shares(data, *point))
  return [
    {'ranking': name, 't': t, 'grows': grows}
    | {key: float(np.mean([s[key] for s in each])) for key in each[0]}
    for (name, t, grows), each in found.items()
  ]


def main() -> None:
  """Runs the program."""
  options = harness.parse(
    'What a pretrained model reads of its lessons.',
    path={'help': 'Hugging Face folder or GGUF file', 'required': True},
    data_dir={'help': 'folder of TFDS data sets', 'default': None},
    cache_dir={'help': 'folder of fitted keys', 'default': None},
    people={'type': int, 'default': 50},
    seeds={'type': int, 'nargs': '+', 'default': [0, 1, 2]},
    ts={
      'type': int,
      'nargs': '+',
      'default': [30, 100, 200, 600, 1000, 3000],
      'help': 'slots of a lesson to try with the cube of idf',
    },
    quorum={'type': float, 'default': 0.3},
    entries={'type': int, 'default': 200, 'help': 'of each held-out set'},
  )
  points = [(name, _T, grows) for name in RANKINGS for grows in (False, True)]
  # Ties go to the lower ids, unless all are taken.
  points = [(n, 512**2 if n == 'all_accessed' else t, g) for n, t, g in points]
  points += [
    ('tf_idf_cubed', t, g) for t in options.ts if t != _T for g in (False, True)
  ]
  rows = table(options, points)
  print('| ranking | t | background | learned | right | stays | kept | text |')
  print('|---|---:|---|---:|---:|---:|---:|---:|')
  for row in rows:
    print(
      f'| {row["ranking"]} | {row["t"]} |'
      f' {"grows" if row["grows"] else "fixed"} | {row["learned"]:.1%} |'
      f' {row["right"]:.1%} | {row["stays"]:.1%} | {row["kept"]:.1%} |'
      f' {row["text"]:.2%} |'
    )
  if options.out:
    paths.expand(options.out).write_text(json.dumps(rows, indent=2) + '\n')


if __name__ == '__main__':
  sys.exit(program.run(lambda _: main()))
