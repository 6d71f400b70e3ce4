"""The embedded world's words and templates."""

import itertools
import re

import pytest

from smft_jax.data.world import words as world_words


def test_word_lists_keep_apart():
  groups = [
    set(world_words.FIRST_NAMES),
    set(world_words.LAST_NAMES),
    *({*' '.join(values).split()} for values in world_words.VALUES.values()),
  ]
  templates = [
    *world_words.GENERAL,
    *itertools.chain(*world_words.STATEMENTS.values()),
    *itertools.chain(*world_words.QUESTIONS.values()),
  ]
  groups.append(set(re.findall(r'\w+', ' '.join(templates))))
  for one, other in itertools.combinations(groups, 2):
    assert not one & other
  for values in world_words.VALUES.values():
    assert len(set(values)) == len(values)
    assert 32 <= len(values) <= 40


@pytest.mark.parametrize('attribute', world_words.VALUES)
def test_templates_are_different_and_complete(attribute):
  statements = world_words.STATEMENTS[attribute]
  questions = world_words.QUESTIONS[attribute]
  assert len(set(statements)) == len(statements) >= 8
  assert len(set(questions)) == len(questions) >= 3
  for template in statements:
    assert re.findall('{.*?}', template) == ['{name}', '{value}']
    assert template.endswith('{value}.')
  for template in questions:
    assert re.findall('{.*?}', template) == ['{name}']
    assert template.endswith('?')
