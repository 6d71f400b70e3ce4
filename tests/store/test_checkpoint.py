"""Checkpoints are exact, two are kept, and misfits and damage are refused."""

import errno
import json
import pathlib
import re
import resource
import shutil
import signal
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import schema
from smft_jax.store import checkpoint
from smft_jax.store import manifest as manifest_lib


class Moments(NamedTuple):
  first: jax.Array
  count: jax.Array


def make_tree(seed=0):
  numbers = np.random.default_rng(seed).normal(size=(7, 5)).astype(np.float32)
  # Bits that arithmetic on the way would change.
  numbers[0] = [-0.0, np.nan, np.inf, 1e-45, 1 / 3]
  return (
    {'table': jnp.asarray(numbers), 'bias': jnp.asarray(numbers[1])},
    [Moments(jnp.asarray(numbers, jnp.bfloat16), jnp.int32(seed + 3))],
    jnp.asarray([True, False]),
  )


def assert_same(one, other):
  chex.assert_trees_all_equal_shapes_and_dtypes(one, other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert a.sharding == b.sharding
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def assert_restores(folder, step, tree):
  like = jax.tree.map(jnp.zeros_like, tree)
  found, restored = checkpoint.restore_newest(folder, like)
  assert found == step
  assert_same(restored, tree)


def like():
  return jax.tree.map(jnp.zeros_like, make_tree())


def names_in(folder):
  """Returns the names in a folder, steps in order."""
  return sorted((p.name for p in folder.iterdir()), key=lambda n: (len(n), n))


def refusal(folder, tree):
  with pytest.raises(
    ValueError, match=r'does not fit this run|is whole'
  ) as error:
    checkpoint.restore_newest(folder, tree)
  assert re.search(f'remove ({folder}|the folder) to start', str(error.value))
  return str(error.value)


def test_no_step(tmp_path):
  assert checkpoint.restore_newest(tmp_path / 'nothing', like()) is None
  assert checkpoint.restore_newest(tmp_path, like()) is None


def test_bits_come_back_and_the_newest_two_steps_are_kept(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  folder = pathlib.Path('steps')  # Orbax itself wants absolute ones
  for steps in ((2,), (2, 10), (10, 11)):
    checkpoint.save(folder, steps[-1], make_tree(seed=steps[-1]))
    assert names_in(folder) == list(map(str, steps))
  assert_restores(folder, 11, make_tree(seed=11))
  # An existing step is complete and stays unchanged.
  checkpoint.save(folder, 11, make_tree(seed=5))
  assert_restores(folder, 11, make_tree(seed=11))


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
  folder = tmp_path / 'steps'
  checkpoint.save(folder, 2, make_tree())
  shutil.copytree(folder / '2', tmp_path / '2')
  # Killed in the middle of writing.
  half = folder / '3.partial' / 'arrays.orbax-checkpoint-tmp'
  (half / 'state').mkdir(parents=True)
  (half / 'state' / 'manifest.ocdbt').write_bytes(b'half')
  assert_restores(folder, 2, make_tree())
  checkpoint.save(folder, 3, make_tree(seed=1))
  assert names_in(folder) == ['2', '3']
  # Killed after writing, before the older ones were dropped.
  shutil.copytree(tmp_path / '2', folder / '1')
  assert_restores(folder, 3, make_tree(seed=1))


def test_other_names_shapes_and_dtypes_are_refused_by_name(tmp_path):
  checkpoint.save(tmp_path, 7, make_tree())
  params, *rest = like()
  for other, message in (
    (params | {'gate': jnp.zeros(3)}, 'it lacks 0.gate'),
    ({'table': params['table']}, 'lacks 0.bias'),
    (params | {'table': jnp.zeros((7, 6))}, '0.table is (7, 5), not (7, 6)'),
    (
      params | {'bias': jnp.zeros(5, jnp.bfloat16)},
      '0.bias is float32, not bfloat16',
    ),
  ):
    assert message in refusal(tmp_path, (other, *rest))


def damage(path, how):
  """Flips a bit in the middle of a file, cuts it short or removes it."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 8 * (how == 'flipped')
  path.write_bytes(content[:-5] if how == 'truncated' else content)
  if how == 'missing':
    path.unlink()


def messages(caplog):
  return [record.getMessage() for record in caplog.records]


# Orbax leaves these behind when it meets damaged metadata.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('how', ['flipped', 'truncated', 'missing'])
def test_any_damaged_file_of_the_newest_step_means_the_one_before(
  how, tmp_path, caplog
):
  caplog.set_level('WARNING')
  whole = tmp_path / 'whole'
  for step in (6, 7):
    checkpoint.save(whole, step, make_tree(seed=step))
  names = [p.relative_to(whole) for p in (whole / '7').rglob('*')]
  names = [name for name in names if (whole / name).is_file()]
  assert len(names) > 5
  went_back = 0
  for number, name in enumerate(names):
    folder = tmp_path / str(number)
    shutil.copytree(whole, folder)
    if not (folder / name).stat().st_size:
      continue
    damage(folder / name, how)
    caplog.clear()
    step, tree = checkpoint.restore_newest(folder, like())
    # Never wrong numbers; a flip in a file that nothing depends on may pass.
    assert_same(tree, make_tree(seed=step))
    if step == 7:
      assert how == 'flipped'
      continue
    went_back += 1
    logged = messages(caplog)
    assert any(f'checkpoint {folder / "7"} is damaged: ' in m for m in logged)
    assert f'falling back to step 6 in {folder}' in logged
    if how != 'flipped':
      assert any(str(folder / name) in message for message in logged)
    # It is renamed, so the same step can be saved again.
    assert names_in(folder) == ['6', '7.damaged']
    checkpoint.save(folder, 7, make_tree(seed=7))
    assert_restores(folder, 7, make_tree(seed=7))
  assert went_back >= (1 if how == 'flipped' else len(names) - 1)


def test_a_flipped_bit_names_its_array(tmp_path, caplog):
  numbers = np.random.default_rng(1).normal(size=(61, 53)).astype(np.float32)
  tree = {'table': jnp.asarray(numbers), 'bias': jnp.zeros(3)}
  for step in (1, 2):
    checkpoint.save(tmp_path, step, tree)
  files = [path for path in (tmp_path / '2').rglob('*') if path.is_file()]
  damage(max(files, key=lambda path: path.stat().st_size), 'flipped')
  assert_restores(tmp_path, 1, tree)
  assert any('array table' in message for message in messages(caplog))


def test_only_damaged_steps_are_an_error(tmp_path):
  for step in (6, 7):
    checkpoint.save(tmp_path, step, make_tree(seed=step))
    (tmp_path / str(step) / 'manifest.json').write_text('{')
  said = refusal(tmp_path, like())
  assert said.startswith(f'no checkpoint in {tmp_path} is whole: ')
  assert said.count('\n') == 0
  assert names_in(tmp_path) == ['6', '7']


def test_an_owner_without_settings_is_damage(tmp_path):
  checkpoint.save(tmp_path, 6, make_tree())
  file = tmp_path / '6' / 'manifest.json'
  contents = manifest_lib.read(file.parent) | {'owner': {'config': None}}
  signed = {'digest': manifest_lib.digest(contents), **contents}
  file.write_text(json.dumps(signed))
  with pytest.raises(schema.UserError, match='is no manifest'):
    checkpoint.restore_newest(tmp_path, like(), {'config': {'seed': 0}})


def test_another_owner_is_refused_by_name(tmp_path):
  owner = {'config': {'seed': 0, 'stream': {'steps': 3}}, 'base model': 'ab'}
  checkpoint.save(tmp_path, 6, make_tree(), owner)
  assert checkpoint.restore_newest(tmp_path, like(), owner)[0] == 6
  other = owner | {'config': {'seed': 1, 'stream': {'steps': 3}}}
  with pytest.raises(schema.UserError, match=r'config\.seed = 0, not 1'):
    checkpoint.restore_newest(tmp_path, like(), other)
  with pytest.raises(schema.UserError, match='another base model, ab, not cd'):
    checkpoint.restore_newest(tmp_path, like(), owner | {'base model': 'cd'})


def test_a_save_that_fails_leaves_the_older_steps(tmp_path, monkeypatch):
  checkpoint.save(tmp_path, 6, make_tree(seed=6))

  def full(*unused):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(manifest_lib.atomic, 'write_json', full)
    with pytest.raises(OSError, match='no room to save step 7'):
      checkpoint.save(tmp_path, 7, make_tree())
  assert names_in(tmp_path) == ['6']
  assert_restores(tmp_path, 6, make_tree(seed=6))


def test_a_limit_on_files_leaves_older_steps(tmp_path):
  table = np.random.default_rng(3).normal(size=(307, 101)).astype(np.float32)
  checkpoint.save(tmp_path, 1, {'table': jax.numpy.asarray(table)})
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
  try:
    with pytest.raises(OSError, match='no room to save step 2') as error:
      checkpoint.save(tmp_path, 2, {'table': jax.numpy.asarray(-table)})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)
  assert error.value.errno == errno.ENOSPC
  assert [path.name for path in tmp_path.iterdir()] == ['1']
  like = {'table': jax.numpy.zeros((307, 101))}
  step, tree = checkpoint.restore_newest(tmp_path, like)
  assert step == 1
  np.testing.assert_array_equal(tree['table'], table)
