"""A pretrained model with a fitted memory: taught, resumed, taken back."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import export
from smft_jax import hf
from smft_jax.analyze import held_facts
from smft_jax.data import tokenizers
from smft_jax.data.world import world
from smft_jax.lesson import __main__ as lesson_program
from smft_jax.lesson import file as lesson_file
from smft_jax.lesson import table as lesson_table
from smft_jax.models import layers
from smft_jax.runs import finetune
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.runtime import preemption
from smft_jax.runtime import program
from smft_jax.training import state as state_lib
from tests.support import decoders
from tests.support import hf_folders
from tests.support import prepared_rows
from tests.support import tiny_run
from tests.support import train_runs

pytestmark = pytest.mark.usefixtures('quick_runs')

SIZES = {
  'num_layers': 5,
  'model_dim': 14,
  'num_heads': 2,
  'num_kv_heads': 1,
  'head_dim': 6,
  'ffn_dim': 19,
}
TRAINING = ('steps', 'batch_size', 'learning_rate', 'value_learning_rate')
MEMORY = {'num_slots': 121, 'value_dim': 0, 'gated': False, 'quorum': 0.1}
METHOD = {
  'select': 'document',
  'grows_background': True,
  'optimizer': 'adam',
  'learning_rate': 0.1,
}


@pytest.fixture(scope='module')
def root(tmp_path_factory, quick_runs):
  """A folder of weights, and the config of a run that teaches them."""
  folder = tmp_path_factory.mktemp('fitted')
  task = world.make_task(world.WorldConfig(**tiny_run.CONFIG['data'], seed=0))
  tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
  config = layers.TransformerConfig(vocab_size=tokenizer.vocab_size, **SIZES)
  hf_folders.save_random(config, folder / 'weights')
  tokenizer.write(folder / 'weights')
  tiny_run.write_config(
    folder,
    **{f'model__{name}': None for name in (*SIZES, 'memory_layers')},
    model__memory_placement='beside',
    **{f'base__{name}': None for name in (*TRAINING, 'checkpoint_every')},
    base__kind='fitted',
    base__path=str(folder / 'weights'),
    **{f'memory__{name}': value for name, value in MEMORY.items()},
    **{f'method__{name}': value for name, value in METHOD.items()},
    stream__context_weight=0.0,
    stream__steps_per_document=3,
    background__num_batches=9,
  )
  assert train_runs.run(folder, 'run') == 0
  return folder


def loaded(workdir):
  experiment = saved_run.load_experiment(workdir)
  base = saved_run.load_base(experiment, workdir)
  return experiment, base, states.last_state(experiment, base, workdir)


def test_only_taught_rows_are_not_zero(root):
  results = train_runs.results_of(root / 'run')
  _, base, state = loaded(root / 'run')
  assert base.config.memory_layers == (1,)  # a quarter of five blocks
  assert base.config.memory.value_dim == SIZES['model_dim']
  assert not np.any(state_lib.value_table(base.params))
  taught = np.asarray(state_lib.slot_lessons(state.params))
  changed = np.any(np.asarray(state_lib.value_table(state.params)), axis=1)
  assert 0 < changed.sum() == results['slots_updated'] <= 21
  assert set(taught[changed]) == {1, 2, 3}
  assert not np.any(changed & (taught == 0))
  unchanged = results['answers_unchanged']
  assert 0 <= unchanged['share'] <= 1
  assert unchanged['num'] == 13 + 8  # known and never seen
  assert len(unchanged['examples']) == 10


def test_the_base_is_the_model_that_it_was(root):
  experiment, base, _ = loaded(root / 'run')
  plain = hf.load_model(experiment.base.path)
  tokens = decoders.tokens_of(2, 9)
  model = hf_folders.merged(base)
  np.testing.assert_array_equal(
    decoders.logits_of(model, tokens), decoders.logits_of(plain, tokens)
  )


def test_a_run_resumed_within_a_document_ends_in_the_same_bits(
  root, monkeypatch
):
  experiment, base, want = loaded(root / 'run')
  learner = finetune.make_learner(experiment, base)
  state = states.first_state(experiment, base)
  saves = states.checkpoints_of(experiment, base, state, root / 'stopped')
  state, _ = learner.learn(state, 0)
  with monkeypatch.context() as stopping:
    stopping.setattr(preemption, 'requested', lambda: True)
    state, _ = learner.learn(state, 1)  # one of three steps
  saves.save(state, {})
  found, _ = saves.restore(states.first_state(experiment, base))
  for index, start in ((1, 1), (2, 0)):
    found, _ = learner.learn(found, index, first=start)
  for part in (state_lib.value_table, state_lib.slot_lessons):
    np.testing.assert_array_equal(part(found.params), part(want.params))
  jax.tree.map(np.testing.assert_array_equal, found.background, want.background)


def test_analysis_recovers_the_slots_of_each_document(root):
  experiment, base, last = loaded(root / 'run')
  first = states.first_state(experiment, base)
  chosen, _ = held_facts.chosen_slots(experiment, base, first)
  marks = np.asarray(state_lib.slot_lessons(last.params))
  found = np.zeros_like(marks)
  for number, slots in enumerate(chosen, 1):
    found[slots] = number
  np.testing.assert_array_equal(found, marks)


def lesson(*argv):
  return program.run(lesson_program.main, [str(word) for word in argv])


def test_a_lesson_is_applied_and_taken_back(root, capsys):
  path = root / 'a.safetensors'
  assert lesson('save', f'--workdir={root}/run', f'--out={path}') == 0
  saved = lesson_file.read(path)
  assert set(saved.new_lessons) == {1, 2, 3}
  assert not np.any(saved.old_lessons)
  _, base, state = loaded(root / 'run')
  model, taught, back = base.folder, root / 'taught', root / 'back'
  for name, source, out in (('apply', model, taught), ('revert', taught, back)):
    assert lesson(name, path, f'--model={source}', f'--out={out}') == 0
  capsys.readouterr()

  def stored(folder):
    arrays = train_runs.arrays_of(folder / 'params')
    return arrays['pool.value'], arrays[lesson_table.LESSONS]

  for found, params in ((taught, state.params), (back, base.params)):
    table, lessons = stored(found)
    np.testing.assert_array_equal(table, state_lib.value_table(params))
    np.testing.assert_array_equal(lessons, state_lib.slot_lessons(params))


def test_lessons_applied_in_any_order_answer_the_same(root, tmp_path):
  _, base, _ = loaded(root / 'run')
  assert lesson('save', f'--workdir={root}/run', f'--out={tmp_path}/all') == 0
  whole = lesson_file.read(tmp_path / 'all')
  for number in (1, 2, 3):  # as if each document had been a run of its own
    mine = whole.new_lessons == number
    own = {
      k: v[mine]
      for k, v in vars(whole).items()
      if np.shape(v)[:1] == mine.shape
    }
    own['new_lessons'] = np.minimum(own['new_lessons'], 1)
    lesson_file.write(tmp_path / str(number), dataclasses.replace(whole, **own))

  def rewritten(command, order, model, name):
    for number in order:
      out = tmp_path / f'{name}{number}'
      argv = [f'--model={model}', f'--out={out}']
      assert lesson(command, tmp_path / str(number), *argv) == 0
      model = out
    return model

  def stored(folder):
    return train_runs.arrays_of(folder / 'params')

  tokens, logits, tables = decoders.tokens_of(2, 9), [], []
  for order in ((1, 2, 3), (3, 1, 2), (2, 3, 1)):
    name = ''.join(map(str, order))
    arrays = stored(rewritten('apply', order, base.folder, f'on{name}'))
    marks = np.asarray(arrays[lesson_table.LESSONS])
    # A quorum tells them apart.
    assert set(marks[whole.slots]) == {1, 2, 3}
    params = nnx.state(hf_folders.merged(base))
    params['pool'][...] = jnp.asarray(arrays['pool.value'])
    params['lessons'][...] = jnp.asarray(marks)
    logits.append(decoders.logits_of(hf_folders.merged(base, params), tokens))
    tables.append(arrays['pool.value'])
  for other in (1, 2):
    np.testing.assert_array_equal(tables[0], tables[other])
    np.testing.assert_array_equal(logits[0], logits[other])
  back = stored(rewritten('revert', (1, 3, 2), tmp_path / 'on2311', 'off'))
  first = stored(base.folder)
  for name in ('pool.value', lesson_table.LESSONS):
    np.testing.assert_array_equal(back[name], first[name])


def test_an_exported_run_reads_what_it_was_taught(root):
  out = root / 'out'
  argv = [f'--workdir={root}/run', f'--out={out}']
  assert program.run(export.main, argv) == 0
  _, base, state = loaded(root / 'run')
  tokens = decoders.tokens_of(2, 9)
  found = hf.load_model(out)
  assert found.config.memory.quorum == 0.1
  np.testing.assert_allclose(
    decoders.logits_of(found, tokens),
    decoders.logits_of(hf_folders.merged(base, state.params), tokens),
    rtol=1e-6,
  )


def test_a_mesh_fits_and_learns_the_same(root):
  flags = {
    'mesh.data': 2,
    'mesh.memory': 2,
    'memory.num_slots': 144,
    'background.batch_size': 6,
    'stream.batch_size': 6,
    'evaluation.batch_size': 18,
  }
  changes = [f'--config.{name}={value}' for name, value in flags.items()]
  tables = []
  for name, argv in (('one', changes[2:]), ('mesh', changes)):
    assert train_runs.run(root, name, *argv) == 0
    _, _, state = loaded(root / name)
    tables.append(np.asarray(state_lib.value_table(state.params)))
  assert np.any(tables[0])
  np.testing.assert_allclose(*tables, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('background=None', 'config.background is missing: the memory is fitted'),
    ('method.select=step', "grows_background needs select = 'document'"),
    ('method.name=values_only', 'needs a method that marks what it teaches'),
    ('memory.gated=True', 'config.memory.gated must be False'),
    ('memory.num_slots=1000000', 'tokens, fewer than the 1000 sub-keys'),
    ('memory.value_dim=9', 'so value_dim must be 14'),
    ('model.memory_layers=5,', 'memory_layers has 5, but there is no block 5'),
    ('model.memory_placement=replace', "must be 'beside' for a memory that is"),
    ('base.steps=4', 'unknown key config.base.steps'),
    ('base.kind=fited', "did you mean 'fitted'?"),
    ('base.path=nowhere', 'nowhere does not exist'),
  ],
)
def test_a_mistake_is_one_line(flag, said, root, capsys):
  argv = ['new', f'--config.{flag}']
  assert train_runs.run(root, *argv) == 2
  found = capsys.readouterr().err
  lines = [line for line in found.splitlines() if line.startswith('error: ')]
  assert len(lines) == 1
  assert said in lines[0]
  assert not (root / 'new' / 'results.json').exists()


@pytest.mark.slow
def test_keys_fitted_to_prepared_rows_are_those_of_their_texts(root, tmp_path):
  """And so are the counts of the background, of the same texts on the disk."""
  task = world.make_task(world.WorldConfig(**tiny_run.CONFIG['data'], seed=0))
  source = tmp_path / 'texts.jsonl'
  texts = [text.text for text in task.texts['general_text']]
  prepared_rows.write_texts(source, texts)
  flags = [f'--out={tmp_path}/rows', f'--tokenizer={root}/weights', str(source)]
  assert prepared_rows.run(*flags, '--max_length=29') == 0
  found = []
  for corpus in ('general_text', f'{tmp_path}/rows'):
    workdir = f'of-{len(found)}'
    flag = f'--config.background.corpus={corpus}'
    assert train_runs.run(root, workdir, flag, '--config.stream=none') == 0
    found.append(train_runs.results_of(root / workdir))
  assert found[0] == found[1]
