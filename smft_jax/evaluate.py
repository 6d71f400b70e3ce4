"""What a model knows: recall, F1 and likelihood of answers and texts.

Definitions. An answer is what greedy decoding writes after the prompt, up to
the end-of-sequence token. Both it and the accepted answers are normalised as
SQuAD does: lower case, no punctuation, no articles, single spaces.
- `recall` (= exact match): share of questions whose answer equals an accepted
  one.
- `f1`: mean over questions of the best token-overlap F1 with an accepted one.
- `nll`: mean negative log-likelihood in nats per token; for questions, of the
  tokens of the canonical answer and the end after it.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
import functools
import re
import string

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import feed
from smft_jax import memory
from smft_jax import preemption
from smft_jax import sharding
from smft_jax import train_step
from smft_jax import transformer
from smft_jax.data import batches
from smft_jax.data import task
from smft_jax.data import tokenizers

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)


def normalize_answer(answer: str) -> str:
  """SQuAD normalisation: lower case, no punctuation or articles.

  Example:
    >>> normalize_answer('The  Eiffel Tower!')
    'eiffel tower'
  """
  answer = answer.lower().translate(_PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', answer).split())


def exact_match(answer: str, accepted: Sequence[str]) -> float:
  """1.0 if the answer equals an accepted one after normalisation, else 0.0.

  Example:
    >>> exact_match('lisbon.', ['Porto', 'Lisbon'])
    1.0
  """
  answer = normalize_answer(answer)
  return float(any(answer == normalize_answer(a) for a in accepted))


def f1_score(answer: str, accepted: Sequence[str]) -> float:
  """The best F1 of token overlap with an accepted answer, as SQuAD defines it.

  Example:
    >>> round(f1_score('city of Lisbon', ['Lisbon']), 3)
    0.5
  """

  def score(reference: str) -> float:
    got = normalize_answer(answer).split()
    want = normalize_answer(reference).split()
    if not got or not want:
      return float(got == want)
    common = collections.Counter(got) & collections.Counter(want)
    overlap = sum(common.values())
    return 2 * overlap / (len(got) + len(want))

  return max(score(reference) for reference in accepted)


def score(
  answers: Sequence[str], questions: Sequence[task.Question]
) -> dict[str, float]:
  """`recall` and `f1` of given answers, one per question."""
  pairs = list(zip(answers, questions, strict=True))
  return {
    'recall': float(np.mean([exact_match(a, q.answers) for a, q in pairs])),
    'f1': float(np.mean([f1_score(a, q.answers) for a, q in pairs])),
  }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
  """Measures one model's parameters, again and again, in batches.

  Attributes:
    graphdef: The model, a `transformer.Transformer`.
    tokenizer: Its tokenizer.
    batch_size: Rows per forward pass.
    max_length: Most tokens in a row of text; longer texts are split.
    max_answer_tokens: Longest answer that is decoded.
  """

  graphdef: nnx.GraphDef
  tokenizer: tokenizers.Tokenizer
  batch_size: int
  max_length: int
  max_answer_tokens: int

  def answers(
    self, params: nnx.State, questions: Sequence[task.Question]
  ) -> list[str]:
    """The model's answers, one per question."""
    prompts = batches.tokenize_prompts(
      [question.prompt for question in questions], self.tokenizer
    )
    eos_id = self.tokenizer.eos_id
    layout = memory.layout_of(nnx.merge(self.graphdef, params))
    answers = []
    for here, count, length in self._batches(prompts, layout):
      padded = batches.pad(prompts.take(here), length, self.tokenizer.pad_id)
      # Prompts are padded on the left, so that all end in the last column.
      shift = length - np.sum(padded.mask, axis=1)
      columns = (np.arange(length) - shift[:, None]) % length
      tokens, mask = feed.assemble(
        layout,
        (
          np.take_along_axis(padded.tokens, columns, axis=1),
          np.take_along_axis(padded.mask, columns, axis=1),
        ),
        self.batch_size,
      )
      decoded = _decode(
        self.graphdef, params, tokens, mask, self.max_answer_tokens, eos_id
      )
      for ids in np.asarray(decoded)[:count]:
        end = np.argmax(ids == eos_id) if eos_id in ids else len(ids)
        answers.append(self.tokenizer.decode(ids[:end].tolist()))
    return answers

  def answer_nll(
    self, params: nnx.State, questions: Sequence[task.Question]
  ) -> float:
    """Nats per token of the canonical answers, ends included."""
    return self._nll(params, [q.full_text() for q in questions], 0.0)

  def text_nll(self, params: nnx.State, texts: Sequence[task.Text]) -> float:
    """Nats per token of the texts, ends included."""
    return self._nll(params, texts, 1.0)

  def _nll(self, params, texts, context_weight):
    rows = batches.tokenize(
      texts,
      self.tokenizer,
      max_length=self.max_length,
      context_weight=context_weight,
    )
    sums = np.zeros(2)
    layout = memory.layout_of(nnx.merge(self.graphdef, params))
    for here, count, length in self._batches(rows, layout):
      batch = batches.pad(rows.take(here), length, self.tokenizer.pad_id)
      mine = feed.rows_here(layout, self.batch_size)
      batch.loss_weights[mine >= count] = 0.0
      batch = feed.assemble(layout, batch, self.batch_size)
      sums += np.asarray(_nll_sums(self.graphdef, params, batch), np.float64)
    return float(sums[0] / sums[1])

  def _batches(self, rows: batches.Encoded, layout: sharding.Layout | None):
    """Parts of `batch_size` rows, the last filled up by repeating its last row.

    Yields which rows of it this process makes, how many count in all
    processes, and the length to pad to. One length per call: few shapes are
    compiled.
    """
    length = batches.bucket_length(rows.longest)
    starts = range(0, len(rows), self.batch_size)
    for start in preemption.until_requested(starts):
      index = np.arange(start, min(start + self.batch_size, len(rows)))
      filled = np.pad(index, (0, self.batch_size - len(index)), mode='edge')
      here = feed.rows_here(layout, self.batch_size)
      yield filled[here], len(index), length


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _decode(graphdef, params, tokens, mask, max_new_tokens, eos_id):
  model = nnx.merge(graphdef, params)
  decoded = transformer.greedy_decode(
    model, tokens, mask, max_new_tokens, eos_id
  )
  return sharding.constrain_whole(memory.layout_of(model), decoded)


@functools.partial(jax.jit, static_argnums=0)
def _nll_sums(graphdef, params, batch):
  logits = nnx.merge(graphdef, params)(batch.tokens, batch.mask)
  nll = train_step.token_nll(logits, batch.tokens)
  return jnp.sum(nll * batch.loss_weights), jnp.sum(batch.loss_weights)
