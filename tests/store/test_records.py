"""Numbers out: nothing half-written, nothing twice, nothing but JSON."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import schema
from smft_jax.evaluation import scores
from smft_jax.store import atomic
from smft_jax.store import records as records_lib


@pytest.mark.parametrize(
  ('metric', 'before', 'after', 'drop'),
  [
    ('recall', 0.8, 0.6, 0.25),
    ('f1', 0.5, 0.6, -0.2),
    ('exact_match', 1.0, 0.0, 1.0),
    ('accuracy', 0.4, 0.4, 0.0),
    ('nll', 2.0, 2.5, 0.25),
    ('answer_nll', 2.0, 1.0, -0.5),
    ('perplexity', 10.0, 11.0, 0.1),
  ],
)
def test_relative_drop_is_the_share_lost(metric, before, after, drop):
  assert scores.relative_drop(metric, before, after) == pytest.approx(drop)


@pytest.mark.parametrize('after', [0.0, 0.1])
def test_relative_drop_from_nothing_is_no_number(after):
  assert math.isnan(scores.relative_drop('recall', 0.0, after))


def test_relative_drop_of_an_unknown_metric():
  with pytest.raises(ValueError, match="did you mean 'recall'"):
    scores.relative_drop('recal', 1.0, 1.0)
  # A name that only begins like a loss says nothing about its direction.
  with pytest.raises(ValueError, match='nll_ratio'):
    scores.relative_drop('nll_ratio', 1.0, 1.0)


def test_to_json_converts_scalars_and_arrays():
  value = {
    'numpy': np.float32(0.5),
    'int': np.int64(7),
    'bool': np.bool_(True),
    'jax': jnp.float32(0.25),
    'array': np.array([[1, 2], [3, 4]]),
    'nan': jnp.array([jnp.nan, 1.0], jnp.float32),
    'inf': -math.inf,
    'tuple': (1, 'a', None),
    3: 'key',
  }
  expected = {
    'numpy': 0.5,
    'int': 7,
    'bool': True,
    'jax': 0.25,
    'array': [[1, 2], [3, 4]],
    'nan': [None, 1.0],
    'inf': None,
    'tuple': [1, 'a', None],
    '3': 'key',
  }
  assert json.loads(json.dumps(atomic.to_json(value))) == expected
  with pytest.raises(TypeError, match='not JSON'):
    atomic.to_json({'x': object()})


def test_write_json_leaves_the_old_file_when_it_fails(tmp_path):
  path = tmp_path / 'results.json'
  atomic.write_json(path, {'a': 1})
  with pytest.raises(TypeError):
    atomic.write_json(path, {'a': object()})
  with pytest.raises(UnicodeEncodeError):
    atomic.write_text(path, 'half of it\ud800')
  assert json.loads(path.read_text()) == {'a': 1}
  assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_and_never_written_over(tmp_path):
  path, reader = tmp_path / 'a.json', tmp_path / 'reader'
  atomic.write_json(path, {'a': 1})
  # Whoever has the old file open sees all of it: a link stands for that.
  reader.hardlink_to(path)
  atomic.write_json(path, {'a': 2})
  assert json.loads(reader.read_text()) == {'a': 1}
  assert json.loads(path.read_text()) == {'a': 2}


def write_some(folder, count):
  with records_lib.MetricsWriter(folder, clock=lambda: 5.0) as writer:
    for step in range(count):
      writer.write('pretrain', step=step, loss=jnp.float32(step))


def test_records_are_written_and_read(tmp_path):
  write_some(tmp_path, 3)
  write_some(tmp_path, 1)
  records = records_lib.read_records(tmp_path)
  assert [record['step'] for record in records] == [0, 1, 2, 0]
  assert records[1] == {
    'event': 'pretrain',
    'time': 5.0,
    'step': 1,
    'loss': 1.0,
  }


def test_a_record_is_on_its_way_to_disk_at_once(tmp_path):
  writer = records_lib.MetricsWriter(tmp_path)
  writer.write('evaluation', loss=math.nan)
  assert records_lib.read_records(tmp_path)[0]['loss'] is None
  writer.close()


def test_a_file_that_takes_a_part_is_given_the_rest(tmp_path):
  with records_lib.MetricsWriter(tmp_path) as writer:
    file = writer._file

    class Slow:
      def write(self, content):
        return file.write(content[:7])

    writer._file = Slow()
    writer.write('stream', step=3)
    writer._file = file
  assert records_lib.read_records(tmp_path)[0]['step'] == 3


def test_every_way_to_cut_a_file_short_is_survived(tmp_path):
  write_some(tmp_path, 3)
  path = tmp_path / 'metrics.jsonl'
  whole = path.read_bytes()
  first_two = len(b''.join(whole.splitlines(keepends=True)[:2]))
  for length in range(first_two, len(whole)):
    path.write_bytes(whole[:length])
    assert len(records_lib.read_records(tmp_path)) == 2
    write_some(tmp_path, 1)
    steps = [record['step'] for record in records_lib.read_records(tmp_path)]
    assert steps == [0, 1, 0]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_damage_in_the_middle_is_told(tmp_path):
  write_some(tmp_path, 3)
  path = tmp_path / 'metrics.jsonl'
  lines = path.read_text().splitlines()
  lines[1] = lines[1][:9]
  path.write_text('\n'.join(lines) + '\n')
  with pytest.raises(schema.UserError, match='damaged in line 2'):
    records_lib.read_records(tmp_path)


def test_truncate_cuts_from_the_first_match(tmp_path):
  write_some(tmp_path, 5)
  with records_lib.MetricsWriter(tmp_path) as writer:
    writer.truncate(lambda record: record['step'] > 2)
    writer.write('stream', step=7)
  steps = [record['step'] for record in records_lib.read_records(tmp_path)]
  assert steps == [0, 1, 2, 7]
