"""Adds memory layers to any NNX model that was trained without.

A memory layer is added to, or replaces, each feed-forward block named by its
path:

  beside:   y = ffn(x) + gate * memory(x)
  replace:  y = memory(x)

Start with 'beside': the gate, a number per channel, is zero at first, so
outputs do not change, and training opens it as far as memory helps
(arXiv:2510.15103, section 5). With a gate instead of a zero output projection,
the layer starts from the same parameters as a pretrained one; the first step
moves the gate only, later steps everything. Heal the model next: train
`wrt=memory.MemoryParam` and freeze all else.
"""

from __future__ import annotations

from collections.abc import Sequence
import difflib
from typing import Literal, TypeVar

from flax import nnx
import jax

from smft_jax import memory

Model = TypeVar('Model', bound=nnx.Module)


class MemoryBeside(nnx.Module):
  """A feed-forward block plus a gated memory layer with the same input.

  Attributes:
    ffn: The block, unchanged; its parameters are now below 'ffn'.
    memory: The layer, its output gate zero at first.
  """

  def __init__(
    self, ffn: nnx.Module, config: memory.MemoryConfig, *, rngs: nnx.Rngs
  ):
    self.ffn = ffn
    self.memory = memory.ProductKeyMemory(config, rngs=rngs, output_gate=True)

  def __call__(self, x: jax.Array, *args, **kwargs) -> jax.Array:
    """[..., D] -> [..., D]; passes other arguments to the block only."""
    return self.ffn(x, *args, **kwargs) + self.memory(x)


def add_memory(
  model: Model,
  config: memory.MemoryConfig,
  paths: Sequence[str],
  *,
  placement: Literal['beside', 'replace'] = 'beside',
  rngs: nnx.Rngs,
) -> Model:
  """Adds memory layers to some feed-forward blocks of a model.

  Every layer has its own value table. Load weights first: 'beside' adds 'ffn'
  to the paths of a block's parameters.

  Args:
    model: Calls its feed-forward blocks with x [..., D] and gets [..., D] back.
      It is not changed; the result shares its parameters.
    config: Sizes of each layer; `dtype` should be the model's.
    paths: Paths of modules, such as 'blocks/2/mlp'. Blocks stacked for
      `nnx.scan` have no path of their own.
    placement: 'beside' leaves all outputs unchanged, bit for bit; 'replace'
      drops the block, for a model that is trained further.
    rngs: Source of the initial parameters, drawn in the order of `paths`.

  Returns:
    A model with memory.

  Raises:
    ValueError: If `placement` is unknown, `paths` is empty, or a path is not
      that of a module, is repeated, is inside another path, or already has
      memory.

  Example:
    >>> import jax.numpy as jnp
    >>> class Block(nnx.Module):
    ...   def __init__(self, rngs):
    ...     self.mlp = nnx.Linear(8, 8, rngs=rngs)
    ...   def __call__(self, x):
    ...     return x + self.mlp(x)
    >>> config = memory.MemoryConfig(model_dim=8, num_slots=49, value_dim=6,
    ...                              num_heads=2, k=3, key_dim=4)
    >>> block, x = Block(nnx.Rngs(0)), jnp.ones((2, 8))
    >>> retrofitted = add_memory(block, config, ['mlp'], rngs=nnx.Rngs(1))
    >>> bool((retrofitted(x) == block(x)).all())
    True
    >>> sorted(nnx.state(retrofitted, memory.MemoryParam)['mlp']['memory'])[:3]
    ['gate', 'out', 'output_gate']
  """
  if placement not in ('beside', 'replace'):
    raise ValueError(
      f"placement must be 'beside' or 'replace', got {placement!r}"
    )
  model = nnx.merge(*nnx.split(model))
  modules = {
    '/'.join(map(str, path)): (path, module)
    for path, module in nnx.iter_modules(model)
    if path
  }
  _check(modules, paths)
  for name in paths:
    path, ffn = modules[name]
    layer: nnx.Module
    if placement == 'beside':
      layer = MemoryBeside(ffn, config, rngs=rngs)
    else:
      layer = memory.ProductKeyMemory(config, rngs=rngs)
    parent = modules['/'.join(map(str, path[:-1]))][1] if path[1:] else model
    if isinstance(parent, nnx.List):
      parent[int(str(path[-1]))] = layer
    else:
      setattr(parent, str(path[-1]), layer)
  return model


def _check(modules, paths: Sequence[str]) -> None:
  """Raises a ValueError unless memory can be added at all of the paths."""
  if isinstance(paths, str) or not paths:
    raise ValueError(f"paths must be a list such as ['mlp'], got {paths!r}")
  for i, name in enumerate(paths):
    if name not in modules:
      near = difflib.get_close_matches(name, modules, 3, cutoff=0)
      raise ValueError(f'no module at {name!r}; there is {", ".join(near)}')
    for other in paths[:i]:
      if name == other:
        raise ValueError(f'{name!r} is repeated')
      if _is_in(name, other) or _is_in(other, name):
        raise ValueError(f'one of {name!r} and {other!r} contains the other')
    kinds = (MemoryBeside, memory.ProductKeyMemory)
    for path, (_, module) in modules.items():
      nested = _is_in(path, name) or _is_in(name, path)
      if nested and isinstance(module, kinds):
        raise ValueError(f'{name!r} already has memory, at {path!r}')


def _is_in(path: str, other: str) -> bool:
  """Whether a path is `other` or below it."""
  return f'{path}/'.startswith(f'{other}/')
