"""What a finished run's memory learned: core sets, alignment, health.

Everything is computed from the base, the finished table and the run's own
batches: nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from smft_jax import lesson as lesson_lib
from smft_jax.analyze import alignment
from smft_jax.analyze import core_sets
from smft_jax.analyze import held_facts
from smft_jax.analyze import reads as reads_lib
from smft_jax.analyze import stream_health
from smft_jax.analyze import sufficiency
from smft_jax.config import experiment as config_lib
from smft_jax.evaluation import evaluate
from smft_jax.evaluation import health
from smft_jax.evaluation import scores as scores_lib
from smft_jax.runs import base as base_lib
from smft_jax.runtime import progress
from smft_jax.sharded import layout as layout_lib
from smft_jax.training import step as step_lib

# Pretraining texts by which drift and usage are measured.
_DRIFT_TEXTS, _USAGE_TEXTS = 256, 2048

# A slot that more of the background's documents read says nothing of a fact.
_COMMON = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
  """What `analyse` found.

  Attributes:
    numbers: What analysis.json holds.
    facts: The facts that were looked at.
  """

  numbers: dict[str, Any]
  facts: tuple[held_facts.HeldFact, ...]


def analyse(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  first: step_lib.TrainState,
  last: step_lib.TrainState,
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
    step_lib.table(base.params), step_lib.table(last.params)
  )
  chosen, score_sample = held_facts.chosen_slots(experiment, base, first)
  lessons = [slots[np.isin(slots, changed.slots)] for slots in chosen]
  facts = held_facts.find(experiment, base, first, lessons)
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


def _numbers_of(
  held: held_facts.HeldFact, first: step_lib.TrainState
) -> dict[str, Any]:
  """What analysis.json says of a fact."""
  assert first.background is not None
  frequency = layout_lib.to_numpy(first.background.document_frequency)
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
  ordered = {'lesson': ways['lesson'], 'core': ways['core_only']}
  sizes = {
    name: core_sets.sizes_up_to(max(1, *map(len, slots)))
    for name, slots in ordered.items()
  }
  tries = len(ways) + sum(map(len, sizes.values()))
  with progress.Progress('answers with fewer rows', tries, 'try') as bar:
    done = itertools.count(1)

    def answered(slots: Sequence[np.ndarray]) -> np.ndarray:
      right = sufficiency.answered(
        evaluator, base.params, changed, questions, slots, room
      )
      bar.update(next(done))
      return right

    right = {name: answered(slots) for name, slots in ways.items()}
    right_SxQ = {
      name: np.stack(
        [answered([one[:size] for one in slots]) for size in sizes[name]]
      )
      for name, slots in ordered.items()
    }
  final = evaluator.answers(last.params, questions)
  right['run'] = np.array(
    [
      scores_lib.exact_match(answer, question.answers) > 0
      for answer, question in zip(final, questions, strict=True)
    ]
  )
  for place, i in enumerate(asked):
    for name in ordered:
      numbers['facts'][i][f'enough_rows_of_{name}'] = core_sets.smallest_enough(
        sizes[name], right_SxQ[name][:, place]
      )
    numbers['facts'][i]['answered'] = {
      name: bool(found[place]) for name, found in right.items()
    }
  return {
    'answered': {name: float(found.mean()) for name, found in right.items()},
    'by_rows': {
      name: {'rows': sizes[name], 'answered': right_SxQ[name].mean(axis=1)}
      for name in ordered
    },
    'enough_for_lessons': _enough_for_lessons(
      held, sizes['lesson'], right_SxQ['lesson']
    ),
  }


def _enough_for_lessons(
  held: Sequence[held_facts.HeldFact],
  sizes: Sequence[int],
  right_SxQ: np.ndarray,
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


def _alignment(
  facts: Sequence[held_facts.HeldFact], seed: int
) -> dict[str, Any]:
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
  document_frequency = layout_lib.to_numpy(first.background.document_frequency)
  documents = float(first.background.num_documents)
  found: dict[str, Any] = {
    'overlap': stream_health.lesson_overlap(lessons),
    'curve': stream_health.score_curve(score_sample, first.method.top_t),
    'drift': stream_health.slot_drift(
      *(
        _old_reads(experiment, base, params, _DRIFT_TEXTS)
        for params in (base.params, last.params)
      )
    ),
    'usage': health.measure(
      np.bincount(
        _old_reads(experiment, base, base.params, _USAGE_TEXTS).ravel(),
        minlength=len(document_frequency),
      )
    ),
    't': first.method.top_t,
  }
  if documents:
    found['document_frequency'] = stream_health.frequency_histogram(
      document_frequency, documents
    )
    found['documents'] = documents
  return found


def _old_reads(experiment, base, params, most: int) -> np.ndarray:
  """int [tokens, A], what some pretraining texts read."""
  texts = base.task.pretraining
  found = reads_lib.of_texts(
    base.graphdef,
    params,
    [texts[i] for i in held_facts.evenly(len(texts), most)],
    base.tokenizer,
    max_length=experiment.base.max_length,
    batch_size=experiment.stream.batch_size,
  )
  return np.concatenate([one.slot_ids for one in found])
