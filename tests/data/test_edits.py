"""Edits as a task."""

import json
import re

import pytest

from smft_jax import schema
from smft_jax.data import edits
from smft_jax.data.sources import edits as sources_edits

EDITS = [
  {
    'prompt': f'{name} speaks',
    'target_new': 'Dutch',
    'subject': name,
    'rephrase_prompt': f'At home, {name} uses',
    'locality_prompt': f'{other} speaks',
    'locality_ground_truth': 'Danish',
  }
  for name, other in (('Ada', 'Bo'), ('Cy', 'Di'), ('Ed', 'Fay'))
]


fields_of = sources_edits.Fields


def task_of(path, *found, **settings):
  path.write_text('\n'.join(map(json.dumps, found)), encoding='utf-8')
  return edits.make_task(
    edits.EditsConfig(edits_file=str(path), augmentations=5, **settings)
  )


def test_a_document_for_each_edit(tmp_path):
  task = task_of(tmp_path / 'e.jsonl', *EDITS)
  assert task.are_edits
  assert [d.id for d in task.documents] == ['e:1', 'e:2', 'e:3']
  document = task.documents[1]
  seen, unseen = document.questions
  assert (seen.prompt, seen.answers, seen.seen) == (
    'Cy speaks',
    ('Dutch',),
    True,
  )
  assert (unseen.prompt, unseen.seen) == ('At home, Cy uses', False)
  (kept,) = document.kept
  assert (kept.prompt, kept.answers) == ('Di speaks', ('Danish',))
  assert len(document.augmentations) == 5
  assert not any(
    asked in text.text
    for asked in (unseen.prompt, kept.prompt)
    for text in document.augmentations
  )
  assert 'Di speaks' in task.vocabulary_texts()
  assert task.counts['locality_prompts'] == 3


def test_the_first_edits(tmp_path):
  task = task_of(tmp_path / 'e.jsonl', *EDITS, num_edits=2)
  assert [d.id for d in task.documents] == ['e:1', 'e:2']


def test_a_list_reads_like_lines(tmp_path):
  lines = task_of(tmp_path / 'e.jsonl', *EDITS)
  assert task_of(tmp_path / 'e.json', EDITS).documents == lines.documents


def test_what_one_edit_keeps_another_must_not_change(tmp_path):
  clash = EDITS[2] | {'locality_prompt': 'Ada speaks'}
  path = tmp_path / 'e.jsonl'
  said = f"{path}:3: 'locality_prompt' 'Ada speaks' must stay, but {path}:1"
  with pytest.raises(schema.UserError, match=re.escape(said)):
    task_of(path, *EDITS[:2], clash)


@pytest.mark.parametrize('name', ['subject', 'rephrase', 'locality'])
def test_a_field_that_a_config_names_and_no_edit_has(tmp_path, name):
  bare = [{k: edit[k] for k in ('prompt', 'target_new')} for edit in EDITS]
  said = f"config.data.fields.{name} = 'typo', but none of the 3 edits has"
  with pytest.raises(schema.UserError, match=said):
    task_of(tmp_path / 'e.jsonl', *bare, fields=fields_of(**{name: 'typo'}))
  some = bare[:2] + [bare[2] | {'mine': 'a', 'truth': 'b'}]
  names = fields_of(**{name: 'mine'}, locality_answer='truth')
  if name != 'locality':
    names = fields_of(**{name: 'mine'})
  assert len(task_of(tmp_path / 'e.jsonl', *some, fields=names).documents) == 3


def test_faults_name_file_and_line(tmp_path):
  path = tmp_path / 'e.jsonl'
  with pytest.raises(schema.UserError, match=r"e\.jsonl:2: 'target_new'"):
    task_of(path, EDITS[0], EDITS[1] | {'target_new': ''})
  task = task_of(
    path, EDITS[0], EDITS[1] | {'target_new': ''}, bad_input='skip'
  )
  assert len(task.documents) == task.counts['skipped_empty'] == 1
  with pytest.raises(schema.UserError, match='edits_file is empty'):
    edits.EditsConfig()
