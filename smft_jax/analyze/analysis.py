"""Computes what a finished run's memory learned: core sets, alignment, health.

Everything follows from the base, the finished table and the run's batches;
nothing is trained.
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
from smft_jax.evaluation import health
from smft_jax.runs import base as base_lib
from smft_jax.runs import corpus as corpus_lib
from smft_jax.runs import sets as sets_lib
from smft_jax.runtime import progress
from smft_jax.sharded import layout as layout_lib
from smft_jax.training import state as state_lib

KINDS = {
  'core': 'the core set',
  'trained': 'slots that the lesson changed',
  'background': 'slots that the background reads most',
}
"""The kinds of slots whose reads are compared, and their descriptions."""

# Most pretraining texts that drift and usage are measured on.
_DRIFT_TEXTS, _USAGE_TEXTS = 256, 2048

# A slot is common if more than this share of background documents read it.
_COMMON = 0.5


def analyse(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  first: state_lib.TrainState,
  last: state_lib.TrainState,
) -> tuple[dict[str, Any], tuple[held_facts.HeldFact, ...]]:
  """Analyses a finished run of sparse memory finetuning.

  Args:
    experiment: The run's config.
    base: Its base.
    first: The state before its first step.
    last: The state after its last step.

  Returns:
    The content of analysis.json, and the facts that were analysed.
  """
  changed = lesson_lib.difference(
    *(state_lib.value_table(p) for p in (base.params, last.params)),
    *(state_lib.slot_lessons(p) for p in (base.params, last.params)),
  )
  chosen, score_sample = held_facts.chosen_slots(experiment, base, first)
  lessons = [slots[np.isin(slots, changed.slots)] for slots in chosen]
  not_found = np.setdiff1d(changed.slots, np.concatenate(chosen))
  facts = held_facts.find(experiment, base, first, lessons)
  numbers: dict[str, Any] = {
    't': first.method.top_t,
    'lessons': len(lessons),
    'slots': changed.num_slots,
    'slots_changed': len(changed.slots),
    # Always 0 with one memory layer, see `held_facts`.
    'changed_but_not_found': len(not_found),
    'facts': [_describe(held, first) for held in facts],
    'alignment': _alignment(facts, experiment.seed),
    'health': _health(experiment, base, first, last, lessons, score_sample),
  }
  asked = [i for i, held in enumerate(facts) if held.fact.question is not None]
  if asked:
    numbers |= _answers(experiment, base, last, changed, facts, asked, numbers)
  return numbers, facts


def _describe(
  held: held_facts.HeldFact, first: state_lib.TrainState
) -> dict[str, Any]:
  """Returns a fact's entry in analysis.json."""
  assert first.background is not None
  frequency = layout_lib.to_numpy(first.background.document_frequency)
  documents = float(first.background.num_documents)

  def num_common(slots: np.ndarray) -> int:
    return int(np.sum(frequency[slots] > _COMMON * documents))

  at_answer = None
  if held.asked is not None:
    answering = held.asked.answering().slots
    at_answer = len(np.intersect1d(held.core, answering))
  return {
    'fact': held.fact.name,
    'lesson': held.lesson,
    'paraphrases': len(held.reads),
    'read_by_every_paraphrase': len(held.shared),
    'core': len(held.core),
    'core_read_at_the_answer': at_answer,
    'core_common': num_common(held.core),
    'lesson_rows': len(held.trained),
    'core_trained': len(held.trained_core),
    'core_trained_common': num_common(held.trained_core),
    'core_slots': held.core,
    'core_slots_trained': held.trained_core,
  }


def _answers(
  experiment, base, last, changed, facts, asked, numbers
) -> dict[str, Any]:
  """Measures which rows answer; adds the result to each fact's entry too."""
  held = [facts[i] for i in asked]
  settings = experiment.evaluation
  questions = sets_lib.prompted(
    [h.fact.question for h in held], base.task, settings
  )
  max_rows = max(1, *(len(h.trained) for h in held))
  size = sufficiency.batch_size(
    len(held), max_rows, changed.new.shape[1], settings.batch_size
  )
  evaluator = sets_lib.evaluator(
    dataclasses.replace(settings, batch_size=size),
    base.tokenizer,
    base.graphdef,
    experiment.base.max_length,
  )
  rows = {
    'base': [h.trained[:0] for h in held],
    'core_only': [h.trained_core for h in held],
    'all_but_core': [h.rest for h in held],
    'lesson': [h.trained for h in held],
  }
  ordered = {'lesson': rows['lesson'], 'core': rows['core_only']}
  sizes = {
    name: core_sets.sizes_to_try(max(1, *map(len, slots)))
    for name, slots in ordered.items()
  }
  tries = len(rows) + sum(map(len, sizes.values()))
  with progress.Progress('answers with fewer rows', tries, 'try') as bar:
    done = itertools.count(1)

    def answered(slots: Sequence[np.ndarray]) -> np.ndarray:
      right = sufficiency.answered(
        evaluator, base.params, changed, questions, slots, max_rows
      )
      bar.update(next(done))
      return right

    right = {name: answered(slots) for name, slots in rows.items()}
    right_SxQ = {
      name: np.stack(
        [answered([one[:size] for one in slots]) for size in sizes[name]]
      )
      for name, slots in ordered.items()
    }
  final = evaluator.answers(last.params, questions)
  right['run'] = sufficiency.matches(final, questions)
  for place, i in enumerate(asked):
    entry = numbers['facts'][i]
    for name in ordered:
      entry[f'enough_rows_of_{name}'] = core_sets.smallest_sufficient(
        sizes[name], right_SxQ[name][:, place]
      )
    entry['answered'] = {name: bool(r[place]) for name, r in right.items()}
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
  """Finds how many rows of each lesson answer as much as all of them."""
  found = []
  lesson_Q = np.array([h.lesson for h in held])
  for index in np.unique(lesson_Q):
    right_S = right_SxQ[:, lesson_Q == index].sum(axis=1)
    rows = len(held[int(np.argmax(lesson_Q == index))].trained)
    enough = core_sets.smallest_sufficient(sizes, right_S >= right_S[-1])
    found.append(
      {
        'lesson': int(index),
        'rows': rows,
        'answered': int(right_S[-1]),
        # The sizes go up to the largest lesson's number of rows.
        'enough': min(enough or rows, rows) if right_S[-1] else None,
      }
    )
  return found


def _alignment(
  facts: Sequence[held_facts.HeldFact], seed: int
) -> dict[str, Any]:
  """Aligns the reads of each kind of slots with entities."""
  reads = [one for held in facts for one in held.reads]
  found = {}
  for kind in KINDS:
    slots = [getattr(held, kind) for held in facts for _ in held.reads]
    found[kind] = alignment.align_reads(reads, slots, seed)
  return found


def _health(experiment, base, first, last, lessons, score_sample):
  """Measures the health of the memory on the background and the stream."""
  document_frequency = layout_lib.to_numpy(first.background.document_frequency)
  documents = float(first.background.num_documents)
  before, after = (
    _pretraining_reads(experiment, base, params, _DRIFT_TEXTS)
    for params in (base.params, last.params)
  )
  usage = _pretraining_reads(experiment, base, base.params, _USAGE_TEXTS)
  found: dict[str, Any] = {
    'overlap': stream_health.lesson_overlap(lessons),
    'curve': stream_health.score_curve(score_sample, first.method.top_t),
    'drift': stream_health.slot_drift(before, after),
    'usage': health.measure(
      np.bincount(usage.ravel(), minlength=len(document_frequency))
    ),
    't': first.method.top_t,
  }
  if documents:
    found['document_frequency'] = stream_health.frequency_histogram(
      document_frequency, documents
    )
    found['documents'] = documents
  return found


def _pretraining_reads(experiment, base, params, most: int) -> np.ndarray:
  """Returns the slots that some pretraining texts read, int [tokens, A]."""
  corpus = corpus_lib.find('pretraining', base.task)
  found = reads_lib.read_texts(
    base.graphdef,
    params,
    corpus.some_texts(base.tokenizer, most),
    base.tokenizer,
    max_length=experiment.base.max_length,
    batch_size=experiment.stream.batch_size,
  )
  return np.concatenate([one.slot_ids for one in found])
