"""Reads a page of HTML: what it shows, and whether it stands alone."""

import html.parser
import re

_VOID = ('meta', 'br', 'link', 'img')
_REACHING_OUT = {'script', 'link', 'img', 'iframe', 'object'}
_ATTRIBUTES = {'href', 'src', 'srcset', 'onload', 'onerror'}


class Page(html.parser.HTMLParser):
  """The tags of a page with their attributes, and its words.

  Raises:
    AssertionError: A tag is not closed, or the page loads something.
  """

  def __init__(self, text):
    super().__init__()
    self.tags, self._open, self._words = [], [], []
    self.feed(text)
    self.close()
    assert not self._open
    assert not re.search(r'url\((?!#)|@import', text)
    for tag, attributes in self.tags:
      assert tag not in _REACHING_OUT
      assert not _ATTRIBUTES & set(attributes)

  @property
  def words(self):
    return ' '.join(' '.join(self._words).split())

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag not in _VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self._words.append(data)
