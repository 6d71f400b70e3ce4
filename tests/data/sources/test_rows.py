"""What a row says, whatever its fields are called."""

import math
import re

import pytest

from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows


def _row(**fields):
  return rows.Row(place='a.jsonl:3', default_id='a:3', fields=fields)


def test_ids():
  assert _row(id='x').id() == 'x'
  assert _row(id=17).id() == '17'
  assert _row(id=None).id() == _row().id() == 'a:3'
  assert _row(id=math.nan).id() == 'a:3'


@pytest.mark.parametrize('value', [True, 1.5, ' ', [1]])
def test_ids_of_another_form(value):
  with pytest.raises(problems_lib.Fault, match="'id' must be text") as raised:
    _row(id=value).id()
  assert raised.value.kind == 'wrong_form'


@pytest.mark.parametrize(
  ('fields', 'kind', 'said'),
  [
    ({'a': 'b', 'n': 1}, 'wrong_form', "'text' is missing; there is a, n"),
    ({}, 'wrong_form', "'text' is missing; there is nothing"),
    ({'text': 3}, 'wrong_form', "'text' must be text, not 3"),
    ({'text': None}, 'wrong_form', "'text' is missing; there is nothing"),
    ({'text': ' \n'}, 'empty', "'text' is empty"),
  ],
)
def test_texts_that_are_not_there(fields, kind, said):
  with pytest.raises(problems_lib.Fault, match=re.escape(said)) as raised:
    rows.text(fields, 'text')
  assert raised.value.kind == kind


def test_titles():
  assert rows.title({'title': 'T'}) == 'T'
  assert rows.title({}) == rows.title({'title': None}) == ''
  assert rows.title({'title': math.nan}) == ''
  with pytest.raises(problems_lib.Fault, match="'title' must be text, not 3"):
    rows.title({'title': 3})


@pytest.mark.parametrize(
  ('fields', 'expected'),
  [
    ({'answer': ' a '}, ('a',)),
    ({'answer': ['b', 'a', 'b ']}, ('b', 'a')),
    ({'answers': ['a'], 'answer': 'b'}, ('a',)),
    ({'answers': {'text': ['b', 'b', 'c'], 'answer_start': [1]}}, ('b', 'c')),
    ({'answer': {'value': 'v', 'aliases': ['b', 'v', 'a']}}, ('v', 'b', 'a')),
    ({'answer': {'value': 'v', 'aliases': None, 'type': 'x'}}, ('v',)),
    ({'answer': {'value': 'v', 'aliases': math.nan}}, ('v',)),
  ],
)
def test_answers(fields, expected):
  assert rows.answers(fields) == (expected, '')


def test_a_solution_of_gsm8k():
  answer = 'He ate 2+3=<<2+3=5>>5.\nHe has 7*5=$<<7*5=35>>35.\n#### 1,035'
  assert rows.answers({'answer': answer}) == (
    ('1,035',),
    'He ate 2+3=5.\nHe has 7*5=$35.',
  )


@pytest.mark.parametrize(
  ('fields', 'kind', 'said'),
  [
    ({'anser': 'a'}, 'wrong_form', "'answers' or 'answer' is missing"),
    (
      {'answer': True},
      'wrong_form',
      "'answer' must be a text or a list of texts",
    ),
    ({'answers': ['a', {}]}, 'wrong_form', "'value' or 'text' is missing"),
    ({'answers': ['a', None]}, 'wrong_form', "'answers' must be a text or a"),
    ({'answer': None}, 'wrong_form', "'answers' or 'answer' is missing"),
    ({'answer': {'val': 'a'}}, 'wrong_form', "'value' or 'text' is missing"),
    ({'answer': {'value': None}}, 'wrong_form', "'value' or 'text' is missing"),
    ({'answers': []}, 'no_answer', "'answers' has no answer"),
    ({'answers': {'text': []}}, 'no_answer', "'answers' has no answer"),
    ({'answer': ['', ' ']}, 'no_answer', "'answer' has no answer"),
    ({'answer': ''}, 'no_answer', "'answer' has no answer"),
    ({'answer': 'So it is.\n#### '}, 'no_answer', 'has no answer'),
  ],
)
def test_answers_that_are_not_there(fields, kind, said):
  with pytest.raises(problems_lib.Fault, match=re.escape(said)) as raised:
    rows.answers(fields)
  assert raised.value.kind == kind


_CHOICE = {
  'activity_label': 'Tea',
  'ctx_a': 'How to make tea [title] Boil water. [step] Wait.',
  'ctx_b': 'the Cook',
  'ctx': 'How to make tea [title] Boil water. [step] Wait. the Cook',
  'endings': ['pours [substeps] it.', ' flies.'],
  'label': '1',
}


def test_a_choice_as_published():
  # Python's `capitalize` makes the rest small, and so does the published code.
  assert rows.choice(_CHOICE) == (
    'Tea: How to make tea. Boil water. Wait. The cook',
    ('pours it.', 'flies.'),
    1,
  )


@pytest.mark.parametrize('name', ['ctx', 'context'])
def test_a_choice_with_its_context_in_one_field(name):
  fields = {'activity_label': 'Tea', 'endings': ['a', 'b', 'c'], 'label': 2}
  read = rows.choice(fields | {name: 'It boils. the Cook'})
  assert read == ('Tea: It boils. the Cook', ('a', 'b', 'c'), 2)


@pytest.mark.parametrize(
  ('changes', 'kind', 'said'),
  [
    ({'label': ''}, 'no_answer', "'label' names no right"),
    ({'label': -1}, 'no_answer', "'label' names no right"),
    ({'label': 2}, 'wrong_form', "'label' must be from 0 to 1, not 2"),
    ({'label': '2'}, 'wrong_form', "'label' must be from 0 to 1, not 2"),
    ({'label': True}, 'wrong_form', "'label' must be from 0 to 1, not True"),
    ({'label': 'b'}, 'wrong_form', "'label' must be from 0 to 1, not 'b'"),
    ({'endings': 'ab'}, 'wrong_form', "'endings' must be a list of two"),
    ({'endings': ['a']}, 'wrong_form', "'endings' must be a list of two"),
    ({'endings': ['a', 3]}, 'wrong_form', "'endings' must be a list of two"),
    ({'endings': ['a', '[step]']}, 'empty', "'endings' has an empty one"),
    ({'activity_label': ''}, 'empty', "'activity_label' is empty"),
  ],
)
def test_choices_of_another_form(changes, kind, said):
  with pytest.raises(problems_lib.Fault, match=re.escape(said)) as raised:
    rows.choice(_CHOICE | changes)
  assert raised.value.kind == kind
