"""How the reference reads our docstrings: examples as code, formulas as TeX.

A Griffe extension, named in mkdocs.yml. What Griffe calls `Examples` we call
`Example`, as each has one, and it knows no `.. math::`.
"""

import re

import griffe


def readable(text: str) -> str:
  """A docstring in the words of Griffe's Google style and of Markdown."""
  text = re.sub(r'^( *)Example:$', r'\1Examples:', text, flags=re.M)
  text = re.sub(
    r'^( *)\.\. math:: (.*)$', r'\1```tex\n\1\2\n\1```', text, flags=re.M
  )
  return re.sub(r':math:`(.*?)`', r'`\1`', text)


class Docstrings(griffe.Extension):
  """Makes every docstring readable once its object is there."""

  def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
    """Called for every module, class, function and attribute."""
    if obj.docstring:
      obj.docstring.value = readable(obj.docstring.value)
