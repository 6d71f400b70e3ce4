"""metrics.jsonl: no half line, nothing twice."""

import json
import math

import jax.numpy as jnp
import pytest

from smft_jax import schema
from smft_jax.store import records as records_lib


def write_some(folder, count):
  with records_lib.MetricsWriter(folder, clock=lambda: 5.0) as writer:
    for step in range(count):
      writer.write('pretrain', step=step, loss=jnp.float32(step))


def steps_of(folder):
  return [record['step'] for record in records_lib.read_records(folder)]


def test_records_are_written_and_read(tmp_path):
  write_some(tmp_path, 3)
  write_some(tmp_path, 1)
  assert steps_of(tmp_path) == [0, 1, 2, 0]
  records = records_lib.read_records(tmp_path)
  expected = {'event': 'pretrain', 'time': 5.0, 'step': 1, 'loss': 1.0}
  assert records[1] == expected


def test_a_record_can_be_read_at_once(tmp_path):
  writer = records_lib.MetricsWriter(tmp_path)
  writer.write('evaluation', loss=math.nan)
  assert records_lib.read_records(tmp_path)[0]['loss'] is None
  writer.close()


def test_a_partial_write_is_completed(tmp_path):
  with records_lib.MetricsWriter(tmp_path) as writer:
    file = writer._file

    class Slow:
      def write(self, content):
        return file.write(content[:7])

    writer._file = Slow()
    writer.write('stream', step=3)
    writer._file = file
  assert steps_of(tmp_path) == [3]


def test_a_file_cut_short_anywhere_loses_one_line(tmp_path):
  write_some(tmp_path, 3)
  path = tmp_path / 'metrics.jsonl'
  whole = path.read_bytes()
  first_two = len(b''.join(whole.splitlines(keepends=True)[:2]))
  for length in range(first_two, len(whole)):
    path.write_bytes(whole[:length])
    assert len(records_lib.read_records(tmp_path)) == 2
    write_some(tmp_path, 1)
    assert steps_of(tmp_path) == [0, 1, 0]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_damage_in_the_middle_is_an_error(tmp_path):
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
  assert steps_of(tmp_path) == [0, 1, 2, 7]
