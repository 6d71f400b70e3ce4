"""Reads and writes lesson files in the safetensors format.

Tensors: `slots`, `old_lessons` and `new_lessons` int32 [M], `old` and `new` [M,
V]. Metadata: `format`, `table`, `num_slots`, `base`, `runs` (JSON) and
`digest`, a SHA-256 of everything else. Reading a file never runs code.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
import os

import numpy as np
import safetensors
import safetensors.numpy

from smft_jax import schema
from smft_jax.lesson import table as lesson_lib
from smft_jax.store import atomic
from smft_jax.store import paths

# Raise it when an older program would misread what this one writes.
FORMAT = '1'

_TENSORS = ('slots', 'old', 'new', 'old_lessons', 'new_lessons')
_METADATA = ('format', 'table', 'num_slots', 'base', 'runs', 'digest')


def write(path: str | os.PathLike[str], lesson: lesson_lib.Lesson) -> None:
  """Writes a lesson file atomically."""
  metadata, tensors = _parts(lesson)
  metadata['digest'] = _digest(metadata, tensors)
  atomic.write_bytes(
    paths.expand(path), safetensors.numpy.save(tensors, metadata)
  )


def read(path: str | os.PathLike[str]) -> lesson_lib.Lesson:
  """Reads a lesson file.

  Raises:
    UserError: If there is no such file.
    ValueError: If it is damaged, not a lesson, or of a newer format.
    OSError: If it cannot be read.
  """
  path = paths.expand(path)
  if not path.exists():
    others = [other.name for other in path.parent.glob('*.safetensors')]
    close = schema.nearest(path.name, others)
    hint = f'; did you mean {path.with_name(close)}?' if close else ''
    raise schema.UserError(f'there is no lesson {path}{hint}')
  with open(path, 'rb'):
    pass  # raises a clearer error than safetensors does
  try:
    with safetensors.safe_open(path, 'np') as file:
      metadata = file.metadata() or {}
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path} is damaged or not a lesson: {error}') from None
  # Weights have a format, too: a name such as 'pt'.
  if metadata.get('format', FORMAT) != FORMAT and metadata['format'].isdigit():
    raise ValueError(
      f'lesson {path} has format {metadata["format"]}, but this version of'
      f' smft_jax reads format {FORMAT}: update smft_jax'
    )
  lacking = [f'tensor {name!r}' for name in _TENSORS if name not in tensors]
  lacking += [f'metadata {key!r}' for key in _METADATA if key not in metadata]
  if lacking:
    raise ValueError(
      f'{path} is damaged or not a lesson: it lacks {lacking[0]}'
    )
  if metadata.pop('digest') != _digest(metadata, tensors):
    raise ValueError(
      f'lesson {path} is damaged: its content does not match its digest'
    )
  try:
    runs = json.loads(metadata['runs'])
    if not isinstance(runs, list) or not all(isinstance(r, dict) for r in runs):
      raise ValueError('runs is no list of objects')
    return lesson_lib.Lesson(
      **{name: tensors[name] for name in _TENSORS},
      num_slots=int(metadata['num_slots']),
      table=metadata['table'],
      base=metadata['base'],
      runs=tuple(runs),
    )
  except ValueError as error:
    raise ValueError(f'lesson {path} is damaged: {error}') from None


def digest(lesson: lesson_lib.Lesson) -> str:
  """Returns a SHA-256 of everything in the lesson's file."""
  return _digest(*_parts(lesson))


def _parts(
  lesson: lesson_lib.Lesson,
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
  """Returns the metadata, without the digest, and the tensors."""
  metadata = {
    'format': FORMAT,
    'table': lesson.table,
    'num_slots': str(lesson.num_slots),
    'base': lesson.base,
    'runs': json.dumps(lesson.runs),
  }
  return metadata, {
    name: np.ascontiguousarray(getattr(lesson, name)) for name in _TENSORS
  }


def _digest(
  metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray]
) -> str:
  found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
  for name, tensor in sorted(tensors.items()):
    found.update(f'{name} {tensor.dtype} {tensor.shape}'.encode())
    found.update(tensor.tobytes())
  return found.hexdigest()
