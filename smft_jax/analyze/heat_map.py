"""Heat maps: how much each word reads a fact's core, trained and other slots.

The page (templates/analysis.html) shows them over the text; `draw` makes
pictures for papers. Each kind of slots is compared with the word that reads
most of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

from matplotlib import figure
import numpy as np

from smft_jax.analyze import alignment
from smft_jax.analyze import analysis
from smft_jax.analyze import held_facts
from smft_jax.analyze import reads as reads_lib
from smft_jax.report import figures
from smft_jax.store import atomic

# Most facts drawn, each of another lesson, and texts drawn of each.
_FACTS, _TEXTS = 3, 4

# Longer texts are cut.
_MOST_WORDS = 40


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeatText:
  """One text of a heat map.

  Attributes:
    text: The text.
    spans: int [T, 2], the characters of each word.
    starts: Bool [T], the words that begin an entity.
    ends: Bool [T], the words that end one.
    counts: For each kind of slots how many of them each word reads, int [T].
  """

  text: str
  spans: np.ndarray
  starts: np.ndarray
  ends: np.ndarray
  counts: Mapping[str, np.ndarray]

  @property
  def words(self) -> list[str]:
    """The words."""
    return [self.text[start:end] for start, end in self.spans]

  @property
  def gaps(self) -> list[str]:
    """The characters before each word, and those after the last."""
    ends = [0, *(end for _, end in self.spans)]
    starts = [*(start for start, _ in self.spans), len(self.text)]
    gaps = [self.text[a:b] for a, b in zip(ends, starts, strict=True)]
    return gaps if len(gaps[-1]) < 3 else [*gaps[:-1], ' …']


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeatMap:
  """Some texts about one fact.

  Attributes:
    fact: Name of the fact.
    texts: The texts.
    accesses: Number of slots that each word reads.
  """

  fact: str
  texts: tuple[HeatText, ...]
  accesses: int

  def most(self, kind: str) -> int:
    """The most reads of a kind of slots by one word; at least 1."""
    return max(1, *(int(t.counts[kind].max(initial=0)) for t in self.texts))


def choose(facts: Sequence[held_facts.HeldFact]) -> list[HeatMap]:
  """Makes the heat maps of a few facts from evenly spaced lessons."""
  first = {held.lesson: held for held in reversed(facts)}
  lessons = sorted(first)
  chosen = held_facts.evenly_spaced(len(lessons), _FACTS)
  return [make(first[lessons[i]]) for i in chosen]


def make(held: held_facts.HeldFact) -> HeatMap:
  """Makes the heat map of a fact from some of its texts and its question."""
  asked = () if held.asked is None else (held.asked,)
  texts = held.reads[: _TEXTS - len(asked)]
  slots = {kind: getattr(held, kind) for kind in analysis.KINDS}
  return HeatMap(
    fact=held.fact.name,
    texts=tuple(_text(one, slots) for one in (*texts, *asked)),
    accesses=held.reads[0].slot_ids.shape[1],
  )


def _text(one: reads_lib.Reads, slots: Mapping[str, np.ndarray]) -> HeatText:
  words = np.flatnonzero(one.words)[:_MOST_WORDS]
  places = alignment.places(one.spans[words], alignment.entities_of(one.text))
  return HeatText(
    text=one.text.text,
    spans=one.spans[words],
    starts=places['first'],
    ends=places['last'],
    counts={kind: one.counts(of)[words] for kind, of in slots.items()},
  )


def write_pictures(workdir: pathlib.Path, maps: Sequence[HeatMap]) -> None:
  """Writes heatmap-1.png and so on, each atomically."""
  for number, heat_map in enumerate(maps, start=1):
    with figures.style():
      data = figures.png(draw(heat_map))
    atomic.write_bytes(workdir / f'heatmap-{number}.png', data)


def draw(heat_map: HeatMap) -> figure.Figure:
  """Draws a row for each kind of slots and a column for each word."""
  picture = figures.new_figure(0.7 + 1.55 * len(heat_map.texts), width=9)
  panels = picture.subplots(len(heat_map.texts), 1, squeeze=False)[:, 0]
  kinds = list(analysis.KINDS)
  for axes, text in zip(panels, heat_map.texts, strict=True):
    counts = np.stack([text.counts[kind] for kind in kinds])
    most = np.array([[heat_map.most(kind)] for kind in kinds])
    axes.imshow(counts / most, cmap='Blues', vmin=0, vmax=1.6, aspect='auto')
    axes.grid(visible=False)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(range(len(text.spans)), text.words, rotation=30, ha='right')
    for row, column in np.argwhere(counts):
      axes.text(
        column, row, str(counts[row, column]),
        ha='center', va='center', fontsize=8, color=figures.COLORS['ink'],
      )  # fmt: skip
    for edge in (*np.flatnonzero(text.starts), *np.flatnonzero(text.ends) + 1):
      axes.axvline(edge - 0.5, color=figures.COLORS['orange'], linewidth=2)
  panels[0].set_title(heat_map.fact)
  panels[-1].set_xlabel(
    f'slots of each kind that a word reads, of {heat_map.accesses}; orange:'
    ' names and values begin and end'
  )
  return picture
