"""Finds the facts of a run's lessons, and the slots that hold them.

With one memory layer, the slots that a text reads do not change while values
train, so the slots chosen at every step are recovered exactly. With several
layers they are those that the base would have chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import ranking
from smft_jax.analyze import core_sets
from smft_jax.analyze import reads as reads_lib
from smft_jax.config import experiment as config_lib
from smft_jax.data import task
from smft_jax.runs import base as base_lib
from smft_jax.runs import finetune
from smft_jax.runtime import preemption
from smft_jax.runtime import progress
from smft_jax.sharded import layout as layout_lib
from smft_jax.training import state as state_lib
from smft_jax.training import step as step_lib

# Most lessons whose facts are analysed, evenly spaced over the stream.
_LESSONS = 50

# Most lessons whose first step goes into the curve of scores over ranks.
_CURVES = 16


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeldFact:
  """A fact and the slots that hold it.

  Attributes:
    fact: The fact.
    lesson: Index of its document in the stream.
    reads: The reads of each text that states it.
    asked: The reads of its question with the answer; None without a question.
    shared: Slots that every text reads.
    core: The core set.
    trained: The slots that its lesson changed, best first.
    background: The same number of slots, those the background reads most.
  """

  fact: core_sets.Fact
  lesson: int
  reads: tuple[reads_lib.Reads, ...]
  asked: reads_lib.Reads | None
  shared: np.ndarray
  core: np.ndarray
  trained: np.ndarray
  background: np.ndarray

  @property
  def trained_core(self) -> np.ndarray:
    """The slots of the core set that the lesson changed, best first."""
    return self.trained[np.isin(self.trained, self.core)]

  @property
  def rest(self) -> np.ndarray:
    """The slots that the lesson changed outside the core set, best first."""
    return self.trained[~np.isin(self.trained, self.core)]


def chosen_slots(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  first: state_lib.TrainState,
) -> tuple[list[np.ndarray], np.ndarray]:
  """Recovers the slots that the steps of a run chose.

  Returns:
    For each lesson the slots that its steps chose, best first by the sum of
    their scores; and the scores [steps, N] in the first step of some lessons.
  """
  assert experiment.stream is not None
  student = finetune.make_learner(experiment, base)
  steps = experiment.stream.steps_per_document
  total = len(base.task.documents[: experiment.stream.max_documents])
  sampled = set(evenly_spaced(total, _CURVES))
  chosen, sample = [], []
  state = jax.tree.map(jnp.copy, first)  # selecting per document donates it
  with progress.Progress('slots of each lesson', total, 'lesson') as bar:
    for index in preemption.interruptible(range(total)):
      summed, slots = np.zeros(experiment.memory.num_slots), []
      for step in range(1 if first.method.per_document else steps):
        if first.method.per_document:
          batch = student.batches.texts(index)
        else:
          batch = student.batches.step(index, step).batch
        at = dataclasses.replace(state, step=jnp.int32(index * steps + step))
        scores_N = step_lib.slot_scores(at, batch)
        slots.append(np.asarray(ranking.top_slots(scores_N, at.method.top_t)))
        scores = layout_lib.to_numpy(scores_N)
        summed += scores
        if index in sampled and not step:
          sample.append(scores)
      if first.method.grows_background:
        state = student.begin(state, index)
      found = np.unique(np.concatenate(slots))
      found = found[found < len(summed)]  # drops unused places
      chosen.append(core_sets.in_rank_order(found, summed))
      bar.update(index + 1)
  return chosen, np.stack(sample)


def find(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  first: state_lib.TrainState,
  lessons: Sequence[np.ndarray],
) -> tuple[HeldFact, ...]:
  """Finds the facts of the lessons, or of a sample if there are many.

  `lessons` holds for each lesson the slots it changed, best first.
  """
  assert experiment.stream is not None
  assert first.background is not None
  frequency = layout_lib.to_numpy(first.background.document_frequency)
  common = core_sets.in_rank_order(np.arange(len(frequency)), frequency)
  found: list[HeldFact] = []
  chosen = evenly_spaced(len(lessons), _LESSONS)
  with progress.Progress('reads of its texts', len(chosen), 'lesson') as bar:
    for done, index in enumerate(preemption.interruptible(chosen), start=1):
      document = base.task.documents[index]
      facts = core_sets.find_facts(document)
      questions = [
        _mark_entities(fact.question.full_text(), document.augmentations)
        for fact in facts
        if fact.question is not None
      ]
      reads = reads_lib.read_texts(
        base.graphdef,
        base.params,
        [*document.augmentations, *questions],
        base.tokenizer,
        max_length=experiment.base.max_length,
        batch_size=experiment.stream.batch_size,
      )
      answering = iter(reads[len(document.augmentations) :])
      for fact in facts:
        asked = next(answering) if fact.question is not None else None
        slots = [reads[i].slots for i in fact.texts]
        held = HeldFact(
          fact=fact,
          lesson=index,
          reads=tuple(reads[i] for i in fact.texts),
          asked=asked,
          shared=core_sets.shared_slots(slots),
          core=core_sets.core_set(
            slots, None if asked is None else asked.slots
          ),
          trained=lessons[index],
          background=common[: len(lessons[index])],
        )
        found.append(held)
      bar.update(done)
  return tuple(found)


def _mark_entities(text: task.Text, others: Sequence[task.Text]) -> task.Text:
  """Marks the entities in a text that are marked in other texts."""
  names = {one.text[slice(*span)] for one in others for span in one.entities}
  starts = {text.text.find(name): name for name in sorted(names)}
  found = ((at, at + len(name)) for at, name in starts.items() if at >= 0)
  return dataclasses.replace(text, entities=tuple(sorted(found)))


def evenly_spaced(total: int, most: int) -> list[int]:
  """Returns at most `most` indices below `total`, starting with 0.

  Example:
    >>> evenly_spaced(10, 4), evenly_spaced(2, 4)
    ([0, 2, 5, 7], [0, 1])
  """
  count = min(total, most)
  return [total * i // count for i in range(count)]
