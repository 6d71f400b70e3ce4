"""Measures whether reads of some slots fall on the names and values of a text.

The measure is the share of these reads that fall on marked tokens. Chance is
that share when the counts of each text are permuted over its tokens, which
keeps how often each text reads the slots and how many tokens are marked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smft_jax.analyze import reads as reads_lib
from smft_jax.data import task

PLACES = ('inside', 'first', 'last', 'before')
"""Positions of tokens relative to an entity, see `places`."""

_PERMUTATIONS = 200


def entities_of(text: task.Text) -> tuple[task.Span, ...]:
  """Returns the entities of a text or, if none are marked, its answer."""
  return text.entities or ((text.answer,) if text.answer else ())


def places(
  spans: np.ndarray, entities: Sequence[task.Span]
) -> dict[str, np.ndarray]:
  """Marks tokens by their position relative to the entities of a text.

  Args:
    spans: int [T, 2], the characters of each token.
    entities: Spans of characters.

  Returns:
    Bool [T] by name: `inside`, all tokens of entities; `first` and `last`, each
    entity's first and last token; `before`, the token before it, which predicts
    it.

  Example:
    >>> spans = np.array([(0, 2), (3, 6), (7, 13), (14, 16)])
    >>> found = places(spans, [(3, 13)])
    >>> [np.flatnonzero(found[place]).tolist() for place in PLACES]
    [[1, 2], [1], [2], [0]]
  """
  found = {place: np.zeros(len(spans), bool) for place in PLACES}
  for entity in entities:
    inside = np.flatnonzero(reads_lib.touched(spans, [entity]))
    if inside.size:
      found['inside'][inside] = True
      found['first'][inside[0]] = True
      found['last'][inside[-1]] = True
      found['before'][max(inside[0] - 1, 0)] |= bool(inside[0])
  return found


def align(
  counts: Sequence[np.ndarray], marked: Sequence[np.ndarray], seed: int = 0
) -> dict[str, float] | None:
  """Computes the share of reads at marked tokens, and chance.

  `counts` and `marked` hold for each text the reads at its tokens, int [T], and
  whether they are marked, bool [T]. `seed` is that of the permutations.

  Returns:
    `share`; `chance`, its exact mean over permutations; `chance_low` and
    `chance_high`, the middle 95% of 200 random permutations; `ratio`, share
    over chance. None without reads or without marked tokens.

  Example:
    >>> found = align([np.array([1, 4, 0, 1])], [np.arange(4) == 1])
    >>> round(found['share'], 3), found['chance'], round(found['ratio'], 2)
    (0.667, 0.25, 2.67)
  """
  total = sum(int(c.sum()) for c in counts)
  if not total or not any(m.any() for m in marked):
    return None
  hit = sum(int(c[m].sum()) for c, m in zip(counts, marked, strict=True))
  chance = sum(
    c.sum() * m.mean() for c, m in zip(counts, marked, strict=True) if len(c)
  )
  rng = np.random.default_rng(seed)
  drawn = np.zeros(_PERMUTATIONS)
  # Texts of one length are permuted together.
  for length in sorted({len(c) for c in counts}):
    alike = [i for i, c in enumerate(counts) if len(c) == length]
    counts_RxT = np.stack([counts[i] for i in alike])
    marked_RxT = np.stack([marked[i] for i in alike])
    for draw in range(_PERMUTATIONS):
      permuted_RxT = rng.permuted(counts_RxT, axis=1)
      drawn[draw] += np.sum(permuted_RxT[marked_RxT])
  low, high = np.quantile(drawn / total, (0.025, 0.975))
  return {
    'share': hit / total,
    'chance': float(chance / total),
    'chance_low': float(low),
    'chance_high': float(high),
    'ratio': float(hit / chance),
  }


def align_reads(
  reads: Sequence[reads_lib.Reads], slots: Sequence[np.ndarray], seed: int = 0
) -> dict[str, dict[str, float] | None]:
  """Aligns each text's reads of some slots with its entities, by place.

  Beginning and end tokens do not count. Texts without entities are skipped.
  """
  counts = []
  marked: dict[str, list[np.ndarray]] = {place: [] for place in PLACES}
  for one, chosen in zip(reads, slots, strict=True):
    entities = entities_of(one.text)
    if not entities:
      continue
    words = one.words
    counts.append(one.counts(chosen)[words])
    for place, tokens in places(one.spans[words], entities).items():
      marked[place].append(tokens)
  return {place: align(counts, marked[place], seed) for place in PLACES}
