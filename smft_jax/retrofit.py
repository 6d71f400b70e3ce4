"""Memory layers for a model that was trained without, whoever wrote it.

In any NNX model the feed-forward blocks named by their paths get a memory
layer, beside them or in their place:

  beside:   y = ffn(x) + gate * memory(x)
  replace:  y = memory(x)

Beside is what to begin with: the gate, a number per channel, is zero at first,
so that every output is what it was before, and the memory comes in as far as
it is of use (PAPER, section 5). Why a gate and no zero output projection: the
layer's parameters stay those of one that is pretrained in place, and the first
step then moves D numbers, all others from the second step on. Then comes
healing: everything but the memory frozen, `wrt=memory.MemoryParam`.
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
  """A feed-forward block and a gated memory layer that reads the same input.

  Attributes:
    ffn: The block, as it was; its parameters are found below 'ffn' now.
    memory: The layer, its output gate zero at first.
  """

  def __init__(
    self, ffn: nnx.Module, config: memory.MemoryConfig, *, rngs: nnx.Rngs
  ):
    self.ffn = ffn
    self.memory = memory.ProductKeyMemory(config, rngs=rngs, output_gate=True)

  def __call__(self, x: jax.Array, *args, **kwargs) -> jax.Array:
    """[..., D] -> [..., D]; what else is given goes to the block alone."""
    return self.ffn(x, *args, **kwargs) + self.memory(x)


def add_memory(
  model: Model,
  config: memory.MemoryConfig,
  paths: Sequence[str],
  *,
  placement: Literal['beside', 'replace'] = 'beside',
  rngs: nnx.Rngs,
) -> Model:
  """The model with memory layers at some of its feed-forward blocks.

  Every layer has a value table of its own. Load weights first: beside a memory
  layer a block's parameters have 'ffn' in their paths.

  Args:
    model: Calls its feed-forward blocks with x [..., D], and takes [..., D]
      back. It stays as it is; its parameters are shared with the result.
    config: Sizes of each layer. Its `dtype` is to be the model's.
    paths: Of modules, such as 'blocks/2/mlp'. A block among those stacked for
      `nnx.scan` has no path of its own.
    placement: 'beside' leaves all outputs as they are, bit for bit; 'replace'
      drops the block, for a model that is trained further.
    rngs: Source of the initial parameters, drawn in the order of the paths.

  Returns:
    The model with memory.

  Raises:
    ValueError: If no path is given, or one is no module's, is given twice, lies
      in another one, or has memory already; or for another placement.

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
  """Raises a ValueError for paths that cannot all have memory."""
  if isinstance(paths, str) or not paths:
    raise ValueError(f"paths must be a list such as ['mlp'], got {paths!r}")
  for i, name in enumerate(paths):
    if name not in modules:
      near = difflib.get_close_matches(name, modules, 3, cutoff=0)
      raise ValueError(f'no module at {name!r}; there is {", ".join(near)}')
    for other in paths[:i]:
      if name == other:
        raise ValueError(f'{name!r} is given twice')
      if _is_in(name, other) or _is_in(other, name):
        raise ValueError(f'{name!r} and {other!r} lie in one another')
    kinds = (MemoryBeside, memory.ProductKeyMemory)
    for path, (_, module) in modules.items():
      nested = _is_in(path, name) or _is_in(name, path)
      if nested and isinstance(module, kinds):
        raise ValueError(f'{name!r} has memory already, at {path!r}')


def _is_in(path: str, other: str) -> bool:
  """Whether a path is another one or leads below it."""
  return f'{path}/'.startswith(f'{other}/')
