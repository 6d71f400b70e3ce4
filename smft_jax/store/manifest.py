"""What a step of a checkpoint must hold, written beside its arrays.

manifest.json   format, step, owner and notes; of each array shape, dtype and
checksum; of each file its size; a digest of all that
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

# Raise it when an older program would misread what this one writes.
FORMAT = 1


class Damaged(Exception):
  """A step that does not hold what its manifest says."""


def write(
  folder: pathlib.Path,
  step: int,
  arrays: Mapping[str, jax.Array],
  checksums: Mapping[str, str],
  owner: Facts,
  notes: Facts,
) -> None:
  """Writes the manifest of a step whose arrays are in the folder already.

  Args:
    folder: The step's.
    step: Its number.
    arrays: Arrays by name.
    checksums: From `checksum.checksums`, by name.
    owner: As in `checkpoint.save`.
    notes: As in `checkpoint.save`.
  """
  contents = {
    'format': FORMAT,
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
  contents = atomic.to_json(contents)
  atomic.write_json(
    folder / 'manifest.json', {'digest': digest(contents), **contents}
  )


def read(path: pathlib.Path) -> dict[str, Any]:
  """The manifest of a step; raises `Damaged`."""
  file = path / 'manifest.json'
  try:
    contents = json.loads(file.read_text())
    found = contents.pop('digest')
  except FileNotFoundError:
    raise Damaged(f'{file} is missing') from None
  except (OSError, ValueError, KeyError, AttributeError) as error:
    raise Damaged(f'{file} cannot be read: {error!r}') from None
  if found != digest(contents):
    raise Damaged(f'{file} does not hold what was written')
  return contents


def digest(contents: Facts) -> str:
  """A hash of the manifest without it; the same rule for every format."""
  return hashlib.sha256(
    json.dumps(contents, sort_keys=True).encode()
  ).hexdigest()


def check(path: pathlib.Path, contents: Facts, owner: Facts | None) -> None:
  """Checks that a step can be read by this program, and is of this owner.

  Args:
    path: The step's folder.
    contents: Its manifest.
    owner: As in `checkpoint.save`; None asks for no owner.

  Raises:
    UserError: If it is of a newer format or of another owner.
  """
  if contents['format'] > FORMAT:
    raise schema.UserError(
      f'checkpoint {path} is of format {contents["format"]}, and this version'
      f' of smft_jax reads up to {FORMAT}: update it, or choose another'
      ' --workdir'
    )
  if owner is not None:
    _check_owner(path, contents['owner'], owner)


def check_files(path: pathlib.Path, sizes: Mapping[str, int]) -> None:
  """Checks that files are there whole; raises `Damaged`."""
  for name, size in sizes.items():
    file = path / name
    if not file.is_file():
      raise Damaged(f'{file} is missing')
    if file.stat().st_size != size:
      raise Damaged(f'{file} has {file.stat().st_size} bytes, not {size}')


def _check_owner(path: pathlib.Path, theirs: Facts, ours: Facts) -> None:
  if 'config' in theirs and 'config' in ours:
    differing = schema.differences(theirs['config'], ours['config'])
    if differing:
      raise schema.UserError(
        f'checkpoint {path} is of another config, with'
        f' {"; ".join(differing[:4])}: choose another --workdir'
      )
  for name in sorted((theirs.keys() | ours.keys()) - {'config'}):
    if theirs.get(name) != ours.get(name):
      raise schema.UserError(
        f'checkpoint {path} is of another {name}, {theirs.get(name)}, not'
        f' {ours.get(name)}: choose another --workdir'
      )
