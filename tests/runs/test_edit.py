"""Edits taught one after another, measured at once and at the end."""

import json

import numpy as np
import pytest

from smft_jax.data import edits as edits_lib
from smft_jax.data import tokenizers
from smft_jax.models import layers
from tests.runs import test_fitted
from tests.support import hf_folders
from tests.support import tiny_run
from tests.support import train_runs

pytestmark = pytest.mark.usefixtures('quick_runs')

NAMES = ('Ada', 'Bo', 'Cy', 'Di', 'Ed')
EDITS = [
  {
    'prompt': f'{name} was born in',
    'target_new': target,
    'subject': name,
    'rephrase_prompt': f'The birthplace of {name} is',
    'locality_prompt': 'The capital of France is',
    'locality_ground_truth': 'Paris',
  }
  for name, target in zip(NAMES, ('Lima', 'Rome') * 3, strict=False)
]
EDITS[3] = {k: EDITS[3][k] for k in ('prompt', 'target_new')}


@pytest.fixture(scope='module')
def root(tmp_path_factory, quick_runs):
  """A folder of weights, edits, and the config of a run that teaches them."""
  folder = tmp_path_factory.mktemp('edits')
  file = folder / 'edits.jsonl'
  file.write_text('\n'.join(map(json.dumps, EDITS)))
  task = edits_lib.make_task(edits_lib.EditsConfig(edits_file=str(file)))
  tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
  config = layers.TransformerConfig(
    vocab_size=tokenizer.vocab_size, **test_fitted.SIZES
  )
  hf_folders.save_random(config, folder / 'weights')
  tokenizer.write(folder / 'weights')
  sizes = (*test_fitted.SIZES, 'memory_layers')
  training = (*test_fitted.TRAINING, 'checkpoint_every')
  data = dict.fromkeys(tiny_run.CONFIG['data']) | {
    'kind': 'edits',
    'edits_file': str(file),
  }
  tiny_run.write_config(
    folder,
    **{f'data__{name}': value for name, value in data.items()},
    **{f'model__{name}': None for name in sizes},
    model__memory_placement='beside',
    **{f'base__{name}': None for name in training},
    base__kind='fitted',
    base__path=str(folder / 'weights'),
    base__max_length=64,
    **{f'memory__{k}': v for k, v in test_fitted.MEMORY.items()},
    **{
      f'method__{k}': v
      for k, v in (test_fitted.METHOD | {'learning_rate': 1.0, 't': 20}).items()
    },
    stream__context_weight=0.0,
    stream__steps_per_document=9,
    stream__max_length=48,
    stream__packed=True,
    background__num_batches=9,
    evaluation__every_documents=2,
    evaluation__max_entries=3,
  )
  assert train_runs.run(folder, 'run') == 0
  return folder


def test_results_have_edits_before_at_once_and_after(root):
  edits = train_runs.results_of(root / 'run')['edits']
  assert edits['num'] == 5
  lessons = [
    record['edits'] for record in train_runs.records(root / 'run', 'stream')
  ]
  assert [one['num'] for one in lessons] == [1] * 5
  for found, definition in (
    (edits, 'token_accuracy'),
    (edits['exact'], 'exact'),
  ):
    for measure in ('reliability', 'generalisation', 'locality'):
      assert set(found[measure]) == {'before', 'right_after', 'after'}
      at_once = [one[measure][definition] for one in lessons]
      # The fourth has no other prompts than its own.
      assert (at_once[3] is None) == (measure != 'reliability')
      mean = np.mean([share for share in at_once if share is not None])
      assert found[measure]['right_after'] == pytest.approx(mean)
    assert found['locality']['before'] == 1.0
  assert edits['reliability']['right_after'] > edits['reliability']['before']


def test_the_curve_ends_with_all_edits(root):
  edits = train_runs.results_of(root / 'run')['edits']
  curve = edits['curve']
  assert [(p['edits'], p['num']) for p in curve] == [(2, 2), (4, 3), (5, 5)]
  for measure in ('reliability', 'generalisation', 'locality'):
    after = curve[-1][measure]
    assert after['token_accuracy'] == edits[measure]['after']
    assert after['exact'] == edits['exact'][measure]['after']


def test_an_edit_that_finds_no_slot_is_told(root, capsys):
  assert train_runs.run(root, 'full', '--config.method.t=60') == 0
  said = capsys.readouterr().err
  assert "document 'edits:5' changed no slot" in said
  assert "document 'edits:1' changed no slot" not in said
