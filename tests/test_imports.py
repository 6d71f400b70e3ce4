"""A file imports only from lower layers and its own room, and few packages.

`LAYERS` is the one table of layers. The AST tests read all imports, those for
type checking included; the probe imports parts in a fresh process and looks at
the packages that this brought along.
"""

import ast
import graphlib
import json
import pathlib
import subprocess
import sys

import pytest

import smft_jax

LAYERS = (
  ('schema', 'blocks', 'ids', 'flops'),
  (
    'counting',
    'product_keys',
    'lookup',
    'ranking',
    'quorum',
    'key_fitting',
    'runtime',
  ),
  ('selection', 'overlay', 'rowwise', 'store'),
  ('finetuning', 'sharded'),
  ('optim', 'memory_config'),
  ('memory', 'data'),
  ('models', 'retrofit', 'training'),
  ('methods', 'hf', 'evaluation', 'config'),
  ('runs', 'report'),
  ('train', 'background', 'export', 'lesson', 'sweep', 'compile', 'prepare'),
  ('ask', 'analyze'),
)
_HEIGHT = {room: i for i, layer in enumerate(LAYERS) for room in layer}

_HEAVY = (
  'grain',
  'jinja2',
  'matplotlib',
  'ml_collections',
  'orbax',
  'tensorflow_datasets',
  'tokenizers',
)
# Parts by what importing them must not bring along, to the last file of a room.
_LIGHT = {
  'blocks ids product_keys lookup overlay counting ranking quorum': (
    *_HEAVY,
    'absl',
    'flax',
    'optax',
  ),
  'optim sharded': (*_HEAVY, 'flax'),
  'schema': (*_HEAVY, 'absl', 'flax', 'jax', 'numpy', 'optax'),
  'memory models retrofit training methods lesson': _HEAVY,
}
# Runs in a fresh process. `optax` imports absl.flags itself, so what counts is
# whether one of our own modules holds it.
_PROBE = """
import importlib, json, sys
modules, forbidden = json.loads(sys.argv[1])
faults = []
for module in modules:
  importlib.import_module(module)
  faults += [f'{module} brings in {package}' for package in forbidden
             if package in sys.modules]
for name, ours in list(sys.modules.items()):
  if name.startswith('smft_jax.'):
    faults += [f'{name} uses absl.flags' for value in vars(ours).values()
               if 'absl.flags' in (getattr(value, '__name__', ''),
                                   getattr(value, '__module__', ''))]
print(json.dumps(faults))
"""

_PACKAGE = pathlib.Path(smft_jax.__file__).parent


def modules(package):
  """Every module of a package by its name within it, such as 'hf.config'."""
  return {
    '.'.join(path.relative_to(package).with_suffix('').parts): path
    for path in sorted(package.rglob('*.py'))
  }


def imports(path, known):
  """The modules of the package that a file imports, wherever it does."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
      assert not node.level, f'{path}: relative imports are not used here'
    elif isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    else:
      continue
    for name in names:
      package, _, module = name.partition('.')
      if package != 'smft_jax' or not module:
        continue
      for found_as in (module, f'{module}.__init__', module.rpartition('.')[0]):
        if found_as in known:
          found.add(found_as)
          break
      else:
        raise AssertionError(f'{path} imports {name}, which is no module')
  return found


def graph(package):
  known = modules(package)
  return {name: imports(path, known) for name, path in known.items()}


def wrong_imports(arrows):
  """The imports that do not go down, in a line each."""
  faults = []
  for module, imported in arrows.items():
    room = module.partition('.')[0]
    for other in imported:
      below = other.partition('.')[0]
      if room != below and _HEIGHT[below] >= _HEIGHT[room]:
        faults.append(
          f'{module} (layer {_HEIGHT[room] + 1}) imports {other}'
          f' (layer {_HEIGHT[below] + 1})'
        )
  return faults


def test_every_room_has_a_layer():
  rooms = {name.partition('.')[0] for name in modules(_PACKAGE)}
  assert rooms - {'__init__'} == set(_HEIGHT)


def test_imports_go_down():
  arrows = graph(_PACKAGE)
  assert 'lookup' in arrows['memory']
  faults = wrong_imports(arrows)
  assert not faults, '\n'.join(faults)


def test_no_circle():
  # Raises CycleError, which names the circle.
  assert list(graphlib.TopologicalSorter(graph(_PACKAGE)).static_order())


def test_a_wrong_import_is_seen(tmp_path):
  (tmp_path / 'store').mkdir()
  (tmp_path / 'store' / 'records.py').write_text(
    'if TYPE_CHECKING:\n  from smft_jax.runs import base\n'
  )
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'base.py').write_text(
    'def later():\n  import smft_jax.store.records\n'
  )
  arrows = graph(tmp_path)
  assert wrong_imports(arrows) == [
    'store.records (layer 3) imports runs.base (layer 9)'
  ]
  with pytest.raises(graphlib.CycleError):
    list(graphlib.TopologicalSorter(arrows).static_order())


def probe(modules, forbidden):
  done = subprocess.run(
    [sys.executable, '-c', _PROBE, json.dumps([modules, forbidden])],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize('parts', _LIGHT)
def test_parts_bring_in_only_what_they_need(parts):
  files = [
    f'smft_jax.{name.removesuffix(".__init__")}'
    for name in modules(_PACKAGE)
    # Of `lesson` only what it exports: the other files are its program's.
    if name.partition('.')[0] in parts.split()
    and (not name.startswith('lesson.') or name == 'lesson.__init__')
  ]
  assert len(files) >= len(parts.split())
  assert not probe(files, _LIGHT[parts])


@pytest.mark.parametrize(
  ('module', 'package'),
  [('json.decoder', 'json'), ('absl.flags', 'absl')],
)
def test_the_probe_sees_a_package_that_is_dragged_in(module, package):
  faults = probe([module], [package, 'flax'])
  assert faults == [f'{module} brings in {package}']


def test_the_package_itself_imports_nothing():
  code = "import sys, smft_jax; print('jax' in sys.modules)"
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == ['False']
  assert smft_jax.__version__
