"""Runs of the training program, in this process."""

import json

from smft_jax import train
from smft_jax.runtime import program
from smft_jax.store import checkpoint


def run(folder, workdir, *more):
  argv = [f'--config={folder}/tiny.py', f'--workdir={folder}/{workdir}', *more]
  return program.run(train.main, argv)


def read(path):
  """A JSON file, without what differs from run to run."""
  values = json.loads(path.read_text())
  values.get('lesson', {}).pop('wall_s', None)
  times = ('wall_s', 'total_s', 'input_wait_s')
  return {k: v for k, v in values.items() if k not in times}


def files(folder):
  """Every file below a folder with its content, and every empty folder."""
  return {
    path.relative_to(folder): path.read_bytes() if path.is_file() else b''
    for path in folder.rglob('*')
  }


def interrupt_save(patch, folder_name, at_step):
  """Has the next run interrupted just before a checkpoint is written."""
  save = checkpoint.save

  def interrupted(folder, step, *arguments, **named):
    if folder.name == folder_name and step == at_step:
      raise KeyboardInterrupt
    save(folder, step, *arguments, **named)

  patch.setattr(checkpoint, 'save', interrupted)
