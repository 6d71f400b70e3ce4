"""Edits as editing toolkits write them."""

import re

import pytest

from smft_jax.data.sources import edits
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import rows

EDIT = {
  'prompt': ' Ada speaks ',
  'target_new': 'Dutch',
  'subject': 'Ada',
  'rephrase_prompt': 'At home, Ada uses',
  'locality_prompt': 'Bo speaks',
  'locality_ground_truth': 'Danish',
}


def read(fields, **names):
  row = rows.Row(place='a.json:3', default_id='a:3', fields=fields)
  return edits.edit(row, edits.Fields(**names))


def test_an_edit_of_the_common_format():
  assert read(EDIT) == edits.SourceEdit(
    id='a:3',
    prompt='Ada speaks',
    target='Dutch',
    subject='Ada',
    rephrasings=('At home, Ada uses',),
    locality=(('Bo speaks', 'Danish'),),
  )
  assert read(EDIT).place == 'a.json:3'


@pytest.mark.parametrize('nothing', [None, '', ' ', [], float('nan')])
def test_prompt_and_target_are_enough(nothing):
  names = ('subject', 'rephrase_prompt', 'locality_prompt')
  fields = EDIT | dict.fromkeys((*names, 'locality_ground_truth'), nothing)
  bare = {name: EDIT[name] for name in ('prompt', 'target_new')}
  assert (
    read(fields)
    == read(bare)
    == edits.SourceEdit(id='a:3', prompt='Ada speaks', target='Dutch')
  )


def test_nested_fields_lists_and_a_place_for_the_subject():
  found = read(
    {
      'case_id': 7,
      'requested_rewrite': {
        'prompt': '{} speaks',
        'subject': 'Ada',
        'target_new': {'str': 'Dutch', 'id': 'Q7411'},
      },
      'paraphrase_prompts': ['It rained. {} uses', 'Ada says'],
      'neighborhood_prompts': ['Bo speaks', 'Cy speaks'],
      'truths': ['Danish', 1815],
    },
    prompt='requested_rewrite.prompt',
    target='requested_rewrite.target_new.str',
    subject='requested_rewrite.subject',
    rephrase='paraphrase_prompts',
    locality='neighborhood_prompts',
    locality_answer='truths',
  )
  assert found.prompt == 'Ada speaks'
  assert found.target == 'Dutch'
  assert found.rephrasings == ('It rained. Ada uses', 'Ada says')
  assert found.locality == (('Bo speaks', 'Danish'), ('Cy speaks', '1815'))


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'target_new': ''}, "'target_new' is empty"),
    ({'prompt': ' '}, "'prompt' is empty"),
    ({'target_new': None}, "'target_new' is missing; there is prompt, subj"),
    ({'subject': {'x': 1}}, "'subject' must be text or a list of texts, not {"),
    ({'rephrase_prompt': [True]}, "'rephrase_prompt' must be text or a list"),
    ({'locality_ground_truth': ''}, 'must be equally many, not 1 and 0'),
    ({'locality_prompt': ['a', 'b']}, 'must be equally many, not 2 and 1'),
    ({'prompt': ['a', 'b']}, "'prompt' must be one text, not 2"),
    ({'subject': ['a', 'b']}, "'subject' must be one text, not 2"),
    ({'target_new': float('inf')}, "'target_new' must be text or a list"),
  ],
)
def test_faults_name_the_field(changes, said):
  with pytest.raises(problems_lib.Fault, match=re.escape(said)):
    read(EDIT | changes)


def test_a_field_that_no_row_has_is_named_with_those_it_has():
  said = "'promt' is missing; there is prompt, target_new, subject"
  with pytest.raises(problems_lib.Fault, match=said):
    read(EDIT, prompt='promt')
  said = "'target_new.str' is missing"
  with pytest.raises(problems_lib.Fault, match=said):
    read(EDIT | {'target_new': {'id': 'Q7411'}}, target='target_new.str')


@pytest.mark.parametrize(
  ('name', 'value', 'shown'),
  [
    # As in MQuAKE and KnowEdit.
    ('prompt', [{'prompt': '{} is'}, {'prompt': '{} was'}], "[{'prompt': "),
    ('locality', [{'prompt': 'Bo speaks'}], "[{'prompt': 'Bo speaks'}]"),
    ('rephrase', '{"prompt": "x"}', '\'{"prompt": "x"}\''),
  ],
)
def test_a_name_that_leads_into_something_else_than_an_object(
  name, value, shown
):
  said = f"'outer.prompt' leads into an object, but 'outer' is {shown}"
  with pytest.raises(problems_lib.Fault, match=re.escape(said)):
    read(EDIT | {'outer': value}, **{name: 'outer.prompt'})
  for nothing in (None, float('nan'), '', [], {}):
    read(EDIT | {'outer': nothing}, rephrase='outer.prompt')


def test_the_subject_stands_in_every_prompt():
  templates = {
    'prompt': '{} speaks',
    'rephrase_prompt': ['At home, {} uses'],
    'locality_prompt': '{} lives in',
  }
  found = read(EDIT | templates)
  assert found.prompt == 'Ada speaks'
  assert found.rephrasings == ('At home, Ada uses',)
  assert found.locality == (('Ada lives in', 'Danish'),)
  for name, template in templates.items():
    said = f"{name!r} has '{{}}' for the subject, but 'subject' is missing"
    with pytest.raises(problems_lib.Fault, match=re.escape(said)):
      read(EDIT | {'subject': None, name: template})


def test_prompts_to_keep_and_continuations_stay_pairs():
  names = ('locality_prompt', 'locality_ground_truth')

  def pairs(*texts):
    return read(EDIT | dict(zip(names, texts, strict=True))).locality

  expected = (('a', 'x'), ('c', 'z'))
  assert pairs(['a', '', 'c'], ['x', None, 'z']) == expected
  assert pairs(['a', 'c', None], ['x', 'z']) == expected
  for prompts, answers, said in (
    (['a', '', 'c'], ['x', 'y', ''], 'empty at the same places'),
    (['a', None, 'c'], ['x', 'y', 'z'], 'equally many, not 2 and 3'),
  ):
    with pytest.raises(problems_lib.Fault, match=said):
      pairs(prompts, answers)


def test_whole_numbers_that_a_table_stores_as_floats():
  found = read(EDIT | {'target_new': 1987.0, 'locality_ground_truth': [2.5]})
  assert (found.target, found.locality) == ('1987', (('Bo speaks', '2.5'),))


@pytest.mark.parametrize('name', ['target_new', 'rephrase_prompt'])
def test_a_list_that_was_written_as_text(name):
  with pytest.raises(problems_lib.Fault, match='is a list written as text'):
    read(EDIT | {name: "['Dutch', 'German']"})
  # The text itself, where it is meant.
  found = read(EDIT | {name: ["['Dutch', 'German']"]})
  assert "['Dutch', 'German']" in (found.target, *found.rephrasings)
