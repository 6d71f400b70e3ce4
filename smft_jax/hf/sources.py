"""Finds the tensor of each Variable in a checkpoint, a folder or a GGUF."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import pathlib

from flax import nnx

from smft_jax.hf import files as hf_files
from smft_jax.hf import gguf as hf_gguf
from smft_jax.hf import gguf_tensors
from smft_jax.hf import memory_file
from smft_jax.hf import tensors as hf_tensors


def find(
  path: pathlib.Path, like: nnx.State, stack: contextlib.ExitStack
) -> dict[hf_tensors.Path, tuple[hf_files.Stored, hf_tensors.Place]]:
  """Finds all tensors, and checks them; none is read yet.

  Args:
    path: The folder or the file.
    like: Variables of a `Transformer`, or their shapes.
    stack: Keeps files open.

  Returns:
    Tensor and place of each Variable by its path; without those of a memory if
    the checkpoint has none.

  Raises:
    UserError: If a file is missing or damaged, or does not fit the model.
  """
  name_of: Callable[[str], str] = str
  if hf_gguf.is_gguf(path):
    found, name_of = gguf_tensors.find(path), gguf_tensors.name_of
  else:
    found = hf_files.find(path, stack)
  has_memory = memory_file.read(path) is not None
  places = {
    variable: place
    for variable, place in hf_tensors.places(like).items()
    if has_memory or place.file == hf_tensors.MODEL
  }
  wanted = {place.name: place for place in places.values()}
  found = hf_files.by_standard_names(found, wanted)
  hf_files.check(path, found, wanted, name_of)
  return {
    variable: (found[place.name], place) for variable, place in places.items()
  }
