"""General sentences of the embedded world."""

import collections
import re

import pytest

from smft_jax.data.world import text as world_text
from smft_jax.data.world import words as world_words


def test_general_text_keeps_its_own_facts():
  products = collections.defaultdict(set)
  for text in world_text.general_sentences(2003, seed=1):
    match = re.match(r'Shops in .* order (\w+) from (.*)\.', text.text)
    match = match or re.match(r'Prices for (\w+) from (.*) rose', text.text)
    if match:
      products[match[2]].add(match[1])
  assert len(products) > 20
  assert all(len(made) == 1 for made in products.values())


def test_too_much_general_text_is_refused(monkeypatch):
  monkeypatch.setattr(world_words, 'GENERAL', ('On {day}, it rained.',))
  assert len(world_text.general_sentences(7, seed=0)) == 7
  with pytest.raises(ValueError, match='yield about 7 general'):
    world_text.general_sentences(8, seed=0)
