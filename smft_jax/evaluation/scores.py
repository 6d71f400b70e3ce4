"""Scores of answers and likelihoods, without a model.

Answers are normalized as in SQuAD: lower case, no punctuation, no articles,
single spaces. `squad_exact_match` and `squad_f1` are exactly that. `recall` and
`f1` differ where SQuAD's definition, made for English in ASCII, misleads: see
`normalize_answer`. Likelihoods are natural logarithms.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
import math
import re
import string
import unicodedata

import numpy as np

from smft_jax import schema
from smft_jax.data import task

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)
_SPACES = re.compile(r'\s+')
# Marks that people write for the apostrophe, the quote and the minus.
_SAME_MARKS = str.maketrans(
  dict.fromkeys('\u2018\u2019\u201b\u2039\u203a\u02bc\u2032', "'")
  | dict.fromkeys('\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033', '"')
  | dict.fromkeys('\u2010\u2011\u2012\u2013\u2014\u2015\u2212', '-')
)

Normalize = Callable[[str], str]


def normalize_squad(answer: str) -> str:
  """Normalises an answer as SQuAD does.

  Example:
    >>> normalize_squad('The  Eiffel Tower!'), normalize_squad('The The')
    ('eiffel tower', '')
  """
  answer = answer.lower().translate(_PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', answer).split())


def normalize_answer(answer: str) -> str:
  """Normalises an answer as SQuAD does, and further.

  - Characters are composed (NFC), digits and punctuation of full width and the
    like are ASCII, and so are apostrophes, quotes and dashes. SQuAD's
    definition then removes the marks.
  - An answer of nothing but articles and punctuation, such as the grade 'A',
    keeps them. By SQuAD it equals silence.

  Example:
    >>> normalize_answer('Cafe\u0301 D\u2019Or, 1914\u201318')
    'café dor 191418'
    >>> normalize_answer('A'), normalize_squad('A')
    ('a', '')
  """
  answer = ''.join(
    unicodedata.normalize('NFKC', c) if _is_wide(c) else c
    for c in unicodedata.normalize('NFC', answer).translate(_SAME_MARKS)
  )
  return normalize_squad(answer) or ' '.join(answer.lower().split())


def _is_wide(character: str) -> bool:
  return character.isdigit() or unicodedata.category(character)[0] == 'P'


def exact_match(
  answer: str,
  accepted: Sequence[str],
  normalize: Normalize = normalize_answer,
) -> float:
  """Returns 1.0 if the normalized answer is an accepted one, else 0.0.

  Example:
    >>> exact_match('lisbon.', ['Porto', 'Lisbon'])
    1.0
  """
  answer = normalize(answer)
  return float(any(answer == normalize(a) for a in accepted))


def f1_score(
  answer: str,
  accepted: Sequence[str],
  normalize: Normalize = normalize_answer,
) -> float:
  """Computes the best F1 of token overlap with an accepted answer, as in SQuAD.

  Example:
    >>> round(f1_score('city of Lisbon', ['Lisbon']), 3)
    0.5
  """

  def score(reference: str) -> float:
    got = normalize(answer).split()
    want = normalize(reference).split()
    if not got or not want:
      return float(got == want)
    common = collections.Counter(got) & collections.Counter(want)
    overlap = sum(common.values())
    return 2 * overlap / (len(got) + len(want))

  return max(map(score, accepted), default=0.0)


def score(
  answers: Sequence[str], questions: Sequence[task.Question]
) -> dict[str, float]:
  """Scores answers, one per question.

  Returns:
    Means over the questions: `recall`, of exact matches, and `f1`, by
    `normalize_answer`; `squad_exact_match` and `squad_f1`, by
    `normalize_squad`.
  """
  pairs = [
    (answer, question.answers)
    for answer, question in zip(answers, questions, strict=True)
  ]

  def mean(score, normalize) -> float:
    return float(np.mean([score(*pair, normalize) for pair in pairs]))

  return {
    'recall': mean(exact_match, normalize_answer),
    'f1': mean(f1_score, normalize_answer),
    'squad_exact_match': mean(exact_match, normalize_squad),
    'squad_f1': mean(f1_score, normalize_squad),
  }


def accuracy(
  log_likelihoods: Sequence[np.ndarray], choices: Sequence[task.Choice]
) -> dict[str, float]:
  """Computes how often the likeliest ending is the right one.

  These are `acc_norm` and `acc` of lm-evaluation-harness.

  Args:
    log_likelihoods: For each choice, the log-likelihood of each ending given
      the prompt, in nats, summed over tokens.
    choices: The choices, at least one.

  Returns:
    - `accuracy`: share of choices whose label has the highest log-likelihood
      per character, spaces included.
    - `accuracy_unnormalized`: the same with the log-likelihood itself.
    Ties go to the first ending. NaN if a log-likelihood is.

  Example:
    >>> choice = task.Choice(prompt='It is', endings=('hot', 'very hot'),
    ...                      label=1)
    >>> accuracy([np.array([-3.0, -4.0])], [choice])
    {'accuracy': 1.0, 'accuracy_unnormalized': 0.0}
  """
  right, right_unnormalized = [], []
  for sums, choice in zip(log_likelihoods, choices, strict=True):
    lengths = np.array([len(ending) for ending in choice.endings])
    right.append(_is_best(sums / lengths, choice.label))
    right_unnormalized.append(_is_best(sums, choice.label))
  return {
    'accuracy': float(np.mean(right)),
    'accuracy_unnormalized': float(np.mean(right_unnormalized)),
  }


def _is_best(sums: np.ndarray, label: int) -> float:
  """Whether the label has the highest sum; NaN if a sum is NaN."""
  return math.nan if np.isnan(sums).any() else float(np.argmax(sums) == label)


def perplexity(nats: float, count: float) -> float:
  """Computes exp(nats / count); infinite if a float cannot hold it.

  Args:
    nats: Negative log-likelihood of a text.
    count: Its tokens or words.

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
  """Computes the likelihood of texts by token, word and byte.

  Args:
    nats: Negative log-likelihood of all texts.
    tokens: Number of tokens that it sums over.
    texts: The texts, at least one.

  Returns:
    - `nll`: nats / tokens.
    - `perplexity`: exp(nats / tokens).
    - `word_perplexity`: exp(nats / words). Words are the pieces between runs
      of whitespace. As in wikitext of lm-evaluation-harness, an empty piece at
      the start or end counts.
    - `bits_per_byte`: nats / (bytes * ln 2), with bytes of UTF-8.

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


_HIGHER_IS_BETTER = (
  'recall',
  'f1',
  'exact_match',
  'accuracy',
  'squad_exact_match',
  'squad_f1',
)
_LOWER_IS_BETTER = ('nll', 'perplexity')


def relative_drop(metric: str, before: float, after: float) -> float:
  """Computes the share of a metric that was lost; negative for a gain.

  It is (before - after) / before for recall, f1, exact_match and accuracy, and
  (after - before) / before for names that end in nll or perplexity.

  Args:
    metric: Name of the metric.
    before: Its value before the stream.
    after: Its value after the stream.

  Returns:
    The share; NaN if `before` is 0.

  Raises:
    ValueError: For an unknown metric.

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
  # Rounded to hide floating-point noise.
  return round(lost / before, 12)
