"""Scores edits as toolkits for knowledge editing do, without few-shot prompts.

- Reliability: what an edit's own prompt is continued with is its target.
- Generalisation: so is what its rephrasings are continued with.
- Locality: what prompts on other things are continued with stays.

Each in two definitions:
- `token_accuracy`, with the right tokens given up to each place (teacher
  forcing): the share of the target's tokens that are the likeliest ones; for
  locality the share of the places of the true continuation at which the
  likeliest token is the one that it was before all edits, right or wrong.
- `exact`: whether greedy decoding writes the whole target; for locality whether
  it writes the same tokens as before all edits, as many as the true
  continuation has.

All are means over the prompts of an edit, then over edits. GRACE
(arXiv:2211.11031), WISE (arXiv:2405.14768) and others report the first kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses

from flax import nnx
import numpy as np

from smft_jax.data import batches
from smft_jax.data import encoded
from smft_jax.data import encoding
from smft_jax.data import task as task_lib
from smft_jax.evaluation import evaluate

MEASURES = ('reliability', 'generalisation', 'locality')
DEFINITIONS = ('token_accuracy', 'exact')

# {measure: {definition: share}}; None if no edit has such a prompt.
Shares = dict[str, dict[str, float | None]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Edits:
  """The prompts of edits, and what they should be continued with.

  Attributes:
    evaluator: Measures parameters.
    rows: Prompts with continuations, on which alone there is a loss.
    expected: For each row the tokens that should be the likeliest ones at the
      places that bear loss.
    edit: int [rows], the edit that each row belongs to.
    counts_for: For each row the measure and the definitions that it counts for.
  """

  evaluator: evaluate.Evaluator
  rows: encoded.Encoded
  expected: Sequence[np.ndarray]
  edit: np.ndarray
  counts_for: Sequence[tuple[str, tuple[str, ...]]]

  def measure(self, params: nnx.State, edits: Iterable[int]) -> Shares:
    """Measures some of the edits.

    Args:
      params: Parameters of the model.
      edits: Their places in the stream.
    """
    index = np.flatnonzero(np.isin(self.edit, list(edits)))
    # One edit has few rows.
    size = min(self.evaluator.batch_size, batches.bucket_length(len(index), 4))
    evaluator = dataclasses.replace(self.evaluator, batch_size=size)
    length = batches.bucket_length(self.rows.longest)
    found = evaluator.likeliest(params, self.rows.take(index), length)
    scores: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row, tokens in zip(index.tolist(), found, strict=True):
      same = tokens == self.expected[row]
      measure, definitions = self.counts_for[row]
      for name in definitions:
        score = np.mean(same) if name == 'token_accuracy' else np.all(same)
        of_edit = scores.setdefault((measure, name), {})
        of_edit.setdefault(int(self.edit[row]), []).append(float(score))
    return {
      measure: {
        name: _mean(scores.get((measure, name))) for name in DEFINITIONS
      }
      for measure in MEASURES
    }

  def with_model(self, graphdef: nnx.GraphDef) -> Edits:
    """Returns the same prompts, to measure parameters of another model."""
    evaluator = dataclasses.replace(self.evaluator, graphdef=graphdef)
    return dataclasses.replace(self, evaluator=evaluator)


def make(
  evaluator: evaluate.Evaluator,
  documents: Sequence[task_lib.Document],
  params: nnx.State,
) -> Edits:
  """Prepares the prompts of edits, and asks a base those that it is to keep.

  Args:
    evaluator: Measures the base.
    documents: The edits: `questions` have the target as their answer, with
      `seen` for an edit's own prompt; `kept` have the true continuation.
    params: Parameters of the base.
  """
  asked = [(q, i) for i, d in enumerate(documents) for q in d.questions]
  kept = [(q, i) for i, d in enumerate(documents) for q in d.kept]
  targets = _rows(evaluator, [q for q, _ in asked])
  forced = _rows(evaluator, [q for q, _ in kept])
  written = _continued(evaluator, params, [q for q, _ in kept], forced)
  length = batches.bucket_length(max(forced.longest, written.longest))
  parts = [
    (targets, _answers(targets)),
    (forced, evaluator.likeliest(params, forced, length)),
    (written, evaluator.likeliest(params, written, length)),
  ]
  return Edits(
    evaluator=evaluator,
    rows=encoded.concatenate([rows for rows, _ in parts]),
    expected=[tokens for _, expected in parts for tokens in expected],
    edit=np.array([i for _, i in (*asked, *kept, *kept)], np.int64),
    counts_for=[
      *((MEASURES[not q.seen], DEFINITIONS) for q, _ in asked),
      *[('locality', DEFINITIONS[:1])] * len(kept),
      *[('locality', DEFINITIONS[1:])] * len(kept),
    ],
  )


def _rows(
  evaluator: evaluate.Evaluator, questions: Sequence[task_lib.Question]
) -> encoded.Encoded:
  """Encodes prompts with their answers, without an end."""
  return encoding.tokenize_answers(
    [question.full_text() for question in questions],
    evaluator.tokenizer,
    max_length=evaluator.max_length,
    end=False,
  )


def _continued(evaluator, params, questions, forced) -> encoded.Encoded:
  """Encodes prompts with as many tokens of a base as the answers have."""
  prompts = encoding.tokenize_prompts(
    [question.prompt for question in questions], evaluator.tokenizer
  )
  counts = forced.counted
  written = evaluator.continuations(params, prompts, int(counts.max(initial=1)))
  # The end is part of what a base writes.
  ids = [
    np.append(tokens, evaluator.tokenizer.eos_id)[:count]
    for tokens, count in zip(written, counts.tolist(), strict=True)
  ]
  before = np.split(prompts.tokens, prompts.starts[1:-1])
  pairs = list(zip(before, ids, strict=False))  # `before` of none is one
  return encoded.join(
    [np.concatenate(pair) for pair in pairs],
    [np.repeat([0.0, 1.0], [len(a), len(b)]) for a, b in pairs],
    prompts.sources,
  )


def _answers(rows: encoded.Encoded) -> list[np.ndarray]:
  """Returns the tokens of each row that bear loss."""
  return [
    tokens[weights != 0]
    for tokens, weights in zip(
      np.split(rows.tokens, rows.starts[1:-1]),
      np.split(rows.loss_weights, rows.starts[1:-1]),
      strict=True,
    )
  ][: len(rows)]


def _mean(of_edits: dict[int, list[float]] | None) -> float | None:
  if not of_edits:
    return None
  return float(np.mean([np.mean(scores) for scores in of_edits.values()]))
