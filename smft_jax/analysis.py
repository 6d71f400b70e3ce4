"""What a finished run's memory learned: core sets, alignment, health.

Everything is computed from the base, the finished table and the run's own
batches. With one memory layer the slots that a text reads do not change while
values are trained, so that the slots of every step are found again exactly;
with several they are those that the base would have chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from smft_jax import alignment
from smft_jax import base as base_lib
from smft_jax import config as config_lib
from smft_jax import core_sets
from smft_jax import evaluate
from smft_jax import learner
from smft_jax import lesson as lesson_lib
from smft_jax import preemption
from smft_jax import progress
from smft_jax import ranking
from smft_jax import reads as reads_lib
from smft_jax import scores as scores_lib
from smft_jax import sharding
from smft_jax import stream_health
from smft_jax import sufficiency
from smft_jax import train_step

# Lessons whose texts are looked at, evenly spaced over the stream.
_LESSONS = 50

# Lessons whose scores go into the curve over ranks.
_CURVES = 16

# Texts by which drift is measured.
_DRIFT_TEXTS = 256

# A slot that more of the background's documents read says nothing of a fact.
_COMMON = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeldFact:
  """A fact and the slots that hold it.

  Attributes:
    fact: The fact.
    lesson: Place of its document in the stream.
    reads: What each text that tells it read.
    asked: What its question with the answer read; None without one.
    shared: Slots that every text reads.
    core: The core set.
    trained: The slots that its lesson changed, best first.
    background: As many slots, those that the background reads most.
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
  """What `analyse` found.

  Attributes:
    numbers: What analysis.json holds.
    facts: The facts that were looked at.
  """

  numbers: dict[str, Any]
  facts: tuple[HeldFact, ...]


def analyse(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  first: train_step.TrainState,
  last: train_step.TrainState,
) -> Analysis:
  """Looks at a finished run of sparse memory finetuning.

  Args:
    experiment: Its config.
    base: The model it started from.
    first: The state before its first step.
    last: The state after its last.

  Returns:
    What was found.
  """
  changed = lesson_lib.difference(
    train_step.table(base.params), train_step.table(last.params)
  )
  chosen, score_sample = _replay(experiment, base, first)
  lessons = [slots[np.isin(slots, changed.slots)] for slots in chosen]
  facts = _facts(experiment, base, first, lessons)
  numbers: dict[str, Any] = {
    't': first.method.top_t,
    'lessons': len(lessons),
    'slots': changed.num_slots,
    'slots_changed': len(changed.slots),
    # 0 with one memory layer, else what the base would not have chosen.
    'changed_but_not_found': len(
      np.setdiff1d(changed.slots, np.concatenate(chosen))
    ),
    'facts': [_numbers_of(held, first) for held in facts],
    'alignment': _alignment(facts, experiment.seed),
    'health': _health(experiment, base, first, last, lessons, score_sample),
  }
  asked = [i for i, held in enumerate(facts) if held.fact.question is not None]
  if asked:
    numbers |= _answers(experiment, base, last, changed, facts, asked, numbers)
  return Analysis(numbers=numbers, facts=facts)


def _replay(experiment, base, first: train_step.TrainState):
  """Of each lesson the slots its steps chose, best first; scores of some."""
  student = learner.Learner(experiment, base)
  steps = experiment.stream.steps_per_document
  total = len(base.task.documents[: experiment.stream.max_documents])
  sampled = set(_evenly(total, _CURVES))
  chosen, sample = [], []
  with progress.Progress('slots of each lesson', total, 'lesson') as bar:
    for index in preemption.until_requested(range(total)):
      summed, slots = 0.0, []
      for step in range(steps):
        batch, _, _ = student.batch(index, step)
        at = dataclasses.replace(first, step=jnp.int32(index * steps + step))
        scores_N = train_step.slot_scores(at, batch)
        slots.append(np.asarray(ranking.top_slots(scores_N, at.method.top_t)))
        scores = sharding.to_numpy(scores_N)
        summed = summed + scores
        if index in sampled and not step:
          sample.append(scores)
      found = np.unique(np.concatenate(slots))
      found = found[found < len(scores)]  # places that no slot took
      chosen.append(core_sets.in_rank_order(found, summed))
      bar.update(index + 1)
  return chosen, np.stack(sample)


def _facts(experiment, base, first, lessons) -> tuple[HeldFact, ...]:
  """The facts of some lessons, and what their texts read."""
  documents = base.task.documents
  frequency = sharding.to_numpy(first.background.document_frequency)
  common = core_sets.in_rank_order(np.arange(len(frequency)), frequency)
  found: list[HeldFact] = []
  chosen = _evenly(len(lessons), _LESSONS)
  with progress.Progress('reads of its texts', len(chosen), 'lesson') as bar:
    for done, index in enumerate(preemption.until_requested(chosen), start=1):
      told = core_sets.facts_of(documents[index])
      asked = [f.question.full_text() for f in told if f.question is not None]
      every = reads_lib.of_texts(
        base.graphdef,
        base.params,
        [*documents[index].augmentations, *asked],
        base.tokenizer,
        max_length=experiment.base.max_length,
        batch_size=experiment.stream.batch_size,
      )
      answering = iter(every[len(documents[index].augmentations) :])
      for fact in told:
        texts = tuple(every[i] for i in fact.texts)
        question = next(answering) if fact.question is not None else None
        slots = [one.slots for one in texts]
        found.append(
          HeldFact(
            fact=fact,
            lesson=index,
            reads=texts,
            asked=question,
            shared=core_sets.shared_slots(slots),
            core=core_sets.core_set(slots, question and question.slots),
            trained=lessons[index],
            background=common[: len(lessons[index])],
          )
        )
      bar.update(done)
  return tuple(found)


def _numbers_of(held: HeldFact, first: train_step.TrainState) -> dict[str, Any]:
  """What analysis.json says of a fact."""
  assert first.background is not None
  frequency = sharding.to_numpy(first.background.document_frequency)
  documents = float(first.background.num_documents)
  at_answer = None
  if held.asked is not None:
    answering = held.asked.answering().slots
    at_answer = len(np.intersect1d(held.core, answering))
  trained = held.trained_core
  return {
    'fact': held.fact.name,
    'lesson': held.lesson,
    'paraphrases': len(held.reads),
    'read_by_every_paraphrase': len(held.shared),
    'core': len(held.core),
    'core_read_at_the_answer': at_answer,
    'core_common': int(np.sum(frequency[held.core] > _COMMON * documents)),
    'lesson_rows': len(held.trained),
    'core_trained': len(trained),
    'core_slots': held.core,
    'core_slots_trained': trained,
  }


def _answers(
  experiment, base, last, changed, facts, asked, numbers
) -> dict[str, Any]:
  """What is answered with which rows; writes it to each fact too."""
  held = [facts[i] for i in asked]
  questions = [h.fact.question for h in held]
  room = max(1, *(len(h.trained) for h in held))
  size = sufficiency.batch_size(
    len(held), room, changed.new.shape[1], experiment.evaluation.batch_size
  )
  evaluator = evaluate.Evaluator(
    graphdef=base.graphdef,
    tokenizer=base.tokenizer,
    batch_size=size,
    max_length=experiment.base.max_length,
    max_answer_tokens=experiment.evaluation.max_answer_tokens,
  )
  ways = {
    'base': [h.trained[:0] for h in held],
    'core_only': [h.trained_core for h in held],
    'all_but_core': [h.rest for h in held],
    'lesson': [h.trained for h in held],
  }
  right = {
    name: sufficiency.answered(
      evaluator, base.params, changed, questions, slots, room
    )
    for name, slots in ways.items()
  }
  final = evaluator.answers(last.params, questions)
  right['run'] = np.array(
    [
      scores_lib.exact_match(answer, question.answers) > 0
      for answer, question in zip(final, questions, strict=True)
    ]
  )
  curves: dict[str, Any] = {}
  for name, ordered in (
    ('lesson', ways['lesson']),
    ('core', ways['core_only']),
  ):
    sizes = core_sets.sizes_up_to(max(1, *map(len, ordered)))
    right_SxQ = sufficiency.by_rows(
      evaluator, base.params, changed, questions, ordered, sizes, room
    )
    curves[name] = {'rows': sizes, 'answered': right_SxQ.mean(axis=1)}
    for place, i in enumerate(asked):
      enough = core_sets.smallest_enough(sizes, right_SxQ[:, place])
      numbers['facts'][i][f'enough_rows_of_{name}'] = enough
    if name == 'lesson':
      lessons = _enough_for_lessons(held, sizes, right_SxQ)
  for place, i in enumerate(asked):
    numbers['facts'][i]['answered'] = {
      k: bool(v[place]) for k, v in right.items()
    }
  return {
    'answered': {name: float(found.mean()) for name, found in right.items()},
    'by_rows': curves,
    'enough_for_lessons': lessons,
  }


def _enough_for_lessons(
  held: Sequence[HeldFact], sizes: Sequence[int], right_SxQ: np.ndarray
) -> list[dict[str, Any]]:
  """The fewest rows with which a lesson answers as much as with all."""
  found = []
  of_lesson = np.array([h.lesson for h in held])
  for index in np.unique(of_lesson):
    right_S = right_SxQ[:, of_lesson == index].sum(axis=1)
    rows = len(held[int(np.argmax(of_lesson == index))].trained)
    enough = core_sets.smallest_enough(sizes, right_S >= right_S[-1])
    found.append(
      {
        'lesson': int(index),
        'rows': rows,
        'answered': int(right_S[-1]),
        # More than it has is all of them.
        'enough': min(enough or rows, rows) if right_S[-1] else None,
      }
    )
  return found


def _alignment(facts: Sequence[HeldFact], seed: int) -> dict[str, Any]:
  """How reads of each kind of slots align with entities."""
  reads = [one for held in facts for one in held.reads]

  def slots(kind: str) -> list[np.ndarray]:
    return [getattr(held, kind) for held in facts for _ in held.reads]

  return {
    kind: alignment.of_reads(reads, slots(kind), seed)
    for kind in ('core', 'trained', 'background')
  }


def _health(experiment, base, first, last, lessons, score_sample):
  """Memory health, counted by the background and over the stream."""
  document_frequency = sharding.to_numpy(first.background.document_frequency)
  documents = float(first.background.num_documents)
  found: dict[str, Any] = {
    'overlap': stream_health.lesson_overlap(lessons),
    'curve': stream_health.score_curve(score_sample, first.method.top_t),
    'drift': _drift(experiment, base, last),
    't': first.method.top_t,
  }
  if documents:
    found['document_frequency'] = stream_health.frequency_histogram(
      document_frequency, documents
    )
    found['documents'] = documents
  return found


def _drift(experiment, base, last) -> float:
  """How many reads of pretraining texts are of other slots than before."""
  texts = base.task.pretraining
  chosen = [texts[i] for i in _evenly(len(texts), _DRIFT_TEXTS)]
  before, after = (
    reads_lib.of_texts(
      base.graphdef,
      params,
      chosen,
      base.tokenizer,
      max_length=experiment.base.max_length,
      batch_size=experiment.stream.batch_size,
    )
    for params in (base.params, last.params)
  )
  return stream_health.slot_drift(
    np.concatenate([one.slot_ids for one in before]),
    np.concatenate([one.slot_ids for one in after]),
  )


def _evenly(total: int, most: int) -> list[int]:
  """At most so many of some places, the first among them.

  Example:
    >>> _evenly(10, 4), _evenly(2, 4)
    ([0, 2, 5, 7], [0, 1])
  """
  count = min(total, most)
  return [total * i // count for i in range(count)]
