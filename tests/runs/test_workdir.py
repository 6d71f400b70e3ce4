"""The folder of a run: made once, recognised by its config, else refused."""

import errno
import json
import pathlib

import pytest

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.runs import saved_run
from smft_jax.runs import workdir as workdir_lib
from smft_jax.store import records as records_lib
from tests.support import configs


def experiment(**changes):
  return config_lib.from_config_dict(configs.make(**changes))


def test_workdir_records_the_run_once_and_resumes_it(tmp_path):
  workdir = tmp_path / 'a' / 'b'
  assert not workdir_lib.prepare(workdir, experiment(), ['--x'])
  text = (workdir / 'config.json').read_text()
  record = json.loads(text)
  assert config_lib.from_config_dict(record['config']) == experiment()
  assert record['argv'] == ['--x']
  assert {'python', 'jax', 'flax', 'optax'} <= record['versions'].keys()
  # Where the cache lies does not make it another run.
  same = experiment(base__cache_dir='elsewhere')
  assert workdir_lib.prepare(workdir, same, ['--y'])
  assert (workdir / 'config.json').read_text() == text
  assert [path.name for path in workdir.iterdir()] == ['config.json']


def test_workdir_of_another_config_is_refused_and_left_alone(tmp_path):
  workdir_lib.prepare(tmp_path / 'run', experiment())
  before = (tmp_path / 'run' / 'config.json').read_text()
  with pytest.raises(schema.UserError) as error:
    workdir_lib.prepare(tmp_path / 'run', experiment(method__t=5, seed=4))
  said = str(error.value)
  assert 'config.method.t = 17, not 5' in said
  assert 'config.seed = 3, not 4' in said
  assert '--workdir' in said
  assert (tmp_path / 'run' / 'config.json').read_text() == before


def test_workdir_of_other_data_is_refused(tmp_path):
  workdir_lib.prepare(tmp_path, experiment(), data='a')
  assert workdir_lib.prepare(tmp_path, experiment(), data='a')
  assert workdir_lib.holds_run(tmp_path, experiment())  # whatever its data
  with pytest.raises(schema.UserError, match='holds a run of other data'):
    workdir_lib.prepare(tmp_path, experiment(), data='b')


def test_a_run_that_recorded_nothing_can_be_withdrawn(tmp_path):
  workdir_lib.prepare(tmp_path, experiment())
  with records_lib.MetricsWriter(tmp_path) as writer:
    workdir_lib.withdraw(tmp_path)
    assert not list(tmp_path.iterdir())
    workdir_lib.prepare(tmp_path, experiment(seed=4))
  with records_lib.MetricsWriter(tmp_path) as writer:
    writer.write('pretrain', step=1)
    workdir_lib.withdraw(tmp_path)
    assert workdir_lib.holds_run(tmp_path, experiment(seed=4))


def test_workdir_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(schema.UserError, match='cannot be written') as error:
    workdir_lib.prepare(tmp_path / 'file' / 'run', experiment())
  assert '\n' not in str(error.value)


def test_workdir_that_can_no_longer_be_written(tmp_path, monkeypatch):
  workdir_lib.prepare(tmp_path, experiment())

  def touch(path):
    raise PermissionError(errno.EACCES, 'Permission denied', str(path))

  monkeypatch.setattr(pathlib.Path, 'touch', touch)
  with pytest.raises(schema.UserError, match='written: Permission denied'):
    workdir_lib.prepare(tmp_path, experiment())


@pytest.mark.parametrize('record', ['{"config": ', '{"config": null}'])
def test_workdir_with_a_damaged_record(tmp_path, record):
  (tmp_path / 'config.json').write_text(record)
  with pytest.raises(schema.UserError, match='is damaged'):
    workdir_lib.prepare(tmp_path, experiment())


def test_a_folder_of_weights_is_no_workdir(tmp_path):
  model = tmp_path / 'model'
  model.mkdir()
  (model / 'config.json').write_text('{"model_type": "llama"}')
  with pytest.raises(schema.UserError, match='of something else than a run'):
    workdir_lib.prepare(model, experiment())
  said = f'{model} holds no run: its config.json is of something else'
  with pytest.raises(schema.UserError, match=said):
    saved_run.load_experiment(model)
  workdir_lib.prepare(tmp_path / 'run', experiment())
  with pytest.raises(schema.UserError, match=f'no run; {tmp_path} has run$'):
    saved_run.load_experiment(tmp_path / 'other')


def test_a_run_resumed_with_other_versions_is_told_so(tmp_path, caplog):
  workdir_lib.prepare(tmp_path, experiment())
  workdir_lib.prepare(tmp_path, experiment())
  assert not caplog.records
  file = tmp_path / 'config.json'
  record = json.loads(file.read_text())
  now = record['versions']['jax']
  record['versions'] |= {'jax': '0.1.2', 'gone': '3'}
  file.write_text(json.dumps(record))
  workdir_lib.prepare(tmp_path, experiment())
  (told,) = caplog.messages
  assert f'begun with gone 3, now None; jax 0.1.2, now {now}: results' in told
