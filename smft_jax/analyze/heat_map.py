"""Heat maps: how much each word reads of a fact's core, trained, other slots.

Drawn over the text itself for a page, and as a picture for a paper. The three
kinds of slots are each compared with the word that reads most of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import io
import os
import pathlib
import uuid

from matplotlib import figure
from matplotlib import style
import numpy as np

from smft_jax.analyze import alignment
from smft_jax.analyze import held_facts
from smft_jax.analyze import reads as reads_lib
from smft_jax.report import old_page as page
from smft_jax.sweep.pareto import drawing

KINDS = {
  'core': 'core set of the fact',
  'trained': 'changed by its lesson',
  'background': 'read most by the background',
}

STYLE = """
.heat { --core: 92 184 242; --trained: 247 172 110; --background: 165 172 184;
  margin: 0 0 18px; }
@media (prefers-color-scheme: dark) {
  .heat { --core: 0 103 168; --trained: 166 76 12; --background: 92 101 118; } }
.heat p { margin: 0; padding: 2px 0; line-height: 1.9; }
.heat p small { display: inline-block; width: 7.2em; color: var(--soft); }
.heat i { font-style: normal; border-radius: 3px; padding: 2px 3px;
  background: rgb(var(--h) / var(--s)); }
.heat u { text-decoration: none; border: solid var(--ink);
  border-width: 0 2px; border-radius: 4px; padding: 2px 1px; }
"""

# Facts drawn, each of a lesson of its own, and texts drawn of each.
_FACTS, _TEXTS = 3, 4

# A longer text is cut, as no page and no paper has room for it.
_MOST_WORDS = 40


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeatText:
  """One text of a heat map.

  Attributes:
    text: The text.
    spans: int [T, 2], the characters of each word.
    entities: Bool [T], the words that are of an entity.
    starts: Bool [T], the words that begin one.
    ends: Bool [T], the words that end one.
    counts: Of each of `KINDS` how many of its slots each word reads, int [T].
  """

  text: str
  spans: np.ndarray
  entities: np.ndarray
  starts: np.ndarray
  ends: np.ndarray
  counts: Mapping[str, np.ndarray]

  @property
  def words(self) -> list[str]:
    """The words as they are written."""
    return [self.text[start:end] for start, end in self.spans]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeatMap:
  """Some texts on one fact.

  Attributes:
    fact: What the fact is called.
    texts: The texts.
    accesses: How many slots each word reads.
  """

  fact: str
  texts: tuple[HeatText, ...]
  accesses: int

  def most(self, kind: str) -> int:
    """Most reads of a kind of slots by one word; at least 1."""
    return max(1, *(int(t.counts[kind].max(initial=0)) for t in self.texts))


def choose(facts: Sequence[held_facts.HeldFact]) -> list[HeatMap]:
  """The heat maps of a few facts, evenly spaced, each of another lesson."""
  first = {held.lesson: held for held in reversed(facts)}
  lessons = sorted(first)
  count = min(len(lessons), _FACTS)
  return [make(first[lessons[len(lessons) * i // count]]) for i in range(count)]


def make(held: held_facts.HeldFact) -> HeatMap:
  """The heat map of a fact: some of its texts, and its question."""
  asked = () if held.asked is None else (held.asked,)
  told = held.reads[: _TEXTS - len(asked)]
  slots = {kind: getattr(held, kind) for kind in KINDS}
  return HeatMap(
    fact=held.fact.name,
    texts=tuple(_text(one, slots) for one in (*told, *asked)),
    accesses=held.reads[0].slot_ids.shape[1],
  )


def to_html(drawn: HeatMap) -> str:
  """A heat map as HTML, for a page with `STYLE`."""
  parts = [f'<h3>{page.safe(drawn.fact)}</h3>']
  for text in drawn.texts:
    lines = ''.join(
      f'<p style="--h:var(--{kind})"><small>{kind}</small>'
      f'{_line(text, kind, drawn.most(kind), drawn.accesses)}</p>'
      for kind in KINDS
    )
    parts.append(f'<div class="heat">{lines}</div>')
  most = ', '.join(f'{drawn.most(kind)} {kind}' for kind in KINDS)
  parts.append(
    f'<p class="soft">Each word reads {drawn.accesses} slots; the darkest of a'
    f' kind reads {most}. Bars stand at the ends of names and values.</p>'
  )
  return '\n'.join(parts)


def write_pictures(workdir: pathlib.Path, maps: Sequence[HeatMap]) -> list[str]:
  """Writes heatmap-1.png and so on, each there whole or not at all.

  Returns:
    The names of the files.
  """
  names = []
  for number, drawn in enumerate(maps, start=1):
    with style.context(['default', drawing.STYLE]):
      picture = draw(drawn)
      data = io.BytesIO()
      # Software would be the version of the library that draws.
      picture.savefig(data, dpi=drawing.DPI, metadata={'Software': None})
    name = f'heatmap-{number}.png'
    unfinished = workdir / f'.{name}.{uuid.uuid4().hex[:8]}'
    try:
      unfinished.write_bytes(data.getvalue())
      os.replace(unfinished, workdir / name)
    finally:
      unfinished.unlink(missing_ok=True)
    names.append(name)
  return names


def draw(drawn: HeatMap) -> figure.Figure:
  """A heat map as a picture: a row for each kind of slots, a column a word."""
  picture = drawing.new_figure(0.7 + 1.55 * len(drawn.texts))
  panels = picture.subplots(len(drawn.texts), 1, squeeze=False)[:, 0]
  for axes, text in zip(panels, drawn.texts, strict=True):
    counts = np.stack([text.counts[kind] for kind in KINDS])
    most = np.array([[drawn.most(kind)] for kind in KINDS])
    axes.imshow(counts / most, cmap='Blues', vmin=0, vmax=1.25, aspect='auto')
    axes.grid(visible=False)
    axes.set_yticks(range(len(KINDS)), list(KINDS))
    axes.set_xticks(range(len(text.spans)), text.words, rotation=30, ha='right')
    for place in np.argwhere(counts):
      axes.text(
        place[1], place[0], str(counts[tuple(place)]),
        ha='center', va='center', fontsize=8, color=drawing.INK,
      )  # fmt: skip
    for edge in np.flatnonzero(text.starts):
      axes.axvline(edge - 0.5, color=drawing.COLORS[1], linewidth=2)
    for edge in np.flatnonzero(text.ends):
      axes.axvline(edge + 0.5, color=drawing.COLORS[1], linewidth=2)
  panels[0].set_title(drawn.fact)
  panels[-1].set_xlabel(
    f'reads of each word, of {drawn.accesses}; orange: where names and values'
    ' begin and end'
  )
  return picture


def _text(one: reads_lib.Reads, slots: Mapping[str, np.ndarray]) -> HeatText:
  words = np.flatnonzero(one.words)[:_MOST_WORDS]
  places = alignment.places(one.spans[words], alignment.entities_of(one.text))
  return HeatText(
    text=one.text.text,
    spans=one.spans[words],
    entities=places['inside'],
    starts=places['first'],
    ends=places['last'],
    counts={kind: one.counts(of)[words] for kind, of in slots.items()},
  )


def _line(text: HeatText, kind: str, most: int, accesses: int) -> str:
  """One text with its words shaded by one kind of slots."""
  parts, done, inside = [], 0, False
  for (start, end), count, entity, ends in zip(
    text.spans, text.counts[kind], text.entities, text.ends, strict=True
  ):
    parts.append(page.safe(text.text[done:start]))
    if entity and not inside:
      parts.append('<u>')
    inside = bool(entity)
    parts.append(
      f'<i style="--s:{count / most:.2f}" title="{count} of {accesses}">'
      f'{page.safe(text.text[start:end])}</i>'
    )
    if inside and ends:
      parts.append('</u>')
      inside = False
    done = end
  if inside:  # cut within an entity
    parts.append('</u>')
  rest = text.text[done:]
  return ''.join(parts) + (page.safe(rest) if len(rest) < 3 else ' …')
