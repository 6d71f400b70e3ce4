"""Rewrites docstrings for the reference: examples as code, formulas as TeX.

A Griffe extension, named in mkdocs.yml. Griffe expects `Examples:` where we
write `Example:`, and does not know `.. math::`.
"""

import re

import griffe


def readable(text: str) -> str:
  """Returns a docstring in Griffe's Google style and Markdown."""
  text = re.sub(r'^( *)Example:$', r'\1Examples:', text, flags=re.M)
  text = re.sub(
    r'^( *)\.\. math:: (.*)$', r'\1```tex\n\1\2\n\1```', text, flags=re.M
  )
  return re.sub(r':math:`(.*?)`', r'`\1`', text)


class Docstrings(griffe.Extension):
  """Rewrites the docstring of every object."""

  def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
    """Called for every module, class, function and attribute."""
    if obj.docstring:
      obj.docstring.value = readable(obj.docstring.value)
