"""Checkpoints: exact, the newest two, refused where they do not fit."""

import pathlib
import shutil
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import checkpoint


class Moments(NamedTuple):
  first: jax.Array
  count: jax.Array


def make_tree(seed=0):
  numbers = np.random.default_rng(seed).normal(size=(7, 5)).astype(np.float32)
  # What arithmetic on the way would not leave alone.
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


def like():
  return jax.tree.map(jnp.zeros_like, make_tree())


def names(folder):
  """What is in a folder, steps in their order."""
  return sorted((p.name for p in folder.iterdir()), key=lambda n: (len(n), n))


def refusal(folder, tree):
  with pytest.raises(ValueError, match='does not fit or is damaged') as error:
    checkpoint.restore_newest(folder, tree)
  assert 'remove it to start again' in str(error.value)
  return str(error.value)


def test_there_may_be_none(tmp_path):
  assert checkpoint.restore_newest(tmp_path / 'nothing', like()) is None
  assert checkpoint.restore_newest(tmp_path, like()) is None


def test_bits_come_back_and_the_newest_two_steps_are_kept(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  folder = pathlib.Path('steps')  # Orbax itself wants absolute ones
  for steps in ((2,), (2, 10), (10, 11)):
    checkpoint.save(folder, steps[-1], make_tree(seed=steps[-1]))
    assert names(folder) == list(map(str, steps))
  step, tree = checkpoint.restore_newest(folder, like())
  assert step == 11
  assert_same(tree, make_tree(seed=11))
  # A step that is there is whole, and stays as it is.
  checkpoint.save(folder, 11, make_tree(seed=5))
  assert_same(checkpoint.restore_newest(folder, like())[1], make_tree(seed=11))


def test_what_a_killed_run_left_is_no_step_and_not_in_the_way(tmp_path):
  folder = tmp_path / 'steps'
  checkpoint.save(folder, 2, make_tree())
  shutil.copytree(folder / '2', tmp_path / '2')
  # Killed in the middle of writing.
  half = folder / '3.partial' / 'arrays.orbax-checkpoint-tmp'
  (half / 'state').mkdir(parents=True)
  (half / 'state' / 'manifest.ocdbt').write_bytes(b'half')
  step, tree = checkpoint.restore_newest(folder, like())
  assert step == 2
  assert_same(tree, make_tree())
  checkpoint.save(folder, 3, make_tree(seed=1))
  assert names(folder) == ['2', '3']
  # Killed after writing, before the older ones were dropped.
  shutil.copytree(tmp_path / '2', folder / '1')
  step, tree = checkpoint.restore_newest(folder, like())
  assert step == 3
  assert_same(tree, make_tree(seed=1))


def test_other_names_shapes_and_dtypes_are_refused_by_name(tmp_path):
  checkpoint.save(tmp_path, 7, make_tree())
  params, moments, flags = like()
  more = params | {'gate': jnp.zeros(3)}
  assert 'it lacks 0.gate' in refusal(tmp_path, (more, moments, flags))
  fewer = {'table': params['table']}
  assert 'lacks 0.bias' in refusal(tmp_path, (fewer, moments, flags))
  other = params | {'table': jnp.zeros((7, 6))}
  said = refusal(tmp_path, (other, moments, flags))
  assert '0.table is (7, 5), not (7, 6)' in said
  other = params | {'bias': jnp.zeros(5, jnp.bfloat16)}
  said = refusal(tmp_path, (other, moments, flags))
  assert '0.bias is float32, not bfloat16' in said


def test_a_truncated_or_missing_file_is_refused(tmp_path):
  for name in ('truncated', 'missing'):
    checkpoint.save(tmp_path / name, 7, make_tree())
    files = [p for p in (tmp_path / name).rglob('*') if p.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    if name == 'truncated':
      largest.write_bytes(largest.read_bytes()[:-19])
    else:
      largest.unlink()
    assert str(tmp_path / name / '7') in refusal(tmp_path / name, like())
