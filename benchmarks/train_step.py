"""One training step on the docqa model: sparse memory, full, LoRA.

  python -m benchmarks.train_step [--out FILE.json] [--repeats N]

It times `smft_jax.training.step.train_step`, on the model of configs/docqa.py
with random weights and a batch of the first document of its stream.

Each form's peak memory is measured in a process of its own (`--memory-of FORM`
prints it as JSON): the peak resident memory of three steps, without that after
the imports. It includes making the model and compiling the step. The table also
shows the compiler's number for the step alone: arguments, results not written
in place, and temporaries. Needs Linux.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Literal

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import tokenizers
from smft_jax.methods import full
from smft_jax.methods import lora
from smft_jax.methods import sparse_memory
from smft_jax.models import transformer
from smft_jax.runs import base as base_lib
from smft_jax.runs import model as model_lib
from smft_jax.training import forward
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

FORMS = {
  'rows': 'sparse memory',
  'reuse': 'sparse memory, hidden states reused',
  'dense': 'sparse memory, dense form',
  'full': 'full finetuning',
  'lora': 'LoRA, rank 32',
}

_CONFIG = pathlib.Path(__file__).parent.parent / 'configs' / 'docqa.py'
_STEPS_FOR_MEMORY = 3


class Setting:
  """A run of configs/docqa.py before its first step, with random weights.

  Attributes:
    batch: The first batch of its first document.
  """

  def __init__(self):
    experiment = config_lib.from_config_dict(config_file.load(str(_CONFIG)))
    stream = experiment.stream
    background, method = experiment.background, experiment.method
    assert stream is not None
    assert background is not None
    assert method is not None
    self._method = method
    task = base_lib.make_task(experiment)
    tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
    rows = [
      encoding.tokenize(
        document.augmentations,
        tokenizer,
        max_length=experiment.base.max_length,
        context_weight=stream.context_weight,
        answer_weight=stream.answer_weight,
      )
      for document in task.documents
    ]
    # The stream pads all documents to the length of the longest row.
    length = batches.bucket_length(max(r.longest for r in rows), 4)
    drawn = batches.row_indices(
      len(rows[0]), 0, stream.batch_size, experiment.seed
    )
    self.batch = batches.pad(rows[0].take(drawn), length, tokenizer.pad_id)
    self._config = model_lib.config_of(experiment, tokenizer.vocab_size)
    documents = background.num_batches * background.batch_size
    # Random: the cost of ranking does not depend on the counts.
    self._frequency = np.random.default_rng(0).integers(
      0, documents, experiment.memory.num_slots
    )
    self._documents = documents

  def state(self, form: str) -> state_lib.TrainState:
    """Returns a new state before the first step of one of `FORMS`."""
    model = transformer.Transformer(self._config, rngs=nnx.Rngs(0))
    if form == 'lora':
      # One of the paper's alphas; the time does not depend on it.
      model = lora.add_adapters(model, rank=32, alpha=64.0, rngs=nnx.Rngs(1))
      method = lora.make(lora.Config(learning_rate=2e-4))
      return state_lib.init(model, method)
    if form == 'full':
      return state_lib.init(model, full.make(full.Config()))
    update: Literal['dense', 'rows'] = 'dense' if form == 'dense' else 'rows'
    method = sparse_memory.make(
      dataclasses.replace(self._method, update=update)
    )
    background = method_lib.Background(
      jnp.asarray(self._frequency, jnp.float32), jnp.float32(self._documents)
    )
    return state_lib.init(model, method, background)

  def stepper(self, form: str) -> Callable[[], None]:
    """Returns a function that takes the next step and waits for it."""
    state, hidden = self.state(form), None
    if form == 'reuse':
      hidden = forward.hidden_below_memory(
        state.graphdef, state.params, self.batch.tokens, self.batch.mask
      )
    return harness.stepper(
      lambda state: step_lib.train_step(state, self.batch, hidden), state
    )


def program_bytes(state: state_lib.TrainState, batch: batches.Batch) -> int:
  """Returns the compiler's number of bytes that the step needs."""
  compiled = step_lib.train_step.lower(state, batch).compile()
  sizes = compiled.memory_analysis()
  assert sizes is not None  # some backends have no analysis
  return (
    sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    - sizes.alias_size_in_bytes
    + sizes.temp_size_in_bytes
  )


def resident_bytes(name: str) -> int:
  """Returns this process's memory: 'VmRSS' is current, 'VmHWM' the peak.

  `resource.ru_maxrss` would start at that of the parent process.
  """
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  [line] = [line for line in lines if line.startswith(f'{name}:')]
  return int(line.split()[1]) * 1024


def measure_memory(form: str) -> dict[str, int]:
  """Measures a few steps; call it in a fresh process."""
  jax.devices()
  before = resident_bytes('VmRSS')
  setting = Setting()
  step = setting.stepper(form)
  for _ in range(_STEPS_FOR_MEMORY):
    step()
  peak = resident_bytes('VmHWM') - before
  program = program_bytes(setting.state(form), setting.batch)
  return {'peak_resident_bytes': peak, 'program_bytes': program}


def memory_in_own_process(form: str) -> dict[str, int]:
  """Calls `measure_memory` in a fresh process."""
  command = [sys.executable, '-m', 'benchmarks.train_step']
  done = subprocess.run(
    [*command, '--memory-of', form],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
  """Runs the program."""
  options = harness.parse(
    'One training step on the docqa model.',
    memory_of=dict(
      choices=FORMS, help='print only the memory of one form, as JSON'
    ),
  )
  if options.memory_of is not None:
    print(json.dumps(measure_memory(options.memory_of)))
    return
  memory = {form: memory_in_own_process(form) for form in FORMS}
  setting = Setting()
  rows, length = setting.batch.tokens.shape
  seconds = harness.interleave(
    {form: setting.stepper(form) for form in FORMS}, options.repeats
  )
  named_seconds = {FORMS[form]: value for form, value in seconds.items()}
  harness.print_table(
    f'one training step, {rows} rows of {length} tokens',
    named_seconds,
    FORMS['full'],
  )
  print('\npeak memory: resident in a process of its own; compiled step alone')
  for form, name in FORMS.items():
    peak = memory[form]['peak_resident_bytes'] / 1e6
    program = memory[form]['program_bytes'] / 1e6
    print(f'  {name:<35}  {peak:8.0f} MB  {program:8.0f} MB')

  peaks = {form: memory[form]['peak_resident_bytes'] for form in FORMS}
  claims = [
    harness.Claim(
      f'{what}, sparse memory / {FORMS[other]}',
      numbers['rows'] / numbers[other],
      goal,
    )
    for what, numbers, other, goal in (
      ('time of a step', seconds, 'full', 0.5),
      ('time of a step', seconds, 'lora', 0.6),
      ('peak resident memory', peaks, 'full', 0.6),
    )
  ]
  harness.finish(
    'train_step',
    {'seconds': seconds, 'memory': memory, 'batch': [rows, length]},
    claims,
    harness.bars('One training step on the docqa model', named_seconds),
    options.out,
  )


if __name__ == '__main__':
  main()
