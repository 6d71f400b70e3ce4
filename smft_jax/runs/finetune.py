"""The stream: documents are learned one after another, and measured on the way.

What is measured is in `measurements`, what a lesson costs in `lesson`:
- `steps`: steps on a document;
- `flops`: operations of the matrix products in these steps, forward, backward
  and update, counted in the program (`smft_jax.flops`);
- `wall_s`: median over documents of the seconds that these steps took,
  batches included, measurements not; the first document compiles and is left
  out where there are others.

`input_wait_s` is how many seconds of the stream went into making batches.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import pathlib
import time
from typing import Any

from absl import logging
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import methods
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import stream as stream_lib
from smft_jax.evaluation import transfer
from smft_jax.runs import background as background_lib
from smft_jax.runs import base as base_lib
from smft_jax.runs import learner
from smft_jax.runs import measurements
from smft_jax.runs import resume
from smft_jax.runtime import divergence
from smft_jax.runtime import preemption
from smft_jax.runtime import processes
from smft_jax.runtime import progress
from smft_jax.store import atomic
from smft_jax.store import checksum
from smft_jax.store import records as records_lib
from smft_jax.training import method as method_lib
from smft_jax.training import state as state_lib


def run(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  workdir: pathlib.Path,
  writer: records_lib.MetricsWriter,
  *,
  checkpoints: bool = True,
  show: bool = True,
) -> dict[str, Any]:
  """Streams the documents into the model; resumes where an earlier run was.

  Args:
    experiment: The config, with a `stream` and a `method`.
    base: The model to start from; it is left as it was.
    workdir: Takes the checkpoints, and what the base answered.
    writer: Takes 'stream' and 'evaluation' events.
    checkpoints: Whether to write them; without, a run cannot be resumed.
    show: Whether to show progress.

  Returns:
    What DESIGN section 5 calls results.json.
  """
  if experiment.method is None or experiment.stream is None:
    raise ValueError('config.method or config.stream is missing.')
  state = first_state(experiment, base)
  sets, before = measurements.of_base(experiment, base)
  atomic.write_json(workdir / 'outputs_before.json', before.answers)
  total, each = len(sets.documents), experiment.stream.steps_per_document
  saves = _saves(experiment, base, state, workdir / 'checkpoints')
  found = saves.restore(state)
  if found is None:
    spent = {'tokens': 0, 'wall_s': 0.0, 'lesson_s': 0.0, 'input_wait_s': 0.0}
    start = first = 0
    writer.truncate(lambda r: r['event'] in ('evaluation', 'stream'))
    _evaluated(writer, 0, before)
  else:
    state, spent = found
    step = int(state.step)
    logging.info('resumes after step %d, from %s', step, saves.folder)
    # Whole documents, and steps on the one after them.
    start, first = divmod(int(state.step), each)
    writer.truncate(lambda r: r.get('documents', 0) > start)
    _check_records(workdir, start)
  sets = dataclasses.replace(
    sets,
    evaluator=dataclasses.replace(sets.evaluator, graphdef=state.graphdef),
  )
  tokens, began = spent['tokens'], time.monotonic() - spent['wall_s']
  lesson_s = spent['lesson_s']
  input_wait_s = waited_s = spent.get('input_wait_s', 0.0)
  student = make_learner(experiment, base)
  watch = divergence.Watch(
    'the stream',
    min(experiment.max_skipped, total * each),
    'lower the rates of config.method',
    int(state.skipped_in_a_row),
  )

  def is_measured(done: int) -> bool:
    return done % experiment.evaluation.every_documents == 0 or done == total

  after = before
  if state.method.update == 'none':
    start = total
    after = sets.take_in_context(state.params, before)
    _evaluated(writer, total, after)
  elif start and not first and is_measured(start):
    # Saved before it was measured, or at the end before the results were.
    is_missing = _records(workdir, 'evaluation')[-1]['documents'] != start
    if is_missing or start == total:
      after = sets.take(state.params)
    if is_missing:
      _evaluated(writer, start, after)
  stream = None if show else io.StringIO()
  with progress.Progress(
    'stream', total, 'document', start=start, stream=stream
  ) as bar:
    for index in range(start, total):
      state, values = student.learn(state, index, watch, first, bar.waiting)
      done, first = divmod(int(state.step), each)
      tokens += values.pop('tokens')
      values['lesson_s'] = lesson_s = round(values['lesson_s'] + lesson_s, 4)
      wall_s = round(time.monotonic() - began, 3)
      input_wait_s = round(waited_s + bar.waited_s, 4)
      if not first:
        lesson_s = 0.0
        bar.update(done, tokens=tokens - spent['tokens'], loss=values['loss'])
        writer.write(
          'stream',
          documents=done,
          document=sets.documents[index].id,
          **values,
          tokens=tokens,
          steps_skipped=int(state.skipped),
          wall_s=wall_s,
          input_wait_s=input_wait_s,
        )
      stop = watch.exceeded or preemption.requested()
      every = experiment.stream.checkpoint_every or total
      # Before it is measured, which may take long and can be done again.
      if checkpoints and (stop or is_measured(done) or done % every == 0):
        notes = {
          'tokens': tokens,
          'wall_s': wall_s,
          'lesson_s': lesson_s,
          'input_wait_s': input_wait_s,
        }
        saves.save(state, notes)
      if stop:
        watch.finish()
        preemption.check()
      if is_measured(done):
        after = sets.take(state.params)
        _evaluated(writer, done, after)
  watch.finish()
  curve = _records(workdir, 'evaluation')
  matrix = transfer.accuracy_matrix(
    [(r['documents'], r['document_recall']) for r in curve]
  )
  steps = int(state.step)
  return {
    'method': experiment.method.name,
    'seed': experiment.seed,
    'steps': steps,
    'steps_skipped': int(state.skipped),
    'wall_s': round(time.monotonic() - began, 1),
    'input_wait_s': input_wait_s,
    'tokens': tokens,
    **_changed(base.params, state.params),
    'state_hash': checksum.fingerprint(state.params),
    **sets.compare(before.metrics, after.metrics),
    'locality': measurements.locality(before, after),
    'accuracy_matrix': matrix,
    'transfer': transfer.measures(matrix),
    'lesson': {
      'steps': experiment.stream.steps_per_document if steps else 0,
      'flops': student.flops(state) if steps else 0,
      'wall_s': _median_lesson(_records(workdir, 'stream')),
    },
    'retention_curve': [
      {'documents': r['documents'], **sets.point(r['metrics'])} for r in curve
    ],
    'metrics_before': before.metrics,
    'metrics_after': after.metrics,
    'counts': base.task.counts,
  }


def make_learner(
  experiment: config_lib.Experiment, base: base_lib.Base
) -> learner.Learner:
  """Builds the learner of a run's stream."""
  assert experiment.stream is not None
  return learner.Learner(
    experiment.stream,
    methods.make(experiment.method),
    base,
    max_length=experiment.base.max_length,
    seed=experiment.seed,
  )


def first_state(
  experiment: config_lib.Experiment, base: base_lib.Base
) -> state_lib.TrainState:
  """The state before the first document: the base, and what a method adds."""
  assert experiment.method is not None
  method = methods.make(experiment.method)
  graphdef, params, extras = _prepared(
    base, method, experiment.base.max_length, experiment.seed
  )
  # Steps donate their state; what they start from must outlive them.
  params, extras = jax.tree.map(jnp.copy, (params, extras))
  state = state_lib.init(
    nnx.merge(graphdef, params),
    method,
    background_lib.background(experiment, base)._replace(accesses=None),
    extras,
  )
  if base.layout is None:
    # As what a step returns will lie, else the second step compiles again.
    state = jax.device_put(state, state_lib.value_table(params).sharding)
  return state


def last_state(
  experiment: config_lib.Experiment, base: base_lib.Base, workdir: pathlib.Path
) -> state_lib.TrainState:
  """The newest state that a run saved, finished or stopped.

  Args:
    experiment: The run's config.
    base: The model it started from.
    workdir: Its folder.

  Returns:
    The state.

  Raises:
    ValueError: If there is none, or it is of another run.
  """
  state = first_state(experiment, base)
  folder = workdir / 'checkpoints'
  found = _saves(experiment, base, state, folder).restore(state)
  if found is None:
    raise schema.UserError(
      f'{folder} holds no checkpoint: the run has not come to its first yet'
    )
  return found[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Saves:
  """Where a run's states are saved, and how; arguments of `resume`."""

  folder: pathlib.Path
  owner: dict[str, Any]
  base_table: jax.Array | None

  def save(self, state: state_lib.TrainState, notes: dict[str, Any]) -> None:
    resume.save(self.folder, state, self.owner, notes, self.base_table)

  def restore(self, state: state_lib.TrainState):
    return resume.restore(self.folder, state, self.owner, self.base_table)


def _saves(experiment, base, state, folder: pathlib.Path) -> _Saves:
  only_values = experiment.method.only_values
  return _Saves(
    folder=folder,
    owner={
      'config': config_lib.compared(experiment),
      'base model': base.fingerprint,
      'background': resume.background_identity(state.background),
    },
    base_table=state_lib.value_table(base.params) if only_values else None,
  )


def _check_records(workdir: pathlib.Path, start: int) -> None:
  """Checks that metrics.jsonl holds what a run up to a document measured."""
  measured = [r['documents'] for r in _records(workdir, 'evaluation')]
  streamed = [r['documents'] for r in _records(workdir, 'stream')]
  if measured[:1] != [0] or streamed != list(range(1, start + 1)):
    raise schema.UserError(
      f'{workdir / "metrics.jsonl"} lacks what was measured up to document'
      f' {start}: remove {workdir} to start again'
    )


@functools.lru_cache(maxsize=1)
def _prepared(
  base: base_lib.Base, method: method_lib.Method, max_length: int, seed: int
):
  """The model with what the method adds, and what the method computes first.

  Rates do not count here: runs of a sweep that differ in them share it.
  """
  model = nnx.merge(base.graphdef, base.params)
  if method.add_modules is not None:
    model = method.add_modules(model, nnx.Rngs(seed))
  graphdef, params = nnx.split(model)
  extras: method_lib.Extras = {}
  if method.begin is not None:
    texts = stream_lib.Batches(
      rows=base_lib.pretraining_rows(base, max_length),
      batch_size=32,
      seed=seed,
      pad_id=base.tokenizer.pad_id,
    )
    found = map(texts.batch, itertools.count())
    extras = method.begin(graphdef, params, preemption.interruptible(found))
  return graphdef, params, extras


def _evaluated(writer, documents: int, measured: measurements.Measured) -> None:
  writer.write(
    'evaluation',
    documents=documents,
    metrics=measured.metrics,
    document_recall=measured.document_recall,
  )


def _records(workdir, event) -> list[dict[str, Any]]:
  """The records of an event so far."""
  records = processes.on_main('metrics', records_lib.read_records, workdir)
  return [r for r in records if r['event'] == event]


def _median_lesson(records) -> float | None:
  seconds = [record['lesson_s'] for record in records]
  return float(np.median(seconds[1:] or seconds)) if seconds else None


def _changed(old: nnx.State, new: nnx.State) -> dict[str, Any]:
  """How much of the model differs, bit for bit; what was added counts whole."""
  before = dict(jax.tree.leaves_with_path(old))
  changed = added = total_bytes = 0
  for path, leaf in jax.tree.leaves_with_path(new):
    if path in before:
      differing = int(jnp.sum(before[path] != leaf))
    else:
      differing = leaf.size
      added += leaf.size
    changed += differing
    total_bytes += differing * leaf.dtype.itemsize
  size = sum(leaf.size for leaf in before.values()) + added
  rows = jnp.any(
    state_lib.value_table(old) != state_lib.value_table(new), axis=-1
  )
  return {
    'slots_updated': int(jnp.sum(rows)),
    'params_changed': changed,
    'bytes_changed': total_bytes,
    'params_changed_fraction': changed / size,
  }
