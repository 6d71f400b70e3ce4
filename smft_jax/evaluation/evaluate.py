"""Measures what a model knows: answers, likelihoods and choices.

An answer is what greedy decoding writes after the prompt, up to a token that
ends it or, if so set, the end of its first line that is not blank. Likelihoods
are of tokens given those before them in their row, in nats.

- `recall` (exact match) and `f1` of answers: see `scores.score`.
- `nll` of questions: mean negative log-likelihood per token of the first
  accepted answers and their end-of-sequence tokens. A space before an answer
  counts only if it is part of the answer's first token.
- `nll`, `perplexity`, `word_perplexity` and `bits_per_byte` of texts with their
  end-of-sequence tokens: see `scores.text_scores`.
- `accuracy` and `accuracy_unnormalized` of choices: see `scores.accuracy`.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Literal

from flax import nnx
import numpy as np

from smft_jax import memory
from smft_jax import overlay as overlay_lib
from smft_jax.data import batches
from smft_jax.data import chat as chat_lib
from smft_jax.data import encoding
from smft_jax.data import stream as stream_lib
from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.evaluation import forward
from smft_jax.evaluation import scores
from smft_jax.models import decoding
from smft_jax.runtime import preemption

# Rows longer than this are padded to multiples of it.
_LENGTHS = 64

# A shorter beginning that rows share is computed in each of them.
_LEAST_SHARED = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
  """Measures parameters of one model, in batches.

  Attributes:
    graphdef: The model, a `transformer.Transformer`.
    tokenizer: Its tokenizer.
    batch_size: Rows per forward pass.
    max_length: Most tokens in a row. Longer texts are split; the prompt of an
      answer or ending loses its first tokens.
    max_answer_tokens: Most tokens of a decoded answer.
    answer_end: Whether an answer ends with its 'line', or at an 'end' token
      only.
    chat: Conversation that asks questions; None if their prompts are continued.
      Texts and choices are never part of one.
  """

  graphdef: nnx.GraphDef
  tokenizer: tokenizers.Tokenizer
  batch_size: int
  max_length: int
  max_answer_tokens: int
  answer_end: Literal['line', 'end'] = 'line'
  chat: chat_lib.Chat | None = None

  def answers(
    self,
    params: nnx.State,
    questions: Sequence[task.Question],
    overlay: overlay_lib.Overlay | None = None,
  ) -> list[str]:
    """Decodes an answer to each question.

    Args:
      params: Parameters of the model.
      questions: The questions.
      overlay: Rows that replace those of the table, for batches of
        `batch_size`.
    """
    prompts = encoding.tokenize_prompts(
      [question.prompt for question in questions],
      self.tokenizer,
      chat=self.chat,
    )
    lines = None
    if self.answer_end == 'line':
      lines = decoding.LineTokens(*self.tokenizer.line_tokens)
    decoded = self._decoded(
      params, prompts, self.max_answer_tokens, overlay, lines
    )
    return [self._answer(ids.tolist()) for ids in decoded]

  def continuations(
    self, params: nnx.State, prompts: encoding.Encoded, num_tokens: int
  ) -> list[np.ndarray]:
    """Decodes what follows prompts, whatever it is.

    Args:
      params: Parameters of the model.
      prompts: The prompts.
      num_tokens: Tokens to decode.

    Returns:
      int32 [<= num_tokens] for each prompt, up to the token that ends it.
    """
    return self._decoded(params, prompts, num_tokens)

  def _decoded(
    self, params, prompts, num_tokens, overlay=None, lines=None
  ) -> list[np.ndarray]:
    """Decodes token ids after each prompt, without an end token."""
    end_ids = (self.chat or self.tokenizer).end_ids
    layout = memory.layout_of(nnx.merge(self.graphdef, params))
    answers = [np.zeros(0, np.int32)] * len(prompts)
    for rows, index, length, past in self._batches(params, prompts, overlay):
      padded = batches.pad(rows, length, self.tokenizer.pad_id)
      # Pad prompts on the left, so that all end in the last column.
      shift = length - np.sum(padded.mask, axis=1)
      columns = (np.arange(length) - shift[:, None]) % length
      tokens, mask = stream_lib.assemble(
        layout,
        (
          np.take_along_axis(padded.tokens, columns, axis=1),
          np.take_along_axis(padded.mask, columns, axis=1),
        ),
        self.batch_size,
      )
      decoded = forward.decode(
        self.graphdef,
        params,
        tokens,
        mask,
        num_tokens,
        end_ids,
        overlay,
        lines,
        past,
      )
      found = np.asarray(decoded)[: len(index)]  # the rest is filler
      for question, ids in zip(index.tolist(), found, strict=True):
        (ends,) = np.nonzero(np.isin(ids, end_ids))
        end = ends[0] if len(ends) else len(ids)
        answers[question] = ids[:end]
    return answers

  def _answer(self, ids: list[int]) -> str:
    text = self.tokenizer.decode(ids)
    if self.answer_end == 'end':
      return text
    return next((line for line in text.split('\n') if line.strip()), '')

  def answer_nll(
    self, params: nnx.State, questions: Sequence[task.Question]
  ) -> float:
    """Computes the nats per token of the first accepted answers.

    Raises:
      UserError: If an answer is longer than a row.
    """
    rows = encoding.tokenize_questions(
      questions, self.tokenizer, max_length=self.max_length, chat=self.chat
    )
    nats, tokens = self._nats(params, rows)
    return nats / tokens

  def text_nll(self, params: nnx.State, texts: Sequence[task.Text]) -> float:
    """Computes the nats per token of texts."""
    return self.text_scores(params, texts)['nll']

  def text_scores(
    self, params: nnx.State, texts: Sequence[task.Text]
  ) -> dict[str, float]:
    """Computes `scores.text_scores` of texts."""
    rows = encoding.tokenize(texts, self.tokenizer, max_length=self.max_length)
    return scores.text_scores(*self._nats(params, rows), texts)

  def choices(
    self, params: nnx.State, choices: Sequence[task.Choice]
  ) -> dict[str, float]:
    """Computes `scores.accuracy` of the likeliest endings."""
    return scores.accuracy(self.log_likelihoods(params, choices), choices)

  def log_likelihoods(
    self, params: nnx.State, choices: Sequence[task.Choice]
  ) -> list[np.ndarray]:
    """Computes the log-likelihood of each ending after its prompt.

    Returns:
      For each choice a float64 array [endings]: nats summed over the tokens of
      a space and the ending, without an end-of-sequence token.

    Raises:
      UserError: If an ending is longer than a row.
    """
    rows = encoding.tokenize_choices(
      choices, self.tokenizer, max_length=self.max_length
    )
    nats = np.zeros(len(rows))
    for batch, index, past in self._padded(params, rows):
      found = forward.row_nats(self.graphdef, params, batch, past)
      found = np.asarray(found, np.float64)
      nats[index] = found[: len(index)]
    ends = np.cumsum([len(choice.endings) for choice in choices])
    return np.split(-nats, ends[:-1])

  def likeliest(
    self, params: nnx.State, rows: encoding.Encoded, length: int
  ) -> list[np.ndarray]:
    """Finds the likeliest token at each place that bears loss.

    Args:
      params: Parameters of the model.
      rows: The rows, whose tokens are given up to each place.
      length: Length to pad to, so that calls share a program.

    Returns:
      int32 [places] for each row.
    """
    layout = memory.layout_of(nnx.merge(self.graphdef, params))
    bears_loss = np.split(rows.loss_weights != 0, rows.starts[1:-1])
    found = [np.zeros(0, np.int32)] * len(rows)
    for taken, index, *_ in self._groups(
      rows, np.arange(len(rows)), layout, None
    ):
      batch = batches.pad(taken, length, self.tokenizer.pad_id)
      batch = stream_lib.assemble(layout, batch, self.batch_size)
      tokens = np.asarray(forward.likeliest(self.graphdef, params, batch))
      for row, ids in zip(index.tolist(), tokens[: len(index)], strict=True):
        places = bears_loss[row]
        found[row] = ids[: len(places)][places]
    return found

  def _nats(self, params, rows: encoding.Encoded) -> tuple[float, float]:
    """Returns the weighted sum of negative log-likelihoods, and of weights."""
    sums = np.zeros(2)
    most = int(np.sort(rows.counted)[-self.batch_size :].sum())
    for batch, _, past in self._padded(params, rows, most):
      found = forward.nll_sums(self.graphdef, params, batch, past)
      sums += np.asarray(found, np.float64)
    return float(sums[0]), float(sums[1])

  def _padded(
    self, params, rows: encoding.Encoded, most_counted: int | None = None
  ):
    """Yields batches, the indices of their rows, and what is before them."""
    layout = memory.layout_of(nnx.merge(self.graphdef, params))
    for taken, index, length, past in self._batches(params, rows):
      batch = batches.pad(taken, length, self.tokenizer.pad_id)
      positions = stream_lib.local_rows(layout, self.batch_size)[: len(taken)]
      batch.loss_weights[positions >= len(index)] = 0.0
      if layout is None and most_counted is not None:
        batch = batches.counting(batch, most_counted)
      yield stream_lib.assemble(layout, batch, self.batch_size), index, past

  def _batches(self, params, rows: encoding.Encoded, overlay=None):
    """Splits rows into batches; the last repeats its last row as filler.

    Tokens that most rows begin with are computed once. Long rows are sorted, so
    that little is padding; few lengths are used, as each compiles a program.

    Yields the rows of a batch that this process makes, the indices of those in
    all processes that are not filler, the length to pad to, and the cache of
    the tokens before the rows, if there are any.
    """
    layout = memory.layout_of(nnx.merge(self.graphdef, params))
    beginning, having = rows.shared_beginning()
    everywhere = layout is None and overlay is None
    if len(beginning) < _LEAST_SHARED or not everywhere:
      yield from self._groups(rows, np.arange(len(rows)), layout, None)
      return
    # Padded on the left, so that sets share programs.
    padding = -len(beginning) % _LENGTHS
    tokens = np.pad(beginning, (padding, 0))[None]
    mask = np.arange(tokens.shape[1])[None] >= padding
    past = forward.read(self.graphdef, params, tokens, mask)
    (alike,), (others,) = np.nonzero(having), np.nonzero(~having)
    follow = rows.take(alike).without_first(len(beginning))
    yield from self._groups(follow, alike, layout, past)
    few = min(self.batch_size, batches.bucket_length(len(others)))
    yield from self._groups(rows.take(others), others, layout, None, few)

  def _groups(self, rows, indices, layout, past, size=None):
    """Yields what `_batches` does for rows that all follow `past`."""
    size = size or self.batch_size
    longest = batches.bucket_length(rows.longest)
    order, multiple = np.arange(len(rows)), longest
    if longest > _LENGTHS:
      order, multiple = np.argsort(-rows.lengths, kind='stable'), _LENGTHS
    for start in preemption.interruptible(range(0, len(rows), size)):
      index = order[start : start + size]
      filled = np.pad(index, (0, size - len(index)), mode='edge')
      positions = stream_lib.local_rows(layout, size)
      length = int(rows.lengths[index].max())
      length = min(longest, batches.bucket_length(length, multiple))
      yield rows.take(filled[positions]), indices[index], length, past
