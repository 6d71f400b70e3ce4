"""What is measured of a model before, along and after the stream.

Sets of questions, texts and choices, by name:
- `target`: questions on the streamed documents in phrasings that training
  showed; where there are none, the loss on the documents themselves;
- `target_unseen_phrasing`: questions in phrasings that it never showed;
- every other set of the task, all outside the stream: held out.

Beside the metrics of `evaluate`, two that need more than one set's mean:
- recall by document, from which the accuracy matrix is made (`transfer`);
- locality: the share of a held-out set's answers that are, word for word, those
  that the base gave before the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import numpy as np

from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.data import task as task_lib
from smft_jax.evaluation import evaluate
from smft_jax.evaluation import scores
from smft_jax.evaluation import transfer
from smft_jax.runs import base as base_lib

_TARGETS = ('target', 'target_unseen_phrasing')


def is_target(name: str) -> bool:
  """Whether a set is of what is streamed; all others are held out."""
  return name.startswith('target')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """What one model knows.

  Attributes:
    metrics: Every metric by set: {set: {metric: value}}.
    answers: What the model answered, by set of questions.
    document_recall: Recall of each streamed document's questions, in unseen
      phrasings where there are any; None of a document without questions.
  """

  metrics: dict[str, dict[str, float]]
  answers: dict[str, list[str]]
  document_recall: list[float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurements:
  """The sets that are measured, and how.

  Attributes:
    evaluator: Measures parameters.
    questions: Question sets by name.
    texts: Text sets by name.
    choices: Sets of choices by name.
    metric: Headline metric of question sets: 'recall', 'f1' or 'nll'.
    text_metric: Headline metric of text sets: 'nll' or 'perplexity'.
    documents: The streamed documents.
    about: For each target question the index of its document, by set.
  """

  evaluator: evaluate.Evaluator
  questions: dict[str, tuple[task_lib.Question, ...]]
  texts: dict[str, tuple[task_lib.Text, ...]]
  choices: dict[str, tuple[task_lib.Choice, ...]]
  metric: str
  text_metric: str
  documents: tuple[task_lib.Document, ...]
  about: dict[str, np.ndarray]

  def take(self, params) -> Measured:
    """Measures a model's parameters."""
    measured, answers = {}, {}
    for name, questions in self.questions.items():
      answers[name] = self.evaluator.answers(params, questions)
      measured[name] = {
        **scores.score(answers[name], questions),
        'nll': self.evaluator.answer_nll(params, questions),
      }
    for name, texts in self.texts.items():
      measured[name] = self.evaluator.text_scores(params, texts)
    for name, choices in self.choices.items():
      measured[name] = self.evaluator.choices(params, choices)
    return Measured(
      metrics=measured,
      answers=answers,
      document_recall=self._document_recall(answers),
    )

  def take_of(self, graphdef, params) -> Measured:
    """Measures another model."""
    evaluator = dataclasses.replace(self.evaluator, graphdef=graphdef)
    return dataclasses.replace(self, evaluator=evaluator).take(params)

  def _document_recall(self, answers) -> list[float | None]:
    right: list[list[float]] = [[] for _ in self.documents]
    name = next((n for n in reversed(_TARGETS) if n in self.questions), None)
    if name is not None:
      pairs = zip(answers[name], self.questions[name], strict=True)
      for index, (answer, question) in zip(
        self.about[name], pairs, strict=True
      ):
        right[index].append(scores.exact_match(answer, question.answers))
    return [float(np.mean(one)) if one else None for one in right]

  def take_in_context(self, params, before: Measured) -> Measured:
    """Measures with each document's text before the questions on it.

    Args:
      params: A model's parameters.
      before: What that model knows; it stands for all other questions.
    """
    questions = {
      name: tuple(
        dataclasses.replace(q, prompt=f'{_text(self.documents[i])} {q.prompt}')
        for q, i in zip(self.questions[name], about, strict=True)
      )
      for name, about in self.about.items()
    }
    # No prompt is cut: an answer is measured with all that stands before it.
    evaluator = dataclasses.replace(
      self.evaluator,
      max_length=2**20,
      batch_size=max(1, self.evaluator.batch_size // 8),
    )
    read = dataclasses.replace(
      self, questions=questions, texts={}, choices={}, evaluator=evaluator
    ).take(params)
    return Measured(
      metrics={**before.metrics, **read.metrics},
      answers={**before.answers, **read.answers},
      document_recall=read.document_recall,
    )

  def headline(self, name: str) -> str:
    """The metric that stands for a set."""
    if name in self.questions:
      return self.metric
    return 'accuracy' if name in self.choices else self.text_metric

  def compare(self, before: dict, after: dict) -> dict[str, Any]:
    """Metrics before and after, as results.json has them."""

    def entry(name):
      metric = self.headline(name)
      return {
        'metric': metric,
        'before': before[name][metric],
        'after': after[name][metric],
      }

    held_out = {}
    for name in before:
      if not is_target(name):
        held_out[name] = entry(name)
        held_out[name]['relative_drop'] = scores.relative_drop(**held_out[name])
    targets = {name: entry(name) for name in before if is_target(name)}
    return {**targets, 'held_out': held_out}

  def point(self, measured: dict) -> dict[str, Any]:
    """One point of the retention curve."""
    values = {k: v[self.headline(k)] for k, v in measured.items()}
    targets = {k: v for k, v in values.items() if is_target(k)}
    held_out = {k: v for k, v in values.items() if not is_target(k)}
    return {**targets, 'held_out': held_out}


def locality(before: Measured, after: Measured) -> dict[str, float]:
  """Share of unchanged answers, by held-out set of questions."""
  return {
    name: transfer.locality(answers, after.answers[name])
    for name, answers in before.answers.items()
    if not is_target(name)
  }


def of_base(
  experiment: config_lib.Experiment, base: base_lib.Base
) -> tuple[Measurements, Measured]:
  """The sets of a run, and what the base knows of them.

  The points of a sweep that share a base share what it knows.
  """
  stream = experiment.stream
  return _of_base(
    base,
    experiment.evaluation,
    (stream.max_documents if stream is not None else 0),
    experiment.base.max_length,
    experiment.seed,
  )


@functools.lru_cache(maxsize=1)
def _of_base(
  base: base_lib.Base,
  settings: sections.EvaluationConfig,
  max_documents: int | None,
  max_length: int,
  seed: int,
) -> tuple[Measurements, Measured]:
  task = base.task
  documents = task.documents[:max_documents]
  asked = [(q, i) for i, d in enumerate(documents) for q in d.questions]
  targets = {
    'target': [(q, i) for q, i in asked if q.seen],
    'target_unseen_phrasing': [(q, i) for q, i in asked if not q.seen],
  }
  draw = functools.partial(_draw, size=settings.max_entries, seed=seed)
  targets = {name: [*draw(pairs)] for name, pairs in targets.items() if pairs}
  questions = {name: tuple(draw(qs)) for name, qs in task.questions.items()}
  questions |= {name: tuple(q for q, _ in p) for name, p in targets.items()}
  texts = {name: tuple(draw(entries)) for name, entries in task.texts.items()}
  choices = {name: tuple(draw(cs)) for name, cs in task.choices.items()}
  if documents and 'target' not in targets:
    texts['target'] = tuple(draw([t for d in documents for t in d.texts]))
  sets = Measurements(
    evaluator=evaluate.Evaluator(
      graphdef=base.graphdef,
      tokenizer=base.tokenizer,
      batch_size=settings.batch_size,
      max_length=max_length,
      max_answer_tokens=settings.max_answer_tokens,
    ),
    questions=questions,
    texts=texts,
    choices=choices,
    metric=settings.metric,
    text_metric=settings.text_metric,
    documents=documents,
    about={name: np.array([i for _, i in p]) for name, p in targets.items()},
  )
  return sets, sets.take(base.params)


def _draw(entries: Sequence, *, size: int | None, seed: int) -> Sequence:
  """At most `size` entries, in their order; the same ones for a seed."""
  if size is None or len(entries) <= size:
    return entries
  rng = np.random.default_rng(seed)
  chosen = np.sort(rng.choice(len(entries), size, replace=False))
  return [entries[i] for i in chosen]


def _text(document: task_lib.Document) -> str:
  return ' '.join(text.text for text in document.texts)
