"""Pages of one file, without scripts or links, and the parts they share.

The one style serves light and dark screens, phones and print.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import html
from typing import Any

STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f6f7f9;
  --ink: #1c2330; --soft: #667085; --rule: #e4e7ec; --good: #00795a;
  --bad: #b93a0a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #11151c; --card: #1a202a; --ink: #eef1f6; --soft: #9aa4b5;
    --rule: #2b3240; --good: #3fcfa4; --bad: #f29a5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 18px 56px; max-width: 796px;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.55rem; line-height: 1.3; margin: .2em 0 .7em;
  text-wrap: balance; }
h2 { font-size: 1.15rem; margin: 2.4em 0 .5em; }
h3 { font-size: 1rem; margin: 1.8em 0 .4em; }
p { margin: .6em 0; }
.soft, th, dt { color: var(--soft); }
.soft { font-size: .88rem; overflow-wrap: anywhere; }
.tiles { display: grid; gap: 10px; margin: 1em 0;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.tile { background: var(--card); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: .82rem; line-height: 1.35;
  color: var(--soft); }
ul.verdicts { list-style: none; padding: 0; margin: 1em 0; }
ul.verdicts li { display: grid; grid-template-columns: 4.6em 1fr; gap: 10px;
  padding: 8px 0; border-bottom: 1px solid var(--rule); }
ul.verdicts b { font-size: .82rem; line-height: 1.8; }
.yes { color: var(--good); }
.no { color: var(--bad); }
.open { color: var(--soft); }
img { display: block; width: 100%; height: auto; margin: 14px 0;
  background: #fff; border-radius: 10px; padding: 10px; }
svg.chart { display: block; max-width: 100%; height: auto; }
svg.key { display: inline; vertical-align: middle; margin-right: 6px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 0 0 10px;
  font-size: .88rem; }
.picture + .picture { margin-top: 24px; }
.narrow { display: none; }
@media (max-width: 560px) { .wide { display: none; }
  .narrow { display: block; } h1 { font-size: 1.3rem; } }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 0 6px 12px; font-weight: 400;
  border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; line-height: 1.25; }
th:first-child, td:first-child { text-align: left; padding-left: 0;
  min-width: 9.5em; white-space: normal; }
td.text { white-space: normal; min-width: 13em; }
tr.own td, .change td:last-child { font-weight: 650; }
.change th, .change td { min-width: 0; }
.bars { display: grid; gap: 4px 10px; align-items: center; margin: 1em 0;
  grid-template-columns: fit-content(11em) 1fr auto; font-size: .88rem; }
.bars i { height: 14px; border-radius: 3px; background: var(--good);
  width: calc(var(--v) * 100%); min-width: 1px; }
.bars b { font-weight: 400; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: minmax(110px, auto) 1fr;
  gap: 6px 16px; margin: 0; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 1em; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--card); border-radius: 10px; padding: 12px 14px;
  overflow-x: auto; font-size: .8rem; }
"""


def safe(text: Any) -> str:
  """Text as HTML shows it, in a document or an attribute.

  Example:
    >>> safe('a < "b"')
    'a &lt; &quot;b&quot;'
  """
  return html.escape(str(text), quote=True)


def document(
  title: str, headline: str, body: Iterable[str], style: str = ''
) -> str:
  """A whole page of HTML that loads nothing.

  Args:
    title: as text, what the page is about.
    headline: as text, what came out.
    body: pieces of HTML; empty ones are left out.
    style: of what the body holds and `STYLE` does not know.
  """
  lines = [
    '<!doctype html>',
    '<html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f'<title>{safe(title)}</title>',
    f'<style>{STYLE}{style}</style></head><body>',
    f'<p class="soft">{safe(title)}</p>',
    f'<h1>{safe(headline)}</h1>',
    *filter(None, body),
    '</body></html>',
  ]
  return '\n'.join(lines) + '\n'


def tiles(numbers: Iterable[tuple[str, str]]) -> str:
  """The numbers that people look for first, each large over its meaning.

  Args:
    numbers: (value, what it is), as text; where there are none, so is no HTML.

  Example:
    >>> tiles([('4.6%', 'lost')])
    '<div class="tiles"><div class="tile"><b>4.6%</b><span>lost</span></div></div>'
    >>> tiles([])
    ''
  """  # noqa: E501
  inner = ''.join(
    f'<div class="tile"><b>{safe(value)}</b><span>{safe(label)}</span></div>'
    for value, label in numbers
  )
  return f'<div class="tiles">{inner}</div>' if inner else ''


def facts(pairs: Iterable[tuple[str, str]]) -> str:
  """Names and what is said of them, as text; nothing where there are none.

  Example:
    >>> facts([('steps', '<800>')])
    '<dl><dt>steps</dt><dd>&lt;800&gt;</dd></dl>'
    >>> facts([])
    ''
  """
  inner = ''.join(
    f'<dt>{safe(name)}</dt><dd>{safe(said)}</dd>' for name, said in pairs
  )
  return f'<dl>{inner}</dl>' if inner else ''


def table(
  head: Sequence[str],
  rows: Iterable[Sequence[Any]],
  own: int | None = None,
  change: bool = False,
) -> str:
  """A table that scrolls sideways where the screen is narrow.

  Args:
    head: of the columns, as text.
    rows: cells as text; None is left empty.
    own: the row that stands out.
    change: whether the last column stands out, as what the few before it come
      to; names then break so that a phone shows it without scrolling.

  Example:
    >>> table(['', 'lost'], [['LoRA', None]])  # doctest: +ELLIPSIS
    '<div class="scroll">...<td>LoRA</td><td></td></tr></table></div>'
    >>> table(['', 'lost'], [['LoRA', '5%']], change=True)  # doctest: +ELLIPSIS
    '<div class="scroll"><table class="change"><tr>...</tr></table></div>'
  """
  top = ''.join(f'<th>{safe(cell)}</th>' for cell in head)
  lines = []
  for place, row in enumerate(rows):
    cells = ''.join(map(_cell, row))
    mark = ' class="own"' if place == own else ''
    lines.append(f'<tr{mark}>{cells}</tr>')
  kind = ' class="change"' if change else ''
  return (
    f'<div class="scroll"><table{kind}><tr>{top}</tr>{"".join(lines)}'
    '</table></div>'
  )


def _cell(value: Any) -> str:
  text = '' if value is None else str(value)
  mark = ' class="text"' if len(text) > 24 else ''  # may be broken
  return f'<td{mark}>{safe(text)}</td>'


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
  """Bars beside each other's names; nothing where there are none.

  Args:
    rows: name, value and the value as text; values are at least 0.

  Example:
    >>> bars([('LoRA', 0.5, '50%')])
    '<div class="bars"><span>LoRA</span><i style="--v:1.000"></i><b>50%</b></div>'
    >>> bars([])
    ''
  """  # noqa: E501
  most = max((value for _, value, _ in rows), default=0) or 1
  inner = ''.join(
    f'<span>{safe(name)}</span><i style="--v:{value / most:.3f}"></i>'
    f'<b>{safe(text)}</b>'
    for name, value, text in rows
  )
  return f'<div class="bars">{inner}</div>' if inner else ''


def details(title: str, inner: str) -> str:
  """What a reader opens if they want it; nothing where there is nothing."""
  if not inner:
    return ''
  return f'<details><summary>{safe(title)}</summary>{inner}</details>'


def paragraphs(text: str) -> str:
  """Text with empty lines between its paragraphs, as HTML."""
  parts = (part.strip() for part in text.split('\n\n'))
  return ''.join(f'<p>{safe(part)}</p>' for part in parts if part)
