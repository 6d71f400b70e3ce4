"""Opens, checks and reads the safetensors files of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import json
import pathlib
import re
from typing import Any

import jax
import numpy as np
import safetensors

from smft_jax import schema
from smft_jax.hf import tensors as hf_tensors
from smft_jax.store import paths

INDEX = f'{hf_tensors.MODEL}.index.json'

DTYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}

# Old checkpoints hold rotary frequencies, which follow from config.json.
_FREQUENCIES = (
  r'model\.(layers\.\d+\.self_attn\.)?rotary_emb\.'
  r'((original_)?inv_freq|cos_cached|sin_cached)'
)
_EMBEDDING, _UNEMBEDDING = 'model.embed_tokens.weight', 'lm_head.weight'
_FFN = r'(model\.layers\.\d+)\.mlp\.(?:gate|up|down)_proj\.weight'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
  """A tensor in an open file, not read yet."""

  file: pathlib.Path
  name: str  # in the file
  slice: Any
  shape: tuple[int, ...]
  dtype: str  # by its safetensors name


@contextlib.contextmanager
def opened(file: pathlib.Path) -> Iterator[Any]:
  """Opens a safetensors file.

  Raises:
    UserError: If it is missing, damaged or of another format.
  """
  try:
    paths.check_fetched(file)
    handle = safetensors.safe_open(file, framework='np')
  except FileNotFoundError:
    raise schema.UserError(f'{file} is missing') from None
  except (safetensors.SafetensorError, OSError) as error:
    raise schema.UserError(
      f'{file} is truncated or damaged: {schema.one_line(error)}; expected a'
      ' complete safetensors file'
    ) from None
  with handle:
    yield handle


def find(
  folder: pathlib.Path, stack: contextlib.ExitStack
) -> dict[str, Stored]:
  """Finds all tensors of a checkpoint by name; `stack` keeps files open.

  Raises:
    UserError: If a file is missing or damaged, or lacks a tensor of the index.
  """
  found: dict[str, Stored] = {}
  index = _index(folder)
  files = {hf_tensors.MODEL} if index is None else set(index.values())
  for name in sorted(files):
    file = folder / name
    handle = stack.enter_context(opened(file))
    # A `safe_open` cannot be iterated over.
    for tensor in handle.keys():  # noqa: SIM118
      if tensor in found:
        raise schema.UserError(
          f'{file}: {tensor} is also in {found[tensor].file.name}; expected'
          ' once'
        )
      part = handle.get_slice(tensor)
      found[tensor] = Stored(
        file=file,
        name=tensor,
        slice=part,
        shape=tuple(part.get_shape()),
        dtype=part.get_dtype(),
      )
  for tensor, name in (index or {}).items():
    if tensor not in found or found[tensor].file.name != name:
      raise schema.UserError(
        f'{folder / name}: {tensor} is missing, but is in {INDEX}'
      )
  return found


def by_standard_names(
  found: Mapping[str, Stored], wanted: Mapping[str, hf_tensors.Place]
) -> dict[str, Stored]:
  """Renames the tensors of a folder that was saved in another way.

  A decoder saved without its head has no 'model.' in its names, and a tied
  table saved by safetensors itself may have the head's name.

  Args:
    found: The tensors by their names in the files.
    wanted: The places of the model's Variables, by the standard names.
  """
  if _EMBEDDING not in found and 'embed_tokens.weight' in found:
    found = {
      f'model.{name}' if _is_bare(name) else name: stored
      for name, stored in found.items()
    }
  if _UNEMBEDDING not in wanted and _EMBEDDING not in found:
    found = {
      _EMBEDDING if name == _UNEMBEDDING else name: stored
      for name, stored in found.items()
    }
  return dict(found)


def _is_bare(name: str) -> bool:
  """Whether it is the name of a decoder's tensor without 'model.'."""
  return name.startswith(('layers.', 'embed_tokens.', 'norm.', 'rotary_emb.'))


def check(
  path: pathlib.Path,
  found: Mapping[str, Stored],
  wanted: Mapping[str, hf_tensors.Place],
  name_of: Callable[[str], str] = str,
) -> None:
  """Checks the tensors found against the places of the model's Variables.

  Args:
    path: The checkpoint's folder, or its only file.
    found: The tensors, by their names in a Hugging Face checkpoint.
    wanted: The places, by the same names.
    name_of: Returns a tensor's name in the file.

  Raises:
    UserError: For the first tensor that is missing, wrong or unknown.
  """
  for name, place in wanted.items():
    if name not in found:
      file = path
      if path.is_dir():
        file = path / place.file
        file = file if file.exists() else path / INDEX
      # A compiled or wrapped model is saved with a prefix.
      longer = [n for n in found if n.endswith(f'.{name}')]
      raise schema.UserError(
        f'{file}: {name_of(name)} is missing; expected a tensor of shape'
        f' {place.stored_shape}'
        + ''.join(f', but there is {n}' for n in longer[:1])
      )
    stored = found[name]
    if stored.shape != place.stored_shape:
      raise schema.UserError(
        f'{stored.file}: {stored.name} has shape {stored.shape}; expected'
        f' {place.stored_shape}'
      )
    if stored.dtype not in DTYPES and not name.endswith('lessons'):
      raise schema.UserError(
        f'{stored.file}: {stored.name} is {stored.dtype}; expected'
        f' {" or ".join(DTYPES)}'
      )
  for name in sorted(found.keys() - wanted.keys()):
    if not _is_redundant(name, found, wanted):
      settings = 'config.json' if path.is_dir() else 'its metadata'
      if name == _UNEMBEDDING:
        raise schema.UserError(
          f'{found[name].file}: {found[name].name} differs from'
          f' {name_of(_EMBEDDING)}, but the two are one by {settings}, which'
          ' lacks tie_word_embeddings = false'
        )
      raise schema.UserError(
        f'{found[name].file}: {found[name].name} is not in the model that'
        f' {settings} describes'
      )


def _is_redundant(
  name: str, found: Mapping[str, Stored], wanted: Mapping[str, hf_tensors.Place]
) -> bool:
  """Whether the model needs nothing of a tensor that it lacks."""
  if re.fullmatch(_FREQUENCIES, name):
    return True
  ffn = re.fullmatch(_FFN, name)
  if ffn:  # a memory layer replaces the block's FFN
    return f'{ffn[1]}.input_layernorm.weight' in wanted
  if name != _UNEMBEDDING:
    return False
  table = found[_EMBEDDING]  # of which it may be a copy
  return (
    found[name].dtype == table.dtype
    and found[name].shape == table.shape
    and np.array_equal(found[name].slice[:], table.slice[:])
  )


def load(
  stored: Stored,
  place: hf_tensors.Place,
  like: jax.Array | jax.ShapeDtypeStruct,
) -> jax.Array:
  """Reads a Variable like `like`, for each device only its part.

  Raises:
    UserError: A number in it is not finite.
  """
  parts: dict[str, np.ndarray] = {}

  def part(index):
    # Replicas ask for the same part.
    if str(index) not in parts:
      read = place.read(stored.slice, index)
      if not np.all(np.isfinite(read)):
        raise schema.UserError(
          f'{stored.file}: {stored.name} has a number that is not finite: the'
          ' checkpoint is damaged'
        )
      with np.errstate(over='ignore'):
        cast = read.astype(like.dtype)
      if not np.all(np.isfinite(cast)):
        raise schema.UserError(
          f'{stored.file}: {stored.name} has a number that {like.dtype} cannot'
          ' hold'
        )
      parts[str(index)] = np.ascontiguousarray(cast)
    return parts[str(index)]

  target = like.sharding
  if target is None:
    target = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.make_array_from_callback(like.shape, target, part)


def _index(folder: pathlib.Path) -> dict[str, str] | None:
  """Returns each tensor's file; None if one file has all tensors."""
  file = folder / INDEX
  if (folder / hf_tensors.MODEL).exists():
    return None
  if not file.exists():
    raise schema.UserError(
      f'{folder} has neither {hf_tensors.MODEL} nor {INDEX}; other formats are'
      ' not supported'
    )
  try:
    weight_map = json.loads(file.read_text(encoding='utf-8'))['weight_map']
    names = set(weight_map.values())
    is_plain = all(pathlib.PurePath(n).name == n for n in names)
  except (ValueError, KeyError, TypeError, AttributeError):
    names, is_plain = set(), False
  if not names or not is_plain:
    raise schema.UserError(
      f'{file} is damaged; expected a weight_map from tensors to files in the'
      ' same folder'
    )
  return weight_map
