"""Runs of the program for sweeps, in this process."""

import json

from smft_jax.runtime import program
from smft_jax.sweep import __main__ as sweep
from tests.support import tiny_run

# Found only when the method looks at the model: no projection is called so.
BAD = {'method.name': 'lora', 'method.pattern': 'nothing'}

SWEEP = f"""

REPORT = {{'title': 'Rates'}}

def sweep(add):
  add('bad', {BAD}, panels=())
  for rate in (1.0, 2.0):
    add(f'rate={{rate:g}}', {{'method.learning_rate': rate}}, x=rate, tuned=5)
"""


def write(folder, **changes):
  path = tiny_run.write_config(folder, **changes)
  path.write_text(path.read_text() + SWEEP)


def run(folder, *more):
  """Returns the exit code of the program."""
  argv = [f'--config={folder}/tiny.py', f'--workdir={folder}/run', *more]
  try:
    return program.run(sweep.main, argv)
  except SystemExit as leaves:
    return leaves.code


def edit(folder, old, new):
  text = (folder / 'tiny.py').read_text()
  assert old in text
  (folder / 'tiny.py').write_text(text.replace(old, new))


def read(path):
  return json.loads(path.read_text())


def files(folder):
  """Every file below a folder with its content and time, every folder."""
  return {
    path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
    if path.is_file()
    else None
    for path in folder.rglob('*')
  }


def error_of(root, capsys, *flags):
  """Returns the one line that is printed; nothing else may have changed."""
  before = files(root)
  capsys.readouterr()
  assert run(root, *flags) == 2
  out, err = capsys.readouterr()
  assert (out, err.count('\n')) == ('', 1)
  assert err.startswith('error: ')
  assert files(root) == before
  return err
