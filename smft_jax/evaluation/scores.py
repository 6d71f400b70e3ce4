"""Scores of what a model wrote or found likely: plain numbers in, no model.

Answers and accepted answers are normalised as SQuAD does: lower case, no
punctuation, no articles, single spaces. Likelihoods are natural logarithms.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import math
import re
import string

import numpy as np

from smft_jax import schema
from smft_jax.data import task

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)
_SPACES = re.compile(r'\s+')


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


def accuracy(
  log_likelihoods: Sequence[np.ndarray], choices: Sequence[task.Choice]
) -> dict[str, float]:
  """How often the likeliest ending is the right one.

  The definitions are those of `acc_norm` and `acc` in lm-evaluation-harness.

  Args:
    log_likelihoods: For each choice the log-likelihood of each ending given
      the prompt, in nats, summed over its tokens.
    choices: What was chosen from, at least one.

  Returns:
    - `accuracy`: share of choices whose label is the ending of the greatest
      log-likelihood per character, spaces counted.
    - `accuracy_unnormalized`: the same of the log-likelihood itself.
    Of endings that tie the first is taken.

  Example:
    >>> choice = task.Choice(prompt='It is', endings=('hot', 'very hot'),
    ...                      label=1)
    >>> accuracy([np.array([-3.0, -4.0])], [choice])
    {'accuracy': 1.0, 'accuracy_unnormalized': 0.0}
  """
  right, right_unnormalized = [], []
  for sums, choice in zip(log_likelihoods, choices, strict=True):
    lengths = np.array([len(ending) for ending in choice.endings])
    right.append(np.argmax(sums / lengths) == choice.label)
    right_unnormalized.append(np.argmax(sums) == choice.label)
  return {
    'accuracy': float(np.mean(right)),
    'accuracy_unnormalized': float(np.mean(right_unnormalized)),
  }


def perplexity(nats: float, count: float) -> float:
  """exp(nats / count); infinite where that is more than a float can hold.

  Args:
    nats: Negative log-likelihood of a text.
    count: Tokens or words in it.

  Example:
    >>> round(perplexity(nats=10 * math.log(7), count=10), 3)
    7.0
  """
  try:
    return math.exp(nats / count)
  except OverflowError:
    return math.inf


def text_scores(
  nats: float, tokens: float, texts: Sequence[task.Text]
) -> dict[str, float]:
  """What the likelihood of texts comes to, by tokens, words and bytes.

  Args:
    nats: Negative log-likelihood of all the texts.
    tokens: How many tokens it is the sum over.
    texts: The texts, at least one.

  Returns:
    - `nll`: nats / tokens.
    - `perplexity`: exp(nats / tokens).
    - `word_perplexity`: exp(nats / words). Words are the pieces between runs
      of whitespace, counted as wikitext in lm-evaluation-harness has it: a
      text that begins or ends with whitespace has an empty piece there, which
      counts.
    - `bits_per_byte`: nats / (bytes * ln 2), bytes being those of UTF-8.

  Example:
    >>> text = task.Text(text='fog in Porto')
    >>> found = text_scores(12 * math.log(2), 4, [text])
    >>> {name: round(value, 3) for name, value in found.items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'nll': 2.079, 'perplexity': 8.0, 'word_perplexity': 16.0,
     'bits_per_byte': 1.0}
  """
  words = sum(len(_SPACES.split(text.text)) for text in texts)
  size = sum(len(text.text.encode()) for text in texts)
  return {
    'nll': nats / tokens,
    'perplexity': perplexity(nats, tokens),
    'word_perplexity': perplexity(nats, words),
    'bits_per_byte': nats / (size * math.log(2)),
  }


_HIGHER_IS_BETTER = ('recall', 'f1', 'exact_match', 'accuracy')
_LOWER_IS_BETTER = ('nll', 'perplexity')


def relative_drop(metric: str, before: float, after: float) -> float:
  """The share of what was there before that was lost; negative for a gain.

  (before - after) / before for recall, f1, exact_match and accuracy;
  (after - before) / before for names that end in nll or perplexity.

  Args:
    metric: the metric's name.
    before: its value before the stream.
    after: its value after it.

  Returns:
    The share; NaN if nothing was there, so that nothing could be lost.

  Raises:
    ValueError: for a metric whose better direction is not known.

  Example:
    >>> relative_drop('recall', 0.8, 0.6), relative_drop('nll', 2.0, 2.5)
    (0.25, 0.25)
  """
  if metric in _HIGHER_IS_BETTER:
    lost = before - after
  elif metric.endswith(_LOWER_IS_BETTER):
    lost = after - before
  else:
    known = [*_HIGHER_IS_BETTER, *_LOWER_IS_BETTER]
    schema.one_of('metric', metric, known)
  if before == 0:
    return math.nan
  # Rounded where the difference of two decimal numbers ends in noise.
  return round(lost / before, 12)
