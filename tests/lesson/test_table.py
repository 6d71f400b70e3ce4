"""Lessons on arrays and in files: exact, and refused where they do not fit."""

import dataclasses
import os

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from smft_jax import lesson as lesson_lib
from smft_jax import overlay as overlay_lib
from smft_jax.lesson import file as lesson_file
from smft_jax.store import checksum
from tests.support import lessons

N, V = lessons.N, lessons.V


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly what is run only once or twice."""


def same_bits(a, b):
  a, b = np.asarray(a), np.asarray(b)
  return a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_apply_and_revert_are_exact(dtype):
  values = lessons.table(dtype=dtype)
  # -0.0 equals 0.0 and NaN equals nothing; only bits tell them apart.
  values = values.at[3].set(0.0).at[5].set(jnp.nan)
  after = values.at[3].set(-0.0).at[5, 2].set(1.5).at[N - 1].set(jnp.nan)
  lesson = lesson_lib.difference(values, after)
  assert lesson.slots.tolist() == [3, 5, N - 1]
  assert lesson.old.dtype == dtype
  applied = lesson_lib.apply(values, lesson)
  assert same_bits(applied, after)
  assert same_bits(lesson_lib.revert(applied, lesson), values)


def test_revert_restores_the_hash_of_a_million_slots():
  values = lessons.table(num_slots=2**20, value_dim=3)
  before = checksum.fingerprint({'pool': values})
  lesson = lessons.make(range(7, 2**20, 2099), values=values)
  assert len(lesson.slots) == 500
  applied = lesson_lib.apply(values, lesson)
  assert checksum.fingerprint({'pool': applied}) != before
  reverted = lesson_lib.revert(applied, lesson)
  assert checksum.fingerprint({'pool': reverted}) == before


def test_other_tables_are_refused():
  values, lesson = lessons.table(), lessons.make([2, 3, 5])
  applied = lesson_lib.apply(values, lesson)
  half = lessons.table(dtype=jnp.bfloat16)
  apply, revert = lesson_lib.apply, lesson_lib.revert
  for function, table, message in (
    (apply, applied, 'already in this table'),
    (revert, values, 'not in this table'),
    (revert, applied.at[3, 0].add(1.0), '1 of the 3 rows'),
    (apply, lessons.table(seed=9), r'3 of the 3 rows.*another base'),
    (apply, lessons.table(num_slots=103), 'is of a table float32'),
    (apply, half, 'is of a table float32'),
  ):
    with pytest.raises(ValueError, match=message):
      function(table, lesson)
  with pytest.raises(ValueError, match='before and'):
    lesson_lib.difference(values, half)


def test_lessons_on_different_slots_are_independent():
  values = lessons.table()
  first, second = lessons.make([2, 3]), lessons.make([4, 90], seed=2)
  both = lesson_lib.apply(lesson_lib.apply(values, first), second)
  left = lesson_lib.revert(both, first)
  assert same_bits(left, lesson_lib.apply(values, second))


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_merge_keeps_single_changes_and_sums_shared_ones(dtype):
  a = lessons.make([1, 4, 50], dtype=dtype)
  b = lessons.make([4, 7, 50, 99], 2, dtype)
  assert lesson_lib.overlap(a, b).tolist() == [4, 50]
  merged = lesson_lib.merge(a, b)
  old = lessons.table(dtype=dtype)
  assert merged.slots.tolist() == [1, 4, 7, 50, 99]
  assert same_bits(merged.old, old[merged.slots])
  assert same_bits(merged.new[[0, 2, 4]], [a.new[0], b.new[1], b.new[3]])
  wide = [np.asarray(x, np.float64) for x in (old, a.new, b.new)]
  for place, slot, i, j in ((1, 4, 1, 0), (3, 50, 2, 2)):
    np.testing.assert_allclose(
      merged.new[place].astype(np.float64),
      wide[1][i] + wide[2][j] - wide[0][slot],
      rtol=jnp.finfo(dtype).eps,
      atol=1e-12,
    )
  assert [run['steps'] for run in merged.runs] == [1, 2]
  swapped = lesson_lib.merge(b, a)
  assert same_bits(swapped.new, merged.new)
  applied = lesson_lib.apply(old, merged)
  assert same_bits(lesson_lib.revert(applied, merged), old)


def test_merged_lessons_keep_their_documents_apart():
  values, marks = lessons.table(), jnp.zeros(N, jnp.int32)

  def taught(slots, numbers):
    changed = values.at[jnp.array(slots)].add(float(len(slots)))
    new = marks.at[jnp.array(slots)].set(jnp.array(numbers))
    return lesson_lib.difference(values, changed, marks, new, base='ab')

  a, b = taught([2, 4, 6], [1, 2, 2]), taught([1, 4], [1, 2])
  merged = lesson_lib.merge(a, b)
  assert merged.slots.tolist() == [1, 2, 4, 6]
  assert merged.new_lessons.tolist() == [3, 1, 2, 2]
  assert merged.old_lessons.tolist() == [0, 0, 0, 0]


def test_a_lesson_does_not_merge_with_what_holds_it():
  one, two = lessons.make([2, 3, 5]), lessons.make([3, 8], seed=2)
  both = lesson_lib.merge(one, two)
  for other, rows in ((one, 3), (both, 2)):
    for pair in ((one, other), (other, one)):
      with pytest.raises(ValueError, match=f'{rows} of the 3 rows that both'):
        lesson_lib.merge(*pair)


def test_lessons_that_only_mark_a_row_merge():
  one, two = lessons.make([2, 3]), lessons.make([3, 8], seed=2)
  marks = {'new': one.old, 'new_lessons': np.ones(2, np.int32)}
  only_marks = dataclasses.replace(one, **marks)
  merged = lesson_lib.merge(only_marks, dataclasses.replace(two))
  assert same_bits(merged.new[merged.slots == 8], two.new[1:])
  lesson_lib.merge(only_marks, only_marks)  # no change to count twice


def test_lessons_of_different_bases_share_no_overlay():
  one = lessons.make([2, 3])
  other = dataclasses.replace(one, base='cd')
  with pytest.raises(ValueError, match='the lesson is of another base: cd'):
    lesson_lib.overlay([one, other], [0, 1])
  wide = lesson_lib.overlay([one], [0])
  with pytest.raises(ValueError, match='rows of 7 numbers, the table of 2'):
    overlay_lib.read_rows(
      jnp.zeros((N, 2)), wide, jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1))
    )


def test_lessons_of_different_bases_do_not_merge():
  a, b = lessons.make([1, 4]), lessons.make([4, 7], 2)
  changed = lessons.make([4, 7], 2, values=lessons.table(seed=5))
  for other, message in (
    (dataclasses.replace(b, base='cd'), 'another base: cd, not ab'),
    (dataclasses.replace(b, num_slots=N + 1), 'different tables'),
    (lessons.make([1], dtype=jnp.bfloat16), 'different tables'),
    (changed, '1 of the 1 rows that both change'),
  ):
    with pytest.raises(ValueError, match=message):
      lesson_lib.merge(a, other)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    *(
      ('slots', np.array(slots, np.int32))
      for slots in ([4, 2], [2, 2], [-1, 2], [2, N])
    ),
    ('slots', np.array([2, 4], np.int64)),
    ('old', np.zeros((3, V), np.float32)),
    ('new', np.zeros((2, V), np.float16)),
    ('new_lessons', np.zeros(3, np.int32)),
  ],
)
def test_inconsistent_fields_are_refused(field, value):
  with pytest.raises(ValueError, match=field):
    dataclasses.replace(lessons.make([2, 4]), **{field: value})


def test_500_rows_of_1024_take_less_than_5_MB(tmp_path):
  values = lessons.table(num_slots=601, value_dim=1024)
  lesson_file.write(tmp_path / 'a', lessons.make(range(500), values=values))
  assert (tmp_path / 'a').stat().st_size < 5e6


@pytest.mark.parametrize('slots', [[1, 4, 50], []])
@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_a_file_round_trip(dtype, slots, tmp_path):
  lesson = lessons.make(slots, dtype=dtype)
  lesson_file.write(tmp_path / 'a', lesson)
  found = lesson_file.read(tmp_path / 'a')
  for field in ('slots', 'old', 'new'):
    assert same_bits(getattr(found, field), getattr(lesson, field))
  assert found.old.shape == (len(slots), V)
  assert (found.num_slots, found.table, found.base) == (N, 'pool', 'ab')
  assert found.runs == ({'steps': 1},)
  assert lesson_file.digest(found) == lesson_file.digest(lesson)
  assert os.listdir(tmp_path) == ['a']
  if not slots:
    table = lessons.table(dtype=dtype)
    assert same_bits(lesson_lib.apply(table, found), table)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda _, tensors: tensors.pop('old'), "lacks tensor 'old'"),
    (lambda metadata, _: metadata.pop('base'), "lacks metadata 'base'"),
    (lambda metadata, _: metadata.update(format='2'), 'format 2.*reads format'),
    (lambda metadata, _: metadata.update(base='cd'), 'not match its digest'),
    (lambda metadata, _: metadata.clear(), 'not a lesson'),
  ],
)
def test_an_altered_file_is_refused(change, message, tmp_path):
  path = tmp_path / 'a'
  lesson_file.write(path, lessons.make([1, 4]))
  with safetensors.safe_open(path, 'np') as file:
    metadata = file.metadata()
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  change(metadata, tensors)
  path.write_bytes(safetensors.numpy.save(tensors, metadata))
  with pytest.raises(ValueError, match=message):
    lesson_file.read(path)


def test_weights_are_no_lesson_of_a_newer_format(tmp_path):
  path = tmp_path / 'model.safetensors'
  tensors = {'lm_head.weight': np.zeros((2, 3), np.float32)}
  safetensors.numpy.save_file(tensors, path, {'format': 'pt'})
  with pytest.raises(ValueError, match="not a lesson: it lacks tensor 'slots'"):
    lesson_file.read(path)


def test_a_damaged_file_is_refused(tmp_path):
  path = tmp_path / 'a'
  lesson_file.write(path, lessons.make([1, 4]))
  whole = path.read_bytes()
  for length in (0, 5, 40, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match='damaged or not a lesson'):
      lesson_file.read(path)
  for place in (len(whole) - 1, len(whole) - 4 * V * 3):
    flipped = bytearray(whole)
    flipped[place] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match='does not match its digest'):
      lesson_file.read(path)


def test_a_failed_write_keeps_the_old_file(monkeypatch, tmp_path):
  path = tmp_path / 'a'
  lesson_file.write(path, lessons.make([1]))
  before = path.read_bytes()
  monkeypatch.setattr(os, 'fsync', lambda fd: os.fstat(-1))
  with pytest.raises(OSError, match='Bad file'):
    lesson_file.write(path, lessons.make([1, 4]))
  assert os.listdir(tmp_path) == ['a']
  assert path.read_bytes() == before


def test_the_fingerprint_ignores_only_the_table():
  pool, out = jnp.ones((3, 2)), jnp.ones(5)
  found = lesson_lib.fingerprint({'pool': pool, 'out': out}, 'pool')
  same = lesson_lib.fingerprint({'pool': 0 * pool, 'out': out}, 'pool')
  other = lesson_lib.fingerprint({'pool': pool, 'out': 0 * out}, 'pool')
  assert same == found != other


def test_a_table_of_numpy_as_a_checkpoint_may_return_it():
  values = lessons.table()
  lesson = lesson_lib.difference(values, values.at[3].add(1.0))
  applied = lesson_lib.apply(np.asarray(values), lesson)
  assert same_bits(applied, values.at[3].add(1.0))
  assert same_bits(lesson_lib.revert(np.asarray(applied), lesson), values)
