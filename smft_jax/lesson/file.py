"""Files of lessons: safetensors, checked when they are read.

Tensors `slots` int32 [M], `old` and `new` [M, V]; in the metadata `format`,
`table`, `num_slots`, `base`, `runs` (JSON) and `digest`, a SHA-256 of all else.
Reading one never runs code.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
import os
import pathlib
import uuid

import numpy as np
import safetensors
import safetensors.numpy

from smft_jax.lesson import table as lesson_lib

# Raise it when an older program would misread what this one writes.
FORMAT = '1'

_TENSORS = ('slots', 'old', 'new')
_METADATA = ('format', 'table', 'num_slots', 'base', 'runs', 'digest')


def write(path: str | os.PathLike[str], lesson: lesson_lib.Lesson) -> None:
  """Writes a lesson's file, so that it is there whole or as it was before."""
  path = pathlib.Path(path)
  facts, tensors = _parts(lesson)
  facts['digest'] = _digest(facts, tensors)
  unfinished = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}')
  try:
    with open(unfinished, 'wb') as file:
      file.write(safetensors.numpy.save(tensors, facts))
      file.flush()
      os.fsync(file.fileno())
    os.replace(unfinished, path)
  finally:
    unfinished.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> lesson_lib.Lesson:
  """Reads a lesson's file.

  Raises:
    ValueError: If it is damaged, is no lesson, or of a newer format.
    OSError: If it cannot be read.
  """
  with open(path, 'rb'):
    pass  # says what is wrong better than the library does
  try:
    with safetensors.safe_open(path, 'np') as file:
      facts = file.metadata() or {}
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path} is damaged or no lesson: {error}') from None
  if facts.get('format', FORMAT) != FORMAT:
    raise ValueError(
      f'lesson {path} is of format {facts["format"]}, and this version of'
      f' smft_jax reads {FORMAT}: update it'
    )
  for what, names, found in (
    ('tensor', _TENSORS, tensors),
    ('metadata', _METADATA, facts),
  ):
    for name in names:
      if name not in found:
        raise ValueError(
          f'{path} is damaged or no lesson: it lacks {what} {name!r}'
        )
  if facts.pop('digest') != _digest(facts, tensors):
    raise ValueError(
      f'lesson {path} is damaged: its bytes are not those written'
    )
  try:
    return lesson_lib.Lesson(
      **{name: tensors[name] for name in _TENSORS},
      num_slots=int(facts['num_slots']),
      table=facts['table'],
      base=facts['base'],
      runs=tuple(json.loads(facts['runs'])),
    )
  except ValueError as error:
    raise ValueError(f'lesson {path} is damaged: {error}') from None


def digest(lesson: lesson_lib.Lesson) -> str:
  """A SHA-256 of all that the file of a lesson holds; tells two apart."""
  return _digest(*_parts(lesson))


def _parts(
  lesson: lesson_lib.Lesson,
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
  """Metadata, but for the digest, and tensors."""
  facts = {
    'format': FORMAT,
    'table': lesson.table,
    'num_slots': str(lesson.num_slots),
    'base': lesson.base,
    'runs': json.dumps(lesson.runs),
  }
  return facts, {
    name: np.ascontiguousarray(getattr(lesson, name)) for name in _TENSORS
  }


def _digest(facts: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
  found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
  for name, tensor in sorted(tensors.items()):
    found.update(f'{name} {tensor.dtype} {tensor.shape}'.encode())
    found.update(tensor.tobytes())
  return found.hexdigest()
