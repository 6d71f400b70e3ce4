"""HTML pages of one file each, from the jinja2 templates in `templates/`.

A page loads nothing and runs no scripts. Its style serves light and dark
screens, phones and print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import jinja2

# Colours by name, on white and on black. The hues are those of Okabe and Ito,
# which people with any common color vision can tell apart.
COLORS = {
  'page': ('#ffffff', '#11151c'),
  'card': ('#f6f7f9', '#1a202a'),
  'rule': ('#e4e7ec', '#2b3240'),
  'ink': ('#1c2330', '#eef1f6'),
  'soft': ('#5b6575', '#9aa4b5'),
  'pale': ('#a7afbb', '#5d6878'),
  'blue': ('#0067a8', '#5cb8f2'),
  'orange': ('#c2500a', '#f29a5c'),
  'green': ('#00795a', '#3fcfa4'),
  'purple': ('#a2427c', '#e08fc0'),
  'gray': ('#7a8291', '#8b95a7'),
  'gold': ('#8a6d00', '#e0c04a'),
  'sky': ('#3f8fc4', '#9ad4f7'),
}


def render(template: str, **context: Any) -> str:
  """Renders a template; all text is escaped.

  Args:
    template: A file in `templates/`, such as 'run.html'.
    **context: The template's variables. One that is missing is an error.

  Returns:
    The HTML, with escapes for what is no character, such as the bytes of a path
    in another encoding.
  """
  html = _environment().get_template(template).render(context)
  return html.encode('utf-8', 'backslashreplace').decode()


def color_style(selector: str) -> str:
  """CSS that defines each color as a variable, for light and for dark.

  Example:
    >>> print(color_style('svg').splitlines()[0][:27])
    svg { --page: #ffffff; --ca
  """
  light, dark = (
    ' '.join(f'--{name}: {pair[i]};' for name, pair in COLORS.items())
    for i in (0, 1)
  )
  return (
    f'{selector} {{ {light} }}\n'
    f'@media (prefers-color-scheme: dark) {{ {selector} {{ {dark} }} }}'
  )


def percent(share: float | None, sign: str = '') -> str:
  """Formats a share as a percentage with three digits.

  Example:
    >>> percent(0.8421), percent(-0.0046, '+'), percent(1.0), percent(None)
    ('84.2%', '-0.46%', '100%', '')
  """
  return '' if share is None else f'{100 * share:{sign}.3g}%'


def number(value: float | None, sign: str = '') -> str:
  """Formats a number with three decimals.

  Example:
    >>> number(0.84213), number(0.5, '+'), number(None)
    ('0.842', '+0.500', '')
  """
  return '' if value is None else f'{value:{sign}.3f}'


def thousands(value: Any) -> str:
  """Formats whole numbers with commas, and other values as text.

  Example:
    >>> thousands(812345), thousands(0.5), thousands({'a': 1})
    ('812,345', '0.5', 'a 1')
  """
  if isinstance(value, Mapping):
    return ', '.join(f'{key} {item}' for key, item in value.items())
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}'
  return str(value)


def columns(rows: Sequence[Sequence[str]], left: int) -> list[str]:
  """Aligns a table of text in lines, its first `left` columns to the left.

  Example:
    >>> columns([('set', 'lost'), ('known', '5%')], left=1)
    ['set    lost', 'known    5%']
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.ljust(width) if place < left else cell.rjust(width)
      for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]


@functools.cache
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('smft_jax.report', 'templates'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {
    'percent': percent,
    'number': number,
    'thousands': thousands,
  }
  environment.globals['color_style'] = color_style
  return environment
