"""TensorBoard's event files say what metrics.jsonl says, each point once."""

import collections
import struct
import sys
import types

import pytest

from smft_jax import train
from smft_jax.config import experiment as config_lib
from smft_jax.runs import base
from smft_jax.runtime import program
from smft_jax.store import records as records_lib
from tests.support import configs
from tests.support import tiny_run


def points_of(workdir):
  """The (step, value, time) of every plot, in the order of the file."""
  event_pb2 = pytest.importorskip('tensorboardX.proto.event_pb2')
  [file] = (workdir / 'tensorboard').iterdir()
  data, points = file.read_bytes(), collections.defaultdict(list)
  while data:  # length, its checksum, the event, its checksum
    [length] = struct.unpack('<Q', data[:8])
    event = event_pb2.Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]
    for value in event.summary.value:
      point = (event.step, value.simple_value, event.wall_time)
      points[value.tag].append(point)
  return dict(points)


@pytest.fixture
def writer(tmp_path):
  """Returns a function that opens a writer at a time."""
  pytest.importorskip('tensorboardX')
  return lambda time: records_lib.MetricsWriter(
    tmp_path, clock=lambda: time, tensorboard=True
  )


def test_every_number_is_a_point(tmp_path, writer):
  with writer(5.0) as records:
    records.write('pretrain', step=3, loss=1.5)
  metrics = {'target': {'recall': 0.25, 'nll': float('nan')}}
  with writer(7.0) as records:
    records.write(
      'stream', documents=2, document='d', loss=1.5, slots_updated=9
    )
    records.write('evaluation', documents=2, metrics=metrics)
  assert points_of(tmp_path) == {
    'pretrain/loss': [(3, 1.5, 5.0)],
    'stream/loss': [(2, 1.5, 7.0)],
    'stream/slots_updated': [(2, 9.0, 7.0)],
    'evaluation/target/recall': [(2, 0.25, 7.0)],
  }


def test_a_resumed_run_repeats_no_point(tmp_path, writer):
  for steps in ((1, 2, 3, 4), (3, 4, 5)):
    with writer(5.0) as records:
      records.truncate(lambda record: record['step'] > 2)
      for step in steps:
        records.write('pretrain', step=step, loss=step / 2)
  found = [step for step, _, _ in points_of(tmp_path)['pretrain/loss']]
  assert found == [1, 2, 3, 4, 5]


@pytest.mark.parametrize('wanted', [True, False])
def test_a_run_writes_them_if_asked(wanted, tmp_path, monkeypatch):
  pytest.importorskip('tensorboardX')

  def make_base(experiment, task, writer):
    writer.write('pretrain', step=5, loss=0.5)
    return types.SimpleNamespace(folder=tmp_path / 'base')

  monkeypatch.setattr(base, 'find_or_make', make_base)
  monkeypatch.setattr(train, '_measure_base', lambda *unused: {})
  experiment = config_lib.from_config_dict(
    configs.make(stream=None, background=None, tensorboard=wanted)
  )
  train.run(experiment, None, tmp_path)
  assert (tmp_path / 'metrics.jsonl').exists()
  assert (tmp_path / 'tensorboard').exists() == wanted
  if wanted:
    assert points_of(tmp_path)['pretrain/loss'][0][:2] == (5, 0.5)


def test_without_the_package_nothing_is_done(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  file, workdir = tiny_run.write_config(tmp_path), tmp_path / 'run'
  argv = [f'--config={file}', f'--workdir={workdir}']
  assert program.run(train.main, [*argv, '--config.tensorboard=True']) == 2
  error = capsys.readouterr().err
  assert 'pip install "smft_jax[tensorboard]"' in error
  assert error.count('\n') == 1
  assert [path.name for path in tmp_path.iterdir()] == ['tiny.py']
