"""Finetunes a base on a stream of documents, measured along the way."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import io
import pathlib
import time
from typing import Any

from absl import logging
import numpy as np

from smft_jax import methods
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.evaluation import edits as edits_lib
from smft_jax.runs import base as base_lib
from smft_jax.runs import learner as learner_lib
from smft_jax.runs import measurements
from smft_jax.runs import results as results_lib
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.runtime import divergence
from smft_jax.runtime import preemption
from smft_jax.runtime import processes
from smft_jax.runtime import progress
from smft_jax.store import records as records_lib
from smft_jax.training import state as state_lib


def run(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  workdir: pathlib.Path,
  writer: records_lib.MetricsWriter,
  *,
  checkpoints: bool = True,
  show: bool = True,
  keeps_base: bool = True,
) -> dict[str, Any]:
  """Streams the documents into the model; resumes an interrupted run.

  Args:
    experiment: The config, with a `stream` and a `method`.
    base: The model to start from; not modified.
    workdir: Takes the checkpoints and the base's answers.
    writer: Takes 'stream' and 'evaluation' events.
    checkpoints: Whether to write checkpoints, without which a run cannot be
      resumed.
    show: Whether to show progress.
    keeps_base: Whether the base's parameters can be used afterwards. Without,
      the run saves memory if it trains nothing but values.

  Returns:
    The content of results.json.
  """
  if experiment.method is None or experiment.stream is None:
    raise ValueError('config.method or config.stream is missing.')
  copies = keeps_base or not experiment.method.only_values
  state = states.first_state(experiment, base, copies=copies)
  sets = measurements.make(
    base,
    experiment.evaluation,
    max_documents=experiment.stream.max_documents,
    max_length=experiment.base.max_length,
    seed=experiment.seed,
  )
  before = saved_run.measured_base(workdir)
  if before is None:
    before = measurements.measure_base(sets, base)
  edits = None
  # Without training there is nothing to measure right after.
  if base.task.are_edits and state.method.update != 'none':
    edits = edits_lib.make(sets.evaluator, sets.documents, base.params)
  saved_run.record_answers(workdir, before)
  stream = _Stream(
    experiment=experiment,
    workdir=workdir,
    writer=writer,
    checkpoints=states.checkpoints_of(experiment, base, state, workdir),
    saves=checkpoints,
    learner=make_learner(experiment, base),
    sets=sets.with_model(state.graphdef),
    edits=edits.with_model(state.graphdef) if edits else None,
    state=state if copies else states.take_over(state),
  )
  del state
  stream.restore(before)
  after = stream.learn(before, show)
  state = stream.state
  if not copies:
    base = states.given_back(base, state)
  return results_lib.of_stream(
    experiment,
    base,
    state,
    sets,
    before,
    after,
    cost={
      'wall_s': round(stream.wall_s(), 1),
      'input_wait_s': stream.spent.input_wait_s,
      'tokens': stream.spent.tokens,
    },
    flops=stream.learner.flops(state) if int(state.step) else 0,
    evaluations=stream.records('evaluation'),
    lessons=stream.records('stream'),
  )


@dataclasses.dataclass
class _Spent:
  """Time and tokens used so far; saved with the checkpoints.

  Attributes:
    tokens: Tokens seen.
    wall_s: Seconds of the stream, measurements included.
    lesson_s: Seconds of the steps on the current document.
    input_wait_s: Seconds of waiting for batches.
  """

  tokens: int = 0
  wall_s: float = 0.0
  lesson_s: float = 0.0
  input_wait_s: float = 0.0


@dataclasses.dataclass(kw_only=True)
class _Stream:
  """A run in progress."""

  experiment: config_lib.Experiment
  workdir: pathlib.Path
  writer: records_lib.MetricsWriter
  checkpoints: states.Checkpoints
  saves: bool
  learner: learner_lib.Learner
  sets: measurements.Measurements
  edits: edits_lib.Edits | None
  state: state_lib.TrainState
  spent: _Spent = dataclasses.field(default_factory=_Spent)

  def __post_init__(self) -> None:
    assert self.experiment.stream is not None
    self._settings = self.experiment.stream
    self._total = len(self.sets.documents)

  def restore(self, before: measurements.Measured) -> None:
    """Restores the newest checkpoint, or records that the run begins."""
    found = self.checkpoints.restore(self.state)
    if found is None:
      self.writer.truncate(lambda r: r['event'] in ('evaluation', 'stream'))
      self._record_evaluation(0, before)
    else:
      self.state, notes = found
      self.spent = _Spent(**notes)
      step = int(self.state.step)
      logging.info(
        'resuming after step %d from %s', step, self.checkpoints.folder
      )
      done = step // self._settings.steps_per_document
      self.writer.truncate(lambda r: r.get('documents', 0) > done)
      self._check_records(done)
    self._began = time.monotonic() - self.spent.wall_s

  def wall_s(self) -> float:
    """Returns the seconds of the stream, those of earlier runs included."""
    return time.monotonic() - self._began

  def learn(
    self, before: measurements.Measured, show: bool
  ) -> measurements.Measured:
    """Learns the remaining documents; returns the last measurement."""
    if self.state.method.update == 'none':
      after = self.sets.measure_in_context(self.state.params, before)
      self._record_evaluation(self._total, after)
      return after
    steps = self._settings.steps_per_document
    start, first = divmod(int(self.state.step), steps)
    after = before if first else self._measure_restored(start, before)
    watch = divergence.Watch(
      'the stream',
      min(self.experiment.max_skipped, self._total * steps),
      'lower the rates of config.method',
      int(self.state.skipped_in_a_row),
    )
    waited_s, tokens = self.spent.input_wait_s, self.spent.tokens
    with progress.Progress(
      'stream',
      self._total,
      'document',
      start=start,
      stream=None if show else io.StringIO(),
    ) as bar:
      for index in range(start, self._total):
        self.state, values = self.learner.learn(
          self.state, index, watch, first, bar.waiting
        )
        done, first = divmod(int(self.state.step), steps)
        self._count(values, waited_s + bar.waited_s)
        if not first:
          self._record_lesson(index, values)
          bar.update(
            done, tokens=self.spent.tokens - tokens, loss=values['loss']
          )
        stop = watch.exceeded or preemption.requested()
        # Saved before it is measured, which may take long and can be repeated.
        if stop or self._is_saved(done):
          self._save()
        if stop:
          watch.finish()
          preemption.check()
        if self._is_measured(done):
          after = self.sets.measure(self.state.params)
          self._record_evaluation(done, after)
    watch.finish()
    return after

  def records(self, event: str) -> list[dict[str, Any]]:
    """Returns the records of an event so far."""
    records = processes.on_main(
      'metrics', records_lib.read_records, self.workdir
    )
    return [r for r in records if r['event'] == event]

  def _is_measured(self, done: int) -> bool:
    every = self.experiment.evaluation.every_documents
    return done % every == 0 or done == self._total

  def _is_saved(self, done: int) -> bool:
    every = self._settings.checkpoint_every or self._total
    return self._is_measured(done) or done % every == 0

  def _measure_restored(
    self, done: int, before: measurements.Measured
  ) -> measurements.Measured:
    """Measures a restored state if the earlier run stopped before it did."""
    if not done or not self._is_measured(done):
      return before
    is_missing = self.records('evaluation')[-1]['documents'] != done
    if not is_missing and done != self._total:
      return before
    after = self.sets.measure(self.state.params)
    if is_missing:
      self._record_evaluation(done, after)
    return after

  def _count(self, values: dict[str, float], input_wait_s: float) -> None:
    """Adds the cost of the last steps; sets the lesson's total in `values`."""
    spent = self.spent
    spent.tokens += int(values.pop('tokens'))
    spent.lesson_s = round(values['lesson_s'] + spent.lesson_s, 4)
    values['lesson_s'] = spent.lesson_s
    spent.wall_s = round(self.wall_s(), 3)
    spent.input_wait_s = round(input_wait_s, 4)

  def _record_lesson(self, index: int, values: dict[str, float]) -> None:
    self.spent.lesson_s = 0.0
    is_skipped = int(self.state.skipped_in_a_row)  # which is told elsewhere
    if values.get('slots_updated') == 0 and not is_skipped:
      logging.warning(
        'document %r changed no slot: all that it reads belong to other lessons'
        ' or are read by all of the background; a larger'
        ' config.memory.num_slots or a smaller config.method.t leaves more',
        self.sets.documents[index].id,
      )
    self.writer.write(
      'stream',
      documents=index + 1,
      document=self.sets.documents[index].id,
      **values,
      tokens=self.spent.tokens,
      steps_skipped=int(self.state.skipped),
      wall_s=self.spent.wall_s,
      input_wait_s=self.spent.input_wait_s,
      **self._measure_edits([index]),
    )

  def _record_evaluation(
    self, done: int, measured: measurements.Measured
  ) -> None:
    self.writer.write(
      'evaluation',
      documents=done,
      metrics=measured.metrics,
      document_recall=[*measured.document_recall.items()],
      **self._measure_edits(self._edits_to_measure(done)),
    )

  def _measure_edits(self, chosen: Sequence[int]) -> dict[str, Any]:
    """Measures edits with the present parameters, if the documents are any."""
    if self.edits is None:
      return {}
    shares = self.edits.measure(self.state.params, chosen)
    return {'edits': {'num': len(chosen), **shares}}

  def _edits_to_measure(self, done: int) -> list[int]:
    """Returns all edits at both ends of the stream, some of the past between.

    Else the cost would grow with the square of their number.
    """
    if done in (0, self._total):
      return list(range(self._total))
    most = self.experiment.evaluation.max_entries or done
    return np.unique(
      np.linspace(0, done - 1, min(most, done)).astype(int)
    ).tolist()

  def _save(self) -> None:
    if self.saves:
      self.checkpoints.save(self.state, dataclasses.asdict(self.spent))

  def _check_records(self, done: int) -> None:
    """Checks that metrics.jsonl has all records up to a document."""
    measured = [r['documents'] for r in self.records('evaluation')]
    streamed = [r['documents'] for r in self.records('stream')]
    if measured[:1] != [0] or streamed != list(range(1, done + 1)):
      raise schema.UserError(
        f'{self.workdir / "metrics.jsonl"} lacks records up to document'
        f' {done}: remove {self.workdir} to start again'
      )


def make_learner(
  experiment: config_lib.Experiment, base: base_lib.Base
) -> learner_lib.Learner:
  """Builds the learner of a run's stream."""
  assert experiment.stream is not None
  assert experiment.method is not None
  return learner_lib.Learner(
    experiment.stream,
    methods.make(experiment.method),
    base,
    max_length=experiment.base.max_length,
    seed=experiment.seed,
  )
