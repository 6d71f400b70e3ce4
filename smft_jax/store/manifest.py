"""Manifests: what a folder must contain, sealed with a digest of themselves.

The manifest.json of a checkpoint's step has the step, owner and notes; the
shape, dtype and checksum of each array; and the size of each file. Any other
JSON object can be sealed likewise, see `seal`.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
import pathlib
from typing import Any

import jax

from smft_jax import schema
from smft_jax.store import atomic

Facts = Mapping[str, Any]

_OBJECTS = ('owner', 'notes', 'arrays', 'files')


class Damaged(Exception):
  """A step does not contain what its manifest says."""


def write(
  folder: pathlib.Path,
  step: int,
  arrays: Mapping[str, jax.Array],
  checksums: Mapping[str, str],
  owner: Facts,
  notes: Facts,
) -> None:
  """Writes the manifest of a step whose arrays are already in the folder.

  Args:
    folder: The step's folder.
    step: Number of the step.
    arrays: Arrays by name.
    checksums: By name, from `checksum.checksums`.
    owner: As in `checkpoint.save`.
    notes: As in `checkpoint.save`.
  """
  contents = {
    'step': step,
    'owner': owner,
    'notes': notes,
    'arrays': {
      name: {
        'shape': leaf.shape,
        'dtype': str(leaf.dtype),
        'checksum': checksums[name],
      }
      for name, leaf in arrays.items()
    },
    'files': {
      file.relative_to(folder).as_posix(): file.stat().st_size
      for file in sorted(folder.rglob('*'))
      if file.is_file()
    },
  }
  seal(folder / 'manifest.json', contents)


def read(path: pathlib.Path) -> dict[str, Any]:
  """Reads the manifest of a step.

  Raises:
    Damaged: If it is missing, unreadable or changed.
  """
  file = path / 'manifest.json'
  contents = unseal(file)
  if not _is_manifest(contents):
    raise Damaged(f'{file} is no manifest')
  return contents


def seal(file: pathlib.Path, contents: Facts) -> None:
  """Writes a JSON object and its digest, atomically."""
  contents = atomic.to_json(contents)
  atomic.write_json(file, {'digest': digest(contents), **contents})


def unseal(file: pathlib.Path) -> dict[str, Any]:
  """Reads what `seal` wrote.

  Raises:
    Damaged: If it is missing, unreadable or changed.
  """
  try:
    contents = json.loads(file.read_text())
    found = contents.pop('digest')
  except FileNotFoundError:
    raise Damaged(f'{file} is missing') from None
  except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
    raise Damaged(f'{file} cannot be read: {error!r}') from None
  if found != digest(contents):
    raise Damaged(f'{file} was changed after it was written')
  return contents


def _is_manifest(contents: Mapping[str, Any]) -> bool:
  """Whether all parts that are read later are there, in their form."""
  return (
    all(isinstance(contents.get(key), dict) for key in _OBJECTS)
    and isinstance(contents['owner'].get('config', {}), dict)
    and all(isinstance(size, int) for size in contents['files'].values())
    and all(_is_array(fields) for fields in contents['arrays'].values())
  )


def _is_array(fields: Any) -> bool:
  return (
    isinstance(fields, dict)
    and isinstance(fields.get('shape'), list)
    and all(isinstance(size, int) for size in fields['shape'])
    and {'dtype', 'checksum'} <= fields.keys()
  )


def check_files(path: pathlib.Path, sizes: Mapping[str, int]) -> None:
  """Raises `Damaged` unless all files exist with their sizes in bytes."""
  for name, size in sizes.items():
    file = path / name
    if not file.is_file():
      raise Damaged(f'{file} is missing')
    if file.stat().st_size != size:
      raise Damaged(f'{file} has {file.stat().st_size} bytes, not {size}')


def check_owner(path: pathlib.Path, stored: Facts, expected: Facts) -> None:
  """Checks that a step belongs to a run.

  Args:
    path: The step's folder.
    stored: The owner in its manifest.
    expected: The owner of the run.

  Raises:
    UserError: If they differ; names the difference.
  """
  if 'config' in stored and 'config' in expected:
    differing = schema.differences(stored['config'], expected['config'])
    if differing:
      raise schema.UserError(
        f'checkpoint {path} belongs to another config, with'
        f' {"; ".join(differing[:4])}: choose another --workdir'
      )
  for name in sorted((stored.keys() | expected.keys()) - {'config'}):
    if stored.get(name) != expected.get(name):
      raise schema.UserError(
        f'checkpoint {path} belongs to another {name}, {stored.get(name)}, not'
        f' {expected.get(name)}: choose another --workdir'
      )


def digest(contents: Facts) -> str:
  """Hashes a manifest without its digest."""
  text = json.dumps(contents, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
