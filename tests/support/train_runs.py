"""Runs of the training program, in this process."""

import json

import jax

from smft_jax import train
from smft_jax.runtime import program
from smft_jax.store import checkpoint


def run(folder, workdir, *more):
  argv = [f'--config={folder}/tiny.py', f'--workdir={folder}/{workdir}', *more]
  return program.run(train.main, argv)


def results_of(workdir):
  """results.json, without what differs from run to run."""
  values = json.loads((workdir / 'results.json').read_text())
  values.get('lesson', {}).pop('wall_s', None)
  times = ('wall_s', 'total_s', 'input_wait_s')
  return {k: v for k, v in values.items() if k not in times}


def records(workdir, *events):
  """Records of these events, or of all, without times."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  times = ('time', 'wall_s', 'lesson_s', 'input_wait_s')
  return [
    {k: v for k, v in record.items() if k not in times}
    for record in map(json.loads, lines)
    if not events or record['event'] in events
  ]


def stored_shapes(stored):
  """Shapes for `checkpoint.read_newest` to read whatever a step holds."""
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return {
    name: jax.ShapeDtypeStruct(
      tuple(leaf['shape']), leaf['dtype'], sharding=place
    )
    for name, leaf in stored.items()
  }


def files(folder):
  """Every file below a folder with its content, and every empty folder."""
  return {
    path.relative_to(folder): path.read_bytes() if path.is_file() else b''
    for path in folder.rglob('*')
  }


def refused(capsys, folder, workdir, *more):
  """What a run says in one line that is refused and leaves all as it was."""
  before = files(folder)
  assert run(folder, workdir, *more) == 2
  out, said = capsys.readouterr()
  assert said.startswith('error: ')
  assert said.count('\n') == 1
  assert out == ''
  assert files(folder) == before
  return said


def interrupt_save(patch, folder_name, at_step):
  """Has the next run interrupted just before a checkpoint is written."""
  save = checkpoint.save

  def interrupted(folder, step, *arguments, **named):
    if folder.name == folder_name and step == at_step:
      raise KeyboardInterrupt
    save(folder, step, *arguments, **named)

  patch.setattr(checkpoint, 'save', interrupted)


def check_results(workdir, method, trains=True):
  """Checks what the programs that read results.json rely on; returns it."""
  results = json.loads((workdir / 'results.json').read_text())
  assert results['method'] == method
  assert results['steps'] == (3 * 2 if trains else 0)
  assert results['seed'] == 3
  for key in ('wall_s', 'tokens', 'slots_updated', 'params_changed_fraction'):
    assert results[key] >= 0, key
  for key in ('target', 'target_unseen_phrasing'):
    assert results[key].keys() == {'metric', 'before', 'after'}
  for measure in results['held_out'].values():
    assert measure.keys() == {'metric', 'before', 'after', 'relative_drop'}
  done = [point['documents'] for point in results['retention_curve']]
  assert done == ([0, 1, 2, 3] if trains else [0, 3])
  matrix = results['accuracy_matrix']
  assert [len(row) for row in matrix] == [len(done) - 1] * len(done)
  for record in records(workdir, 'evaluation'):
    assert [index for index, _ in record['document_recall']] == [0, 1, 2]
  assert results['locality'].keys() == {'known', 'never_seen'}
  assert (results['params_changed'] > 0) == trains
  assert results['bytes_changed'] == 4 * results['params_changed']
  assert (results['lesson']['flops'] > 0) == trains
  assert (results['lesson']['wall_s'] is not None) == trains
  outputs = json.loads((workdir / 'outputs_before.json').read_text())
  assert len(outputs['known']) == 13
  return results


def arrays_of(folder):
  """The arrays of the newest checkpoint in a folder, by name."""
  _, arrays, _ = checkpoint.read_newest(folder, stored_shapes)
  return arrays
