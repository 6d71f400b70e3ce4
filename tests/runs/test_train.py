"""The program from its command line, in a world small enough for seconds."""

import dataclasses
import json
import runpy

import numpy as np
import pytest

from smft_jax import schema
from smft_jax import train
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from smft_jax.runs import base as base_lib
from smft_jax.runs import measurements
from smft_jax.runs import pretrain
from smft_jax.store import checkpoint
from smft_jax.store import records as records_lib
from tests.support import repository
from tests.support import small_tfds
from tests.support import tiny_run
from tests.support import train_runs

CONFIGS = repository.ROOT / 'configs'


@pytest.fixture(autouse=True, scope='module')
def often(quick_runs):
  """Records as often as so short a run needs."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pretrain, '_RECORD_EVERY', 2)
    yield


@pytest.fixture(scope='module')
def root(tmp_path_factory, often):
  """A folder with tiny.py, its cached base, and the finished run `whole`."""
  folder = tmp_path_factory.mktemp('train')
  tiny_run.write_config(folder)
  assert train_runs.run(folder, 'whole') == 0
  return folder


def steps(folder):
  """The checkpoints in a folder, oldest first; all that there is."""
  return sorted(int(path.name) for path in folder.iterdir())


def arrays(folder):
  """What the newest checkpoint in a folder holds."""
  _, stored, _ = checkpoint.read_newest(folder, train_runs.stored_shapes)
  return {name: np.asarray(leaf) for name, leaf in stored.items()}


def test_results_have_the_keys_that_others_rely_on(root):
  results = train_runs.check_results(root / 'whole', 'sparse_memory')
  assert results['wall_s'] > 0
  assert results['tokens'] > 0
  assert 7 <= results['slots_updated'] <= 6 * 7
  # Rows of 10 numbers, and nothing else, out of all the parameters.
  parameters = sum(
    x.size for x in arrays(next(root.glob('cache/*/params'))).values()
  )
  changed = results['params_changed_fraction'] * parameters
  assert changed == pytest.approx(10 * results['slots_updated'], abs=1e-6)
  held_out = results['held_out']
  assert held_out.keys() == {'known', 'never_seen', 'general_text'}
  nll = held_out['general_text']
  drop = (nll['after'] - nll['before']) / nll['before']
  assert nll['metric'] == 'nll'
  assert nll['relative_drop'] == pytest.approx(drop, abs=1e-9)
  curve = results['retention_curve']
  assert curve[0]['held_out']['general_text'] == nll['before']
  assert curve[-1]['held_out']['general_text'] == nll['after']
  assert results['counts']['new_facts'] == 6
  assert 'jax' in results['environment']


def test_the_stream_is_learned_and_watched(root):
  workdir = root / 'whole'
  results = train_runs.results_of(workdir)
  before, after = results['metrics_before'], results['metrics_after']
  assert after['target']['nll'] < before['target']['nll']
  pretrained = train_runs.records(workdir, 'pretrain')
  assert [e['step'] for e in pretrained] == [2, 4, 5]
  streamed = train_runs.records(workdir, 'stream')
  assert [e['documents'] for e in streamed] == [1, 2, 3]
  assert streamed[-1]['tokens'] == results['tokens']
  assert all(e['slots_updated'] <= 7 for e in streamed)
  assert len({e['document'] for e in streamed}) == 3
  config = json.loads((workdir / 'config.json').read_text())
  assert config['config']['method']['t'] == 7
  assert 'jax' in config['versions']
  page = (workdir / 'report.html').read_text()
  assert '<svg' in page
  assert 'http://' not in page.replace('http://www.w3.org', '')
  assert steps(workdir / 'checkpoints') == [4, 6]


def test_an_interrupted_stream_resumes_to_the_same_bits(root, capsys):
  with pytest.MonkeyPatch.context() as patch:
    train_runs.interrupt_save(patch, 'checkpoints', 4)
    assert train_runs.run(root, 'resumed') == 130
  assert 'resumes' in capsys.readouterr().err
  assert not (root / 'resumed' / 'results.json').exists()
  # Half of what it needs is worse than nothing.
  log = root / 'resumed' / 'metrics.jsonl'
  whole_log = log.read_bytes()
  log.unlink()
  assert train_runs.run(root, 'resumed') == 2
  assert 'lacks records up to document 1' in capsys.readouterr().err
  log.write_bytes(whole_log)
  with pytest.MonkeyPatch.context() as patch:
    # What was measured of the base is not measured again.
    patch.setattr(measurements, 'measure_base', None)
    assert train_runs.run(root, 'resumed') == 0
  whole, resumed = root / 'whole', root / 'resumed'
  want, got = (arrays(run / 'checkpoints') for run in (whole, resumed))
  assert got.keys() == want.keys()
  for name, array in want.items():
    assert got[name].dtype == array.dtype
    assert got[name].tobytes() == array.tobytes(), name
  assert train_runs.results_of(whole) == train_runs.results_of(resumed)
  # The base was found, so that nothing but its pretraining is missing.
  pretrained = train_runs.records(whole, 'pretrain')
  assert pretrained
  assert (
    train_runs.records(resumed) == train_runs.records(whole)[len(pretrained) :]
  )


def test_without_a_stream_the_base_is_measured(root):
  assert train_runs.run(root, 'base', '--config.stream=none') == 0
  assert not list(root.glob('cache/*/pretraining'))
  results = train_runs.results_of(root / 'base')
  assert results['method'] is None
  assert results['held_out']['known']['metric'] == 'recall'
  assert (root / 'base' / 'report.html').exists()


def test_a_finished_workdir_is_not_run_again(root, monkeypatch, capsys):
  monkeypatch.setattr(train, 'run', None)
  before = train_runs.files(root)
  assert train_runs.run(root, 'whole') == 0
  assert 'known before' in capsys.readouterr().out
  assert train_runs.files(root) == before


def find_or_make(config, folder):
  experiment = config_lib.from_config_dict(config)
  task = base_lib.make_task(experiment)
  with records_lib.MetricsWriter(folder) as writer:
    return base_lib.find_or_make(experiment, task, writer)


def test_a_changed_base_is_made_anew_and_long_texts_are_split(root, tmp_path):
  bases = set(root.glob('cache/*'))
  cache = str(root / 'cache')
  config = tiny_run.make(base__cache_dir=cache, base__max_length=7)
  found = find_or_make(config, tmp_path)
  assert set(root.glob('cache/*')) - bases == {found.folder}
  pretrained = train_runs.records(tmp_path, 'pretrain')
  assert [e['step'] for e in pretrained] == [2, 4, 5]


def test_real_documents(root, tmp_path):
  small_tfds.make_folder(tmp_path / 'tfds')
  data = {
    'kind': 'squad',
    'data_dir': str(tmp_path / 'tfds'),
    'num_documents': 2,
    'num_control': 1,
    'augmentations': 3,
    'tokenizer_vocab_size': 300,
  }
  tiny_run.write_config(
    tmp_path, data=data, evaluation__metric='nll', base__steps=2
  )
  assert train_runs.run(tmp_path, 'run') == 0
  results = train_runs.results_of(tmp_path / 'run')
  assert results['target']['metric'] == 'nll'
  assert {'wikitext2_test', 'known'} <= results['held_out'].keys()
  assert results['held_out']['wikitext2_test']['metric'] == 'nll'
  # Paragraphs are longer than a row, and are trained on whole.
  streamed = train_runs.records(tmp_path / 'run', 'stream')
  assert [e['documents'] for e in streamed] == [1, 2]
  # Another base with the same tokenizer, given instead of trained.
  [trained] = (tmp_path / 'cache').glob('base-text-*')
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())['config']
  config['data']['tokenizer'] = str(trained)
  given = find_or_make(config, tmp_path)
  assert given.folder != trained
  text = (trained / 'tokenizer.json').read_text()
  assert (given.folder / 'tokenizer.json').read_text() == text


MISTAKES = {
  'unknown key': (['--config.method.tt=3'], 'config.method.t?'),
  'forgotten dashes': (['config.method.t=3'], '--config.method.t=3?'),
  'missing config file': (['--config=tinny.py'], 'did you mean'),
  't > N': (['--config.method.t=50'], 'config.method.t = 50'),
  'k too large': (['--config.memory.k=8'], 'sqrt(num_slots) = 7, got 8'),
  'slots that are no square': (['--config.memory.num_slots=50'], '49 and 64'),
  'odd head': (['--config.model.head_dim=7'], 'take 8'),
  'nobody new': (['--config.data.num_new=0'], 'config.data.num_new'),
  'no data_dir': (
    ['--config.data.kind=squad', '--config.data.data_dir=lost'],
    "data_dir = 'lost'",
  ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
  mistake, tmp_path, monkeypatch, capsys
):
  more, part = MISTAKES[mistake]
  # Without what only a world has, so that the kind can be changed.
  data = {'kind': 'world', 'seed': 1, 'num_new': 3}
  if mistake == 'no data_dir':
    del data['num_new']
  tiny_run.write_config(tmp_path, data=data)
  monkeypatch.chdir(tmp_path)
  assert part in train_runs.refused(capsys, tmp_path, 'workdir', *more)


def test_a_damaged_data_set_is_one_line_and_leaves_nothing(tmp_path, capsys):
  small_tfds.make_folder(tmp_path / 'tfds')
  data = {'kind': 'squad', 'data_dir': str(tmp_path / 'tfds')}
  data |= {'num_documents': 2, 'num_control': 1}
  tiny_run.write_config(tmp_path, data=data)
  (shard,) = (tmp_path / 'tfds').glob('squad/v1.1/*/*.array_record*')
  shard.write_bytes(shard.read_bytes()[:-999])
  said = train_runs.refused(capsys, tmp_path, 'workdir')
  assert 'squad/v1.1' in said
  assert 'cut short or damaged' in said


def test_a_workdir_that_cannot_be_used_is_left_alone(root, capsys):
  said = train_runs.refused(capsys, root, 'whole', '--config.method.t=5')
  assert 'config.method.t = 7, not 5' in said
  said = train_runs.refused(capsys, root, 'tiny.py/here')
  assert 'cannot be written' in said


def test_a_mistake_found_by_the_tokenizer_leaves_nothing(root, capsys):
  """Or the corrected command would find a run of another config."""
  shots = '--config.evaluation.prompt_format=few_shot'
  shots = shots, '--config.evaluation.shots=3'
  said = train_runs.refused(capsys, root, 'shots', *shots)
  assert 'config.base.max_length = 29 must be at least' in said


def test_data_that_changed_since_a_run_is_not_taken_for_its_own(
  root, monkeypatch, capsys
):
  original = base_lib.make_task

  def changed(experiment):
    task = original(experiment)
    (known, *rest) = task.questions['known']
    known = dataclasses.replace(known, answers=('Paris',))
    questions = task.questions | {'known': (known, *rest)}
    return dataclasses.replace(task, questions=questions)

  monkeypatch.setattr(base_lib, 'make_task', changed)
  said = train_runs.refused(capsys, root, 'whole')
  assert 'holds a run of other data' in said


@pytest.mark.parametrize('name', ['pretrain', 'fit', 'heal', 'docqa', 'facts'])
def test_shipped_configs_are_valid_in_all_variants(name):
  scope = runpy.run_path(str(CONFIGS / f'{name}.py'))
  assert scope['__doc__']
  for variant in scope['VARIANTS']:
    config = scope['get_config'](variant)
    data, _, base = variant.partition(',')
    if name == 'facts':
      data, base = 'facts', variant
    fitted, healed = (w in (name, base) for w in ('fit', 'heal'))
    fitted |= base == 'hf'
    kind = {'world': 'people' if fitted else 'world', 'plain': 'world'}.get(
      data, data
    )
    if not (fitted or healed or kind == 'world'):
      config.data.data_dir = 'somewhere'
    if kind in ('jsonl', 'simpleqa'):
      config.data.documents_file = 'some.jsonl'
    if kind == 'edits':
      config.data.edits_file = 'some.jsonl'
    if kind == 'text':
      config.data.running_text = 'some.txt'
      config.data.held_out_text = 'other.txt'
    if fitted or healed:
      config.base.path = 'weights'
    experiment = config_lib.from_config_dict(config)
    assert experiment.data.kind == kind
    assert (experiment.stream is None) == (name in ('pretrain', 'fit', 'heal'))
  if name in ('pretrain', 'docqa'):  # the others have values to be filled in
    assert scope['get_config']() == scope['get_config']('world')


def test_docqa_streams_into_the_base_of_pretrain():
  scopes = [
    runpy.run_path(str(CONFIGS / f'{name}.py'))
    for name in ('pretrain', 'docqa')
  ]
  for seed in (0, 1):
    bases = []
    for scope in scopes:
      config = scope['get_config']()
      config.seed = seed
      made = config_lib.to_dict(config_lib.from_config_dict(config))
      assert made['data']['seed'] == seed
      bases.append(
        [made[k] for k in ('seed', 'data', 'model', 'memory', 'base')]
      )
    assert bases[0] == bases[1]


@pytest.mark.parametrize(
  ('variant', 'said'),
  [
    ('jsonl,fh', "did you mean 'jsonl,hf'?"),
    ('wrld,hf', "did you mean 'world,hf'?"),
    ('hf', "it can be 'world', 'world,hf', 'world,heal', 'jsonl', "),
  ],
)
def test_a_variant_is_a_known_kind_and_a_known_base(variant, said):
  with pytest.raises(schema.UserError) as error:
    config_file.load(f'{CONFIGS}/docqa.py:{variant}')
  assert said in str(error.value)
