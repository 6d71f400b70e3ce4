"""Times making batches against the training steps that take them.

  python -m benchmarks.input_pipeline [--data-dir DIR] [--out FILE.json]
      [--repeats N]

Two runs with random weights: configs/docqa.py on the embedded world, and its
variant squad on synthetic text, or on WikiText-2 and SQuAD with `--data-dir`.
Each has batches of pretraining, padded, packed (`config.base.packed`) and
padded from shards on the disk, and of the stream. Batches are made in one
thread, as in a run; tokens are counted without padding. For shards of larger
corpora see `benchmarks.prepared`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import itertools
import pathlib
import sys
import tempfile
import time

from flax import nnx
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks import plot
from smft_jax import methods
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from smft_jax.data import batches
from smft_jax.data import encoded
from smft_jax.data import encoding
from smft_jax.data import packing
from smft_jax.data import prepared
from smft_jax.data import shard
from smft_jax.data import stream as stream_lib
from smft_jax.data import task as task_lib
from smft_jax.data import token_cache
from smft_jax.data import tokenizers
from smft_jax.models import build
from smft_jax.runs import base as base_lib
from smft_jax.runs import finetune
from smft_jax.runs import model as model_lib
from smft_jax.runs import pretrain
from smft_jax.runtime import program
from smft_jax.store import manifest
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

# A step should take this many times as long as making its batch.
GOAL = 5

_CONFIG = pathlib.Path(__file__).parent.parent / 'configs' / 'docqa.py'
_COUNTED_BATCHES = 16


@dataclasses.dataclass(frozen=True)
class Case:
  """A kind of batch and the step that takes it.

  Attributes:
    name: Name of the kind.
    make: Makes the batch of a number; pure.
    state: Makes a new state before the first step.
  """

  name: str
  make: Callable[[int], batches.Batch]
  state: Callable[[], state_lib.TrainState]

  def tokens(self) -> float:
    """Returns the mean number of tokens of a batch, without padding."""
    made = map(self.make, range(_COUNTED_BATCHES))
    return float(np.mean([np.sum(batch.mask) for batch in made]))

  def maker(self) -> Callable[[], batches.Batch]:
    """Returns a function that makes the next batch."""
    numbers = itertools.count()
    return lambda: self.make(next(numbers))

  def stepper(self) -> Callable[[], None]:
    """Returns a function that takes a step on a batch, and waits for it."""
    batch = self.make(0)
    return harness.stepper(
      lambda state: step_lib.train_step(state, batch), self.state()
    )


def load(variant: str, data_dir: str | None) -> config_lib.Experiment:
  """Loads a variant of configs/docqa.py."""
  config = config_file.load(f'{_CONFIG}:{variant}')
  if variant != 'world':
    config.data.data_dir = data_dir or 'unread'
  return config_lib.from_config_dict(config)


def synthetic_task(seed: int = 0) -> task_lib.Task:
  """Makes text of random words, with lengths like those of real text.

  Example:
    >>> task = synthetic_task()
    >>> len(task.pretraining), len(task.documents)
    (1100, 20)
  """
  random = np.random.default_rng(seed)
  words, chances = harness.random_words(random)

  def texts(count: int, shortest: int, longest: int) -> Iterator[task_lib.Text]:
    for length in random.integers(shortest, longest, count):
      chosen = random.choice(words, length, p=chances)
      yield task_lib.Text(text=' '.join(chosen) + '.')

  articles, paragraphs, questions = (
    tuple(texts(*sizes))
    for sizes in ((100, 500, 5000), (500, 60, 200), (500, 8, 20))
  )
  documents = [
    task_lib.Document(
      id=str(index),
      augmentations=tuple(texts(16, 20, 120)),
      questions=(),
      texts=(),
    )
    for index in range(20)
  ]
  return task_lib.Task(
    pretraining=articles + paragraphs + questions,
    documents=tuple(documents),
    questions={},
    texts={},
    counts={},
  )


def make_tokenizer(
  experiment: config_lib.Experiment, task: task_lib.Task
) -> tokenizers.Tokenizer:
  """Trains the tokenizer of a run."""
  if experiment.data.kind == 'world':
    return tokenizers.train_word_level(task.vocabulary_texts())
  return tokenizers.train_byte_level_bpe(
    (text.text for text in task.pretraining),
    experiment.data.tokenizer_vocab_size,
  )


def encode(
  texts: Sequence[task_lib.Text],
  tokenizer: tokenizers.Tokenizer,
  max_length: int,
) -> tuple[encoding.Encoded, float, float]:
  """Returns texts as rows, and the seconds to encode and to read them again."""
  seconds = []
  with tempfile.TemporaryDirectory() as folder:
    for _ in range(2):
      began = time.perf_counter()
      rows = token_cache.tokenized(
        pathlib.Path(folder), texts, tokenizer, max_length
      )
      seconds.append(time.perf_counter() - began)
  made_s, read_s = seconds
  return rows, made_s, read_s


def on_disk(
  rows: encoding.Encoded, tokenizer: tokenizers.Tokenizer, folder: pathlib.Path
) -> prepared.Prepared:
  """Writes rows as `python -m smft_jax.prepare` does, into one shard."""
  writer = shard.Writer(folder / prepared.file_name(0))
  dtype = shard.token_dtype(tokenizer.vocab_size)
  writer.write(shard.to_records(rows, dtype), rows.lengths)
  manifest.seal(
    folder / prepared.MANIFEST,
    {
      'tokenizer': tokenizer.fingerprint(),
      'vocab_size': tokenizer.vocab_size,
      'max_length': rows.longest,
      'packed': False,
      'finished': True,
      'shards': [writer.finish()],
    },
  )
  return prepared.read(folder)


def cases(
  experiment: config_lib.Experiment,
  task: task_lib.Task,
  tokenizer: tokenizers.Tokenizer,
  rows: encoding.Encoded,
  folder: pathlib.Path,
) -> list[Case]:
  """Returns the kinds of batches in a run.

  Args:
    experiment: The run, with a stream.
    task: Its data.
    tokenizer: Its tokenizer.
    rows: Its pretraining rows.
    folder: An empty folder, for shards.

  Returns:
    Pretraining padded, packed, and from shards; and the stream.
  """
  settings, stream = experiment.base, experiment.stream
  assert stream is not None
  assert experiment.method is not None
  model = model_lib.config_of(experiment, tokenizer.vocab_size)

  def first_state(method: method_lib.Method) -> state_lib.TrainState:
    graphdef, params = build.make(model, experiment.seed)
    # Zeros: the cost of ranking does not depend on the counts.
    background = method_lib.Background(
      jnp.zeros(experiment.memory.num_slots), jnp.float32(1)
    )
    return state_lib.init(nnx.merge(graphdef, params), method, background)

  def pretraining_case(name: str, rows: encoded.Rows) -> Case:
    texts = stream_lib.Batches(
      rows=rows,
      batch_size=settings.batch_size,
      seed=experiment.seed,
      pad_id=tokenizer.pad_id,
    )

    def make(step: int) -> batches.Batch:
      texts.num_tokens(step)  # a run counts them too
      return texts.batch(step)

    method = pretrain.make_method(experiment.base)
    return Case(name, make, lambda: first_state(method))

  graphdef, params = build.make(model, experiment.seed)
  student = finetune.make_learner(
    experiment,
    base_lib.Base(
      folder=pathlib.Path(),
      read_task=lambda: task,
      tokenizer=tokenizer,
      graphdef=graphdef,
      params=params,
      fingerprint='',
    ),
  )

  def stream_batch(number: int) -> batches.Batch:
    index, step = divmod(number, stream.steps_per_document)
    return student.batches.step(index % len(task.documents), step).batch

  method = methods.METHODS[experiment.method.name].make(experiment.method)
  packed = packing.pack(rows, settings.max_length, experiment.seed)
  return [
    pretraining_case('pretraining, padded', rows),
    pretraining_case('pretraining, packed', packed),
    pretraining_case('pretraining, shards', on_disk(rows, tokenizer, folder)),
    Case('stream', stream_batch, lambda: first_state(method)),
  ]


def main(argv: Sequence[str]) -> None:
  """Runs the program."""
  options = harness.parse(
    'Making batches against the training steps that take them.',
    argv,
    data_dir=dict(help='TFDS folder of WikiText-2 and SQuAD; none: synthetic'),
  )
  results: dict[str, dict[str, float]] = {}
  text_name = 'real text' if options.data_dir else 'synthetic text'
  measured = []
  # All data first, so that a wrong folder fails before anything is timed.
  for variant, name in (('world', 'world'), ('squad', text_name)):
    experiment = load(variant, options.data_dir)
    is_real = variant == 'world' or options.data_dir
    task = base_lib.make_task(experiment) if is_real else synthetic_task()
    measured.append((name, experiment, task))
  for name, experiment, task in measured:
    tokenizer = make_tokenizer(experiment, task)
    rows, made_s, read_s = encode(
      task.pretraining, tokenizer, experiment.base.max_length
    )
    print(
      f'{name}: encoding the pretraining texts takes {made_s:.2f} s, reading'
      f' them again {read_s:.3f} s'
    )
    with tempfile.TemporaryDirectory() as folder:
      found = cases(experiment, task, tokenizer, rows, pathlib.Path(folder))
      forms: dict[str, Callable[[], object]] = {}
      for case in found:
        forms[f'make {case.name}'] = case.maker()
        forms[f'step {case.name}'] = case.stepper()
      taken = harness.interleave(forms, options.repeats)
      tokens = {case.name: case.tokens() for case in found}
    for case in found:
      results[f'{name}, {case.name}'] = {
        'tokens': tokens[case.name],
        'make_s': taken[f'make {case.name}'],
        'step_s': taken[f'step {case.name}'],
        'encode_s': made_s,
        'read_s': read_s,
      }
  width = max(map(len, results))
  print(
    f'\n  {"batches":<{width}}  {"tokens":>7}  {"made":>9}  {"step":>10}'
    f'  {"made":>12}  {"trained":>11}  {"ratio":>6}'
  )
  for name, row in results.items():
    tokens, make_s, step_s = row['tokens'], row['make_s'], row['step_s']
    print(
      f'  {name:<{width}}  {tokens:7.0f}  {make_s * 1e3:6.2f} ms'
      f'  {step_s * 1e3:7.1f} ms  {tokens / make_s / 1e6:6.2f} Mtok/s'
      f'  {tokens / step_s / 1e3:5.1f} ktok/s  {step_s / make_s:5.0f}x'
    )
  ratios = {
    name: row['step_s'] / row['make_s'] for name, row in results.items()
  }
  claims = [
    harness.Claim(
      f'{name}: step / making its batch', ratio, GOAL, at_most=False
    )
    for name, ratio in ratios.items()
  ]
  harness.finish(
    'input_pipeline',
    results,
    claims,
    plot.Bars(
      title='Training step / making its batch', unit='x', values=ratios
    ),
    options.out,
  )


if __name__ == '__main__':
  sys.exit(program.run(main))
