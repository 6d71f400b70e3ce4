"""The stream: documents are learned one after another, and measured on the way.

What is measured is in `measurements`, what a lesson costs in `lesson`:
- `steps`: steps on a document;
- `flops`: operations of the matrix products in these steps, forward, backward
  and update, counted in the program (`smft_jax.flops`);
- `wall_s`: median over documents of the seconds that these steps took,
  batches included, measurements not; the first document compiles and is left
  out where there are others.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import pathlib
import time
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import base as base_lib
from smft_jax import checkpoint
from smft_jax import config as config_lib
from smft_jax import corpora
from smft_jax import learner
from smft_jax import measurements
from smft_jax import method as method_lib
from smft_jax import methods
from smft_jax import metrics
from smft_jax import train_step
from smft_jax import transfer


def run(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  workdir: pathlib.Path,
  writer: metrics.MetricsWriter,
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
  folder = workdir / 'checkpoints'
  state = first_state(experiment, base)
  sets, before = measurements.of_base(experiment, base)
  metrics.write_json(workdir / 'outputs_before.json', before.answers)
  start, state = checkpoint.restore_state(folder, state)
  if start is None:
    start = 0
    writer.truncate(lambda r: r['event'] in ('evaluation', 'stream'))
    _evaluated(writer, 0, before)
  else:
    writer.truncate(lambda r: r.get('documents', 0) > start)
    measured = [r['documents'] for r in _records(workdir, 'evaluation')]
    if measured[:1] != [0] or measured[-1] != start:
      raise config_lib.UserError(
        f'{workdir / "metrics.jsonl"} lacks what was measured up to document'
        f' {start}: remove {workdir} to start again'
      )
  sets = dataclasses.replace(
    sets,
    evaluator=dataclasses.replace(sets.evaluator, graphdef=state.graphdef),
  )
  spent = [{'tokens': 0, 'wall_s': 0.0}, *_records(workdir, 'stream')][-1]
  tokens, began = spent['tokens'], time.monotonic() - spent['wall_s']
  student = learner.Learner(experiment, base)
  total = len(sets.documents)
  after = before
  if state.method.update == 'none':
    start = total
    after = sets.take_in_context(state.params, before)
    _evaluated(writer, total, after)
  elif start == total:  # stopped between its last document and its results
    after = sets.take(state.params)
  stream = None if show else io.StringIO()
  with metrics.Progress(
    'stream', total, 'document', start=start, stream=stream
  ) as bar:
    for index in range(start, total):
      state, values = student.learn(state, index)
      tokens += values.pop('tokens')
      done = index + 1
      bar.update(done, tokens=tokens - spent['tokens'], loss=values['loss'])
      writer.write(
        'stream',
        documents=done,
        document=sets.documents[index].id,
        **values,
        tokens=tokens,
        wall_s=round(time.monotonic() - began, 3),
      )
      every = experiment.evaluation.every_documents
      if done % every == 0 or done == total:
        after = sets.take(state.params)
        _evaluated(writer, done, after)
        if checkpoints:
          checkpoint.save_state(folder, done, state)
  curve = _records(workdir, 'evaluation')
  matrix = transfer.accuracy_matrix(
    [(r['documents'], r['document_recall']) for r in curve]
  )
  steps = int(state.step)
  return {
    'method': experiment.method.name,
    'seed': experiment.seed,
    'steps': steps,
    'wall_s': round(time.monotonic() - began, 1),
    'tokens': tokens,
    **_changed(base.params, state.params),
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


def first_state(
  experiment: config_lib.Experiment, base: base_lib.Base
) -> train_step.TrainState:
  """The state before the first document: the base, and what a method adds."""
  assert experiment.method is not None
  method = methods.METHODS[experiment.method.name].make(experiment.method)
  graphdef, params, extras = _prepared(
    base, method, experiment.base.max_length, experiment.seed
  )
  # Steps donate their state; what they start from must outlive them.
  params, extras = jax.tree.map(jnp.copy, (params, extras))
  return train_step.init_state(
    nnx.merge(graphdef, params),
    method,
    corpora.background(experiment, base),
    extras,
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
    texts = corpora.stream(
      base.task.pretraining,
      base.tokenizer,
      max_length,
      batch_size=32,
      seed=seed,
    )
    extras = method.begin(graphdef, params, texts)
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
  return [r for r in metrics.read_records(workdir) if r['event'] == event]


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
  rows = jnp.any(train_step.table(old) != train_step.table(new), axis=-1)
  return {
    'slots_updated': int(jnp.sum(rows)),
    'params_changed': changed,
    'bytes_changed': total_bytes,
    'params_changed_fraction': changed / size,
  }
