"""The stream: documents are learned one after another, and measured on the way.

What is measured, by name:
- `target`: questions on the streamed documents in phrasings that training
  showed; where there are none, the loss on the documents themselves;
- `target_unseen_phrasing`: questions in phrasings that it never showed;
- `held_out`: every other set of the task, all outside the stream.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from typing import Any

from absl import logging
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import base as base_lib
from smft_jax import checkpoint
from smft_jax import config as config_lib
from smft_jax import evaluate
from smft_jax import methods
from smft_jax import metrics
from smft_jax import train_step
from smft_jax.data import batches
from smft_jax.data import task as task_lib

Measures = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurements:
  """The sets that are measured, and how.

  Attributes:
    evaluator: Measures parameters.
    questions: Question sets by name.
    texts: Text sets by name.
    metric: Headline metric of question sets: 'recall', 'f1' or 'nll'.
  """

  evaluator: evaluate.Evaluator
  questions: dict[str, tuple[task_lib.Question, ...]]
  texts: dict[str, tuple[task_lib.Text, ...]]
  metric: str

  def take(self, params) -> Measures:
    """All metrics of every set."""
    measured: Measures = {}
    for name, questions in self.questions.items():
      measured[name] = self.evaluator.question_metrics(params, questions)
    for name, texts in self.texts.items():
      measured[name] = {'nll': self.evaluator.text_nll(params, texts)}
    return measured

  def headline(self, name: str) -> str:
    """The metric that stands for a set."""
    return self.metric if name in self.questions else 'nll'


def measurements(
  experiment: config_lib.Experiment, base: base_lib.Base
) -> Measurements:
  """The sets of a run; names are described at the head of this module."""
  settings = experiment.evaluation
  task = base.task
  streamed = _documents(experiment, base)
  questions, texts = dict(task.questions), dict(task.texts)
  asked = [q for document in streamed for q in document.questions]
  seen = tuple(q for q in asked if q.seen)
  unseen = tuple(q for q in asked if not q.seen)
  if seen:
    questions['target'] = seen
  elif streamed:
    texts['target'] = tuple(t for d in streamed for t in d.texts)
  if unseen:
    questions['target_unseen_phrasing'] = unseen
  evaluator = evaluate.Evaluator(
    graphdef=base.graphdef,
    tokenizer=base.tokenizer,
    batch_size=settings.batch_size,
    max_length=experiment.base.max_length,
    max_answer_tokens=settings.max_answer_tokens,
  )
  draw = functools.partial(
    _draw, size=settings.max_entries, seed=experiment.seed
  )
  return Measurements(
    evaluator=evaluator,
    questions={name: draw(entries) for name, entries in questions.items()},
    texts={name: draw(entries) for name, entries in texts.items()},
    metric=settings.metric,
  )


def run(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  workdir: pathlib.Path,
  writer: metrics.MetricsWriter,
) -> dict[str, Any]:
  """Streams the documents into the memory; resumes where an earlier run was.

  Args:
    experiment: The config, with a `stream` and a `method`.
    base: The model to start from; it is left as it was.
    workdir: Takes the checkpoints.
    writer: Takes 'stream' and 'evaluation' events.

  Returns:
    What DESIGN section 5 calls results.json.
  """
  chosen = experiment.method
  if chosen is None:
    raise ValueError('config.method is missing, and config.stream needs it.')
  method = methods.METHODS[chosen.name](
    update=chosen.update,
    ranking_name=chosen.ranking,
    t=chosen.t,
    optimizer=chosen.optimizer,
    learning_rate=chosen.learning_rate,
  )
  statistics = base_lib.background(experiment, base)
  # Steps donate their state; the base must outlive them.
  params = jax.tree.map(jnp.copy, base.params)
  state = train_step.init_state(
    nnx.merge(base.graphdef, params), method, statistics
  )
  sets = measurements(experiment, base)
  start, state = checkpoint.restore_state(workdir / 'checkpoints', state)
  if start is None:
    start = 0
    writer.truncate(lambda r: r['event'] in ('evaluation', 'stream'))
    logging.info('measuring what the base knows')
    writer.write('evaluation', documents=0, metrics=sets.take(state.params))
  else:
    writer.truncate(lambda r: r.get('documents', 0) > start)
    measured = [r['documents'] for r in _records(workdir, 'evaluation')]
    if measured[:1] != [0] or measured[-1] != start:
      raise config_lib.UserError(
        f'{workdir / "metrics.jsonl"} lacks what was measured up to document'
        f' {start}: remove {workdir} to start again'
      )
  spent = [{'tokens': 0, 'wall_s': 0.0}, *_records(workdir, 'stream')][-1]
  tokens, began = spent['tokens'], time.monotonic() - spent['wall_s']
  documents = _documents(experiment, base)
  rows = [_rows(experiment, base, document) for document in documents]
  length = batches.bucket_length(max(r.longest for r in rows), 4)
  shape = (max(map(len, rows)), length)
  with metrics.Progress('stream', len(rows), 'document', start=start) as bar:
    for index in range(start, len(rows)):
      state, values, seen = _learn(
        experiment, base, state, rows[index], index, shape
      )
      tokens += seen
      done = index + 1
      bar.update(done, tokens=seen, loss=values['loss'])
      writer.write(
        'stream',
        documents=done,
        document=documents[index].id,
        **values,
        tokens=tokens,
        wall_s=round(time.monotonic() - began, 3),
      )
      every = experiment.evaluation.every_documents
      if done % every == 0 or done == len(rows):
        writer.write(
          'evaluation', documents=done, metrics=sets.take(state.params)
        )
        checkpoint.save_state(workdir / 'checkpoints', done, state)
  curve = _records(workdir, 'evaluation')
  before, after = curve[0]['metrics'], curve[-1]['metrics']
  return {
    'method': chosen.name,
    'seed': experiment.seed,
    'steps': int(state.step),
    'wall_s': round(time.monotonic() - began, 1),
    'tokens': tokens,
    **_changed(base.params, state.params),
    **_compare(sets, before, after),
    'retention_curve': [
      {'documents': r['documents'], **_point(sets, r['metrics'])} for r in curve
    ],
    'metrics_before': before,
    'metrics_after': after,
    'counts': base.task.counts,
  }


def _learn(experiment, base, state, rows, index, shape):
  """Takes the steps on one document.

  Args:
    experiment: The config.
    base: The model that the stream began with.
    state: Before the document.
    rows: What the document is trained on.
    index: Its place in the stream.
    shape: Rows and length that no document exceeds.

  Returns:
    The state, the last step's metrics as numbers, and the tokens seen.
  """
  settings = experiment.stream
  seed = experiment.seed * 1_000_003 + index
  pad_id = base.tokenizer.pad_id
  hidden = None
  if settings.reuse_hidden:
    # Filled up to one shape, so that all documents share a program.
    filled = np.resize(np.arange(len(rows)), shape[0])
    whole = batches.pad(rows.take(filled), shape[1], pad_id)
    hidden = train_step.hidden_below_memory(
      state.graphdef, state.params, whole.tokens, whole.mask
    )
  tokens = 0
  for step in range(settings.steps_per_document):
    chosen = batches.rows_at(len(rows), step, settings.batch_size, seed)
    batch = batches.pad(rows.take(chosen), shape[1], pad_id)
    tokens += int(np.sum(batch.mask))
    state, values = train_step.train_step(
      state, batch, None if hidden is None else hidden[chosen]
    )
  values = {
    name: float(values[name])
    for name in ('loss', 'slots_accessed', 'slots_updated')
  }
  return state, values, tokens


def _records(workdir, event) -> list[dict[str, Any]]:
  """The records of an event so far."""
  return [r for r in metrics.read_records(workdir) if r['event'] == event]


def _rows(experiment, base, document) -> batches.Encoded:
  """What a document is trained on."""
  return batches.tokenize(
    document.augmentations,
    base.tokenizer,
    max_length=experiment.base.max_length,
    context_weight=experiment.stream.context_weight,
    answer_weight=experiment.stream.answer_weight,
  )


def _draw(entries: tuple, *, size: int | None, seed: int) -> tuple:
  """At most `size` entries, in their order; the same ones for a seed."""
  if size is None or len(entries) <= size:
    return entries
  rng = np.random.default_rng(seed)
  chosen = np.sort(rng.choice(len(entries), size, replace=False))
  return tuple(entries[i] for i in chosen)


def _documents(experiment, base) -> tuple[task_lib.Document, ...]:
  if experiment.stream is None:
    return ()
  return base.task.documents[: experiment.stream.max_documents]


def _compare(sets: Measurements, before: Measures, after: Measures):
  """Before and after by the headline metric, as results.json has it."""

  def entry(name):
    metric = sets.headline(name)
    return {
      'metric': metric,
      'before': before[name][metric],
      'after': after[name][metric],
    }

  held_out = {}
  for name in before:
    if not name.startswith('target'):
      held_out[name] = entry(name)
      held_out[name]['relative_drop'] = metrics.relative_drop(**held_out[name])
  targets = {name: entry(name) for name in before if name.startswith('target')}
  return {**targets, 'held_out': held_out}


def _point(sets: Measurements, measured: Measures) -> dict[str, Any]:
  """One point of the retention curve."""
  values = {k: v[sets.headline(k)] for k, v in measured.items()}
  targets = {k: v for k, v in values.items() if k.startswith('target')}
  held_out = {k: v for k, v in values.items() if k not in targets}
  return {**targets, 'held_out': held_out}


def _changed(old, new) -> dict[str, Any]:
  """How much of the model differs, bit for bit."""
  pairs = list(zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True))
  changed = sum(int(jnp.sum(a != b)) for a, b in pairs)
  total = sum(a.size for a, _ in pairs)
  rows = jnp.any(train_step.table(old) != train_step.table(new), axis=-1)
  return {
    'slots_updated': int(jnp.sum(rows)),
    'params_changed_fraction': changed / total,
  }
