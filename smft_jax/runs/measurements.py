"""Measures a model before, during and after the stream.

Sets of questions, texts and choices, by name:
- `target`: questions on the streamed documents, in phrasings seen in training;
  if there are none, the loss on the documents themselves;
- `target_unseen_phrasing`: the same in phrasings not seen in training;
- every other set of the task: held out.

Besides the metrics of `evaluate`:
- recall of each document, for the accuracy matrix (`transfer`);
- locality: share of a held-out set's answers that are the same as the base's,
  word for word.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import numpy as np

from smft_jax.config import sections
from smft_jax.data import task as task_lib
from smft_jax.evaluation import evaluate
from smft_jax.evaluation import scores
from smft_jax.evaluation import transfer
from smft_jax.runs import base as base_lib
from smft_jax.runs import sets as sets_lib
from smft_jax.runtime import progress

# Seconds after which measuring shows its progress.
_LONG_S = 10.0

# Questions whose answers the report shows.
_EXAMPLES = 10

_TARGETS = ('target', 'target_unseen_phrasing')


def is_target(name: str) -> bool:
  """Returns whether a set is about the stream; all others are held out."""
  return name.startswith('target')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """Measurements of one model.

  Attributes:
    metrics: {set: {metric: value}}.
    answers: The model's answers, by question set.
    document_recall: Recall of the questions on each streamed document that is
      asked about, by its index; in unseen phrasings if there are any.
  """

  metrics: dict[str, dict[str, float]]
  answers: dict[str, list[str]]
  document_recall: dict[int, float]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Measurements:
  """The evaluation sets of a run.

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

  def measure(self, params) -> Measured:
    """Measures a model's parameters; shows its progress if it takes long."""
    measured, answers = {}, {}
    total = len(self.questions) + len(self.texts) + len(self.choices)
    with progress.Progress('measuring', total, 'set', after_s=_LONG_S) as bar:
      for name, questions in self.questions.items():
        answers[name] = self.evaluator.answers(params, questions)
        measured[name] = {
          **scores.score(answers[name], questions),
          'nll': self.evaluator.answer_nll(params, questions),
        }
        bar.update(len(measured))
      for name, texts in self.texts.items():
        measured[name] = self.evaluator.text_scores(params, texts)
        bar.update(len(measured))
      for name, choices in self.choices.items():
        measured[name] = self.evaluator.choices(params, choices)
        bar.update(len(measured))
    return Measured(
      metrics=measured,
      answers=answers,
      document_recall=self._document_recall(answers),
    )

  def with_model(self, graphdef) -> Measurements:
    """Returns the same sets, to measure parameters of another model."""
    evaluator = dataclasses.replace(self.evaluator, graphdef=graphdef)
    return dataclasses.replace(self, evaluator=evaluator)

  def _document_recall(self, answers) -> dict[int, float]:
    right: dict[int, list[float]] = {}
    name = next((n for n in reversed(_TARGETS) if n in self.questions), None)
    if name is not None:
      pairs = zip(answers[name], self.questions[name], strict=True)
      for index, (answer, question) in zip(
        self.about[name], pairs, strict=True
      ):
        right.setdefault(int(index), []).append(
          scores.exact_match(answer, question.answers)
        )
    return {index: float(np.mean(one)) for index, one in right.items()}

  def measure_in_context(self, params, before: Measured) -> Measured:
    """Measures with each document in the prompt of the questions on it.

    Where questions are asked behind examples, another document and a solved
    question on it come first: a model that was not told reads nothing.

    Args:
      params: A model's parameters.
      before: What the model knows without; kept for all other questions.
    """
    questions = {
      name: tuple(
        dataclasses.replace(q, prompt=f'{self._read(i)} {q.prompt}')
        for q, i in zip(self.questions[name], about, strict=True)
      )
      for name, about in self.about.items()
    }
    # Prompts are not cut: the answer must follow the whole document.
    evaluator = dataclasses.replace(
      self.evaluator,
      max_length=2**20,
      batch_size=max(1, self.evaluator.batch_size // 8),
    )
    read = dataclasses.replace(
      self, questions=questions, texts={}, choices={}, evaluator=evaluator
    ).measure(params)
    return Measured(
      metrics={**before.metrics, **read.metrics},
      answers={**before.answers, **read.answers},
      document_recall=read.document_recall,
    )

  def _read(self, index: int) -> str:
    """Returns a document as it stands in a prompt."""
    text = _text(self.documents[index])
    asked = self.about.get('target_after_examples', np.zeros(0, int)).tolist()
    others = [other for other in asked if other != index]
    if not others:
      return text
    other = self.documents[min(others, key=lambda i: (i < index, i))]
    solved = other.questions[0].full_text().text
    return f'{_text(other)} {solved}\n\n{text}'

  def headline(self, name: str) -> str:
    """Returns the headline metric of a set."""
    if name in self.questions:
      return self.metric
    return 'accuracy' if name in self.choices else self.text_metric

  def compare(self, before: dict, after: dict) -> dict[str, Any]:
    """Returns metrics before and after, in the form of results.json."""

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

  def curve_point(self, measured: dict) -> dict[str, Any]:
    """Returns a point of the retention curve."""
    values = {k: v[self.headline(k)] for k, v in measured.items()}
    targets = {k: v for k, v in values.items() if is_target(k)}
    held_out = {k: v for k, v in values.items() if not is_target(k)}
    return {**targets, 'held_out': held_out}


def locality(before: Measured, after: Measured) -> dict[str, float]:
  """Returns the share of unchanged answers of each held-out question set."""
  return {
    name: transfer.locality(answers, after.answers[name])
    for name, answers in before.answers.items()
    if not is_target(name)
  }


def answers_unchanged(
  sets: Measurements, before: Measured, after: Measured
) -> dict[str, Any]:
  """Compares the answers to all held-out questions, word for word.

  Args:
    sets: The sets.
    before: Measurements of the base.
    after: Measurements after the stream.

  Returns:
    `num` questions and the `share` of them whose answer did not change;
    `right`, the same for those that the base had right; `examples`, some
    questions with both answers.
  """
  pairs = [
    (question, old, new)
    for name in before.answers
    if not is_target(name)
    for question, old, new in zip(
      sets.questions[name],
      before.answers[name],
      after.answers[name],
      strict=True,
    )
  ]
  right = [p for p in pairs if scores.exact_match(p[1], p[0].answers)]
  places = np.linspace(0, len(pairs) - 1, _EXAMPLES).astype(int)
  return {
    **_unchanged(pairs),
    'right': _unchanged(right),
    'examples': [
      {
        # Without the solved questions before it.
        'question': question.prompt.rpartition('\n\n')[2],
        'before': old,
        'after': new,
      }
      for question, old, new in (pairs[i] for i in sorted({*places}) if pairs)
    ],
  }


def _unchanged(pairs: Sequence[tuple[Any, str, str]]) -> dict[str, Any]:
  if not pairs:
    return {'num': 0, 'share': None}
  _, old, new = zip(*pairs, strict=True)
  return {'num': len(pairs), 'share': transfer.locality(old, new)}


@functools.lru_cache(maxsize=1)
def make(
  base: base_lib.Base,
  settings: sections.EvaluationConfig,
  *,
  max_documents: int | None,
  max_length: int,
  seed: int,
) -> Measurements:
  """Builds the sets of a run; cached, for the points of a sweep.

  Args:
    base: The base, with its data.
    settings: What to measure.
    max_documents: Documents that are streamed; None streams all.
    max_length: Tokens in a row.
    seed: Seed of the choice of entries.
  """
  drawn = sets_lib.draw(
    base.task, settings, max_documents=max_documents, seed=seed
  )
  texts = {
    name: sets_lib.shortened(
      entries,
      base.tokenizer,
      max_length=max_length,
      max_rows=settings.max_entries,
      seed=seed,
    )
    for name, entries in drawn.texts.items()
  }
  return Measurements(
    evaluator=sets_lib.evaluator(
      settings, base.tokenizer, base.graphdef, max_length
    ),
    metric=settings.metric,
    text_metric=settings.text_metric,
    **{**vars(drawn), 'texts': texts},
  )


@functools.lru_cache(maxsize=1)
def measure_base(sets: Measurements, base: base_lib.Base) -> Measured:
  """Measures a base; cached, for the points of a sweep."""
  return sets.measure(base.params)


def _text(document: task_lib.Document) -> str:
  return ' '.join(text.text for text in document.texts)
