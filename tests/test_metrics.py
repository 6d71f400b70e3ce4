"""Numbers out: nothing half-written, nothing twice, nothing but JSON."""

import io
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import metrics
from smft_jax import schema


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
  assert metrics.relative_drop(metric, before, after) == pytest.approx(drop)


@pytest.mark.parametrize('after', [0.0, 0.1])
def test_relative_drop_from_nothing_is_no_number(after):
  assert math.isnan(metrics.relative_drop('recall', 0.0, after))


def test_relative_drop_of_an_unknown_metric():
  with pytest.raises(ValueError, match="did you mean 'recall'"):
    metrics.relative_drop('recal', 1.0, 1.0)
  # A name that only begins like a loss says nothing about its direction.
  with pytest.raises(ValueError, match='nll_ratio'):
    metrics.relative_drop('nll_ratio', 1.0, 1.0)


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
  assert json.loads(json.dumps(metrics.to_json(value))) == expected
  with pytest.raises(TypeError, match='not JSON'):
    metrics.to_json({'x': object()})


def test_write_json_leaves_the_old_file_when_it_fails(tmp_path):
  path = tmp_path / 'results.json'
  metrics.write_json(path, {'a': 1})
  with pytest.raises(TypeError):
    metrics.write_json(path, {'a': object()})
  with pytest.raises(UnicodeEncodeError):
    metrics.write_text(path, 'half of it\ud800')
  assert json.loads(path.read_text()) == {'a': 1}
  assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_and_never_written_over(tmp_path):
  path, reader = tmp_path / 'a.json', tmp_path / 'reader'
  metrics.write_json(path, {'a': 1})
  # Whoever has the old file open sees all of it: a link stands for that.
  reader.hardlink_to(path)
  metrics.write_json(path, {'a': 2})
  assert json.loads(reader.read_text()) == {'a': 1}
  assert json.loads(path.read_text()) == {'a': 2}


def write_some(folder, count):
  with metrics.MetricsWriter(folder, clock=lambda: 5.0) as writer:
    for step in range(count):
      writer.write('pretrain', step=step, loss=jnp.float32(step))


def test_records_are_written_and_read(tmp_path):
  write_some(tmp_path, 3)
  write_some(tmp_path, 1)
  records = metrics.read_records(tmp_path)
  assert [record['step'] for record in records] == [0, 1, 2, 0]
  assert records[1] == {
    'event': 'pretrain',
    'time': 5.0,
    'step': 1,
    'loss': 1.0,
  }


def test_a_record_is_on_its_way_to_disk_at_once(tmp_path):
  writer = metrics.MetricsWriter(tmp_path)
  writer.write('evaluation', loss=math.nan)
  assert metrics.read_records(tmp_path)[0]['loss'] is None
  writer.close()


def test_a_file_that_takes_a_part_is_given_the_rest(tmp_path):
  with metrics.MetricsWriter(tmp_path) as writer:
    file = writer._file

    class Slow:
      def write(self, content):
        return file.write(content[:7])

    writer._file = Slow()
    writer.write('stream', step=3)
    writer._file = file
  assert metrics.read_records(tmp_path)[0]['step'] == 3


def test_every_way_to_cut_a_file_short_is_survived(tmp_path):
  write_some(tmp_path, 3)
  path = tmp_path / 'metrics.jsonl'
  whole = path.read_bytes()
  first_two = len(b''.join(whole.splitlines(keepends=True)[:2]))
  for length in range(first_two, len(whole)):
    path.write_bytes(whole[:length])
    assert len(metrics.read_records(tmp_path)) == 2
    write_some(tmp_path, 1)
    steps = [record['step'] for record in metrics.read_records(tmp_path)]
    assert steps == [0, 1, 0]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_damage_in_the_middle_is_told(tmp_path):
  write_some(tmp_path, 3)
  path = tmp_path / 'metrics.jsonl'
  lines = path.read_text().splitlines()
  lines[1] = lines[1][:9]
  path.write_text('\n'.join(lines) + '\n')
  with pytest.raises(schema.UserError, match='damaged in line 2'):
    metrics.read_records(tmp_path)


def test_truncate_cuts_from_the_first_match(tmp_path):
  write_some(tmp_path, 5)
  with metrics.MetricsWriter(tmp_path) as writer:
    writer.truncate(lambda record: record['step'] > 2)
    writer.write('stream', step=7)
  steps = [record['step'] for record in metrics.read_records(tmp_path)]
  assert steps == [0, 1, 2, 7]


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  """Seconds that pass only when told to."""

  now = 0.0

  def __call__(self):
    return self.now


def test_a_log_gets_a_line_every_few_seconds_and_at_the_end():
  out, clock = io.StringIO(), Clock()
  with metrics.Progress('pretrain', 100, stream=out, clock=clock) as progress:
    clock.now = 30.0  # compiling
    for step in range(1, 101):
      progress.update(step, tokens=1000, loss=jnp.float32(2.5))
      clock.now += 0.25
  lines = out.getvalue().splitlines()
  assert lines[0] == 'pretrain: step 1/100  loss 2.5'
  # 20 steps later: 5 s at 4 steps a second, and 79 steps to go.
  assert lines[1] == 'pretrain: step 21/100  loss 2.5  4k tok/s  20s left'
  assert lines[-2].startswith('pretrain: step 100/100')
  assert lines[-1] == 'pretrain took 55s'
  assert len(lines) == 5 + 1 + 1


def test_the_share_of_time_that_input_took_is_told_at_the_end():
  out, clock = io.StringIO(), Clock()
  with metrics.Progress('pretrain', 4, stream=out, clock=clock) as progress:
    for step in range(1, 5):
      with progress.waiting():
        clock.now += 0.25
      clock.now += 49.75
      progress.update(step)
  assert progress.waited_s == 1.0
  last = out.getvalue().splitlines()[-1]
  assert last == 'pretrain took 3m20s, 0.5% of it waiting for input'


def test_time_of_input_that_fails_counts_too():
  clock = Clock()
  progress = metrics.Progress('x', 4, stream=io.StringIO(), clock=clock)

  def read():
    clock.now += 2.0
    raise OSError('gone')

  with pytest.raises(OSError, match='gone'), progress.waiting():
    read()
  assert progress.waited_s == 2.0


def test_progress_of_a_resumed_phase_counts_only_its_own_steps():
  out, clock = io.StringIO(), Clock()
  progress = metrics.Progress(
    'stream', 50, 'document', start=40, stream=out, clock=clock, every_s=1.0
  )
  progress.update(41)
  clock.now = 2.0
  progress.update(42)
  assert out.getvalue().splitlines()[-1] == 'stream: document 42/50  16s left'


def test_values_are_not_looked_at_between_lines():
  class Unready:
    def __float__(self):
      raise AssertionError('the device was waited for')

  clock = Clock()
  progress = metrics.Progress('x', 9, stream=io.StringIO(), clock=clock)
  progress.update(1, loss=1.0)
  progress.update(2, loss=Unready())
  clock.now = 6.0
  with pytest.raises(AssertionError, match='waited'):
    progress.update(3, loss=Unready())


def test_a_terminal_gets_one_line_with_a_bar(monkeypatch):
  monkeypatch.setenv('COLUMNS', '100')
  out, clock = Terminal(), Clock()
  with metrics.Progress('x', 4, stream=out, clock=clock) as progress:
    for step in range(1, 5):
      clock.now += 1.0
      progress.update(step, loss=1.0)
  text = out.getvalue()
  drawn = text.split('\r')[1:]
  assert len(drawn) == 4
  assert text.count('\n') == 2  # after the bar, and after the closing line
  assert drawn[1].count('=') == 15
  assert '[' + '=' * 30 + ']' in drawn[3]


def test_a_narrow_terminal_is_not_overrun(monkeypatch):
  monkeypatch.setenv('COLUMNS', '20')
  out = Terminal()
  progress = metrics.Progress('pretrain', 4000, stream=out, clock=Clock())
  progress.update(17, loss=1.0)
  drawn = out.getvalue().removeprefix('\r').removesuffix('\x1b[K')
  assert len(drawn) < 20
