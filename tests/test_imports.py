"""Each layer may import only what stands above it, and few packages.

A package that one module drags in stays in the process, so a single process
that imports the modules in the order of the layers, and looks after each one,
sees the same as a fresh process for each, at the price of one.
"""

import json
import pathlib
import subprocess
import sys

import pytest

import smft_jax

# Modules in the order in which they may import each other, and the packages
# that none of them, nor what they import, may bring along. A module that is not
# listed stands below all of these; one that is not written yet is passed over.
_HEAVY = (
  'grain',
  'matplotlib',
  'ml_collections',
  'orbax',
  'tensorflow_datasets',
  'tokenizers',
)
_LAYERS = {
  'L0': (
    (
      'blocks',
      'checksum',
      'product_keys',
      'lookup',
      'overlay',
      'counting',
      'ranking',
      'selection',
      'sharding',
      'sharded_search',
      'sharded_lookup',
      'sharded_ranking',
    ),
    (*_HEAVY, 'absl', 'flax', 'optax'),
  ),
  'L1, no flax': (('optim',), (*_HEAVY, 'flax')),
  'L1': (('memory', 'rotary', 'layers', 'transformer'), _HEAVY),
  'L2': (
    ('retrofit', 'method', 'train_step', 'background', 'methods', 'lesson'),
    _HEAVY,
  ),
}
# Runs in the fresh process. `optax` itself imports absl.flags, so what counts
# is whether one of our own modules holds it.
_PROBE = """
import importlib, json, sys
modules, forbidden = json.loads(sys.argv[1])
faults = []
seen = set()
for name in modules:
  importlib.import_module(name)
  ours = {m for m in sys.modules if m.startswith('smft_jax.')}
  below = {m for m in ours - seen
           if m.split('.')[1] != name.split('.')[1]}
  seen |= ours
  faults += [f'{name} imports {m}, which stands below it' for m in below]
  faults += [f'{name} brings in {package}' for package in forbidden[name]
             if package in sys.modules]
  faults += [f'{name} uses absl.flags' for value in vars(
                 sys.modules[name]).values()
             if getattr(value, '__name__', '') == 'absl.flags'
             or getattr(value, '__module__', '') == 'absl.flags']
print(json.dumps(faults))
"""

_ROOT = pathlib.Path(smft_jax.__file__).parent


def _dotted(name: str) -> list[str]:
  """The modules of one layer entry: itself and, in a package, its files."""
  path = _ROOT / name
  if path.with_suffix('.py').exists():
    return [f'smft_jax.{name}']
  files = [f for f in sorted(path.glob('*.py')) if f.stem != '__init__']
  return [f'smft_jax.{name}.{f.stem}' for f in files]


def _probe(modules, forbidden):
  done = subprocess.run(
    [sys.executable, '-c', _PROBE, json.dumps([modules, forbidden])],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def test_each_layer_imports_only_what_stands_above():
  forbidden = {
    module: packages
    for names, packages in _LAYERS.values()
    for name in names
    for module in _dotted(name)
  }
  assert 'smft_jax.product_keys' in forbidden
  faults = _probe(list(forbidden), forbidden)
  assert not faults, '\n'.join(faults)


@pytest.mark.parametrize(
  ('module', 'package'),
  [('json.decoder', 'json'), ('absl.flags', 'absl')],
)
def test_the_probe_sees_a_package_that_is_dragged_in(module, package):
  faults = _probe([module], {module: [package, 'flax']})
  assert f'{module} brings in {package}' in faults
  assert f'{module} brings in flax' not in faults


def test_the_package_itself_imports_nothing():
  code = "import sys, smft_jax; print('jax' in sys.modules)"
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == ['False']
  assert smft_jax.__version__
