"""Adds memory layers to any NNX model that was trained without.

There are two ways. `fit_memory` fits the keys to a background and leaves all
values zero: nothing is trained, the model is what it was, bit for bit, and the
table holds nothing but what it is taught. Take it for a model that is good as
it is.

`add_memory` adds a layer to, or in place of, each feed-forward block:

  beside:   y = ffn(x) + gate * memory(x)
  replace:  y = memory(x)

Take it to give a model capacity that is trained. Start with 'beside': the gate,
a number per channel, is zero at first, so outputs do not change, and training
opens it as far as memory helps (arXiv:2510.15103, section 5). With a gate
instead of a zero output projection, the layer starts from the same parameters
as a pretrained one; the first step moves the gate only, later steps everything.
Heal the model next: train `wrt=memory.MemoryParam` and freeze all else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import difflib
import functools
from typing import Any, Literal, TypeVar

from flax import nnx
import jax
import jax.numpy as jnp

from smft_jax import key_fitting
from smft_jax import memory
from smft_jax.sharded import layout as layout_lib

Model = TypeVar('Model', bound=nnx.Module)

Arguments = tuple[Any, ...]
"""Positional arguments of a call of a model, such as (tokens, mask)."""

# Softmax scale of the cosines of a query's halves with the sub-keys.
_SHARPNESS = 8.0

# Inputs that k-means sees.
_SAMPLE = 2**16


class MemoryBeside(nnx.Module):
  """A feed-forward block plus a memory layer with the same input.

  Attributes:
    ffn: The block, unchanged; its parameters are now below 'ffn'.
    memory: The layer. If it is gated, its output gate is zero at first.
  """

  def __init__(
    self, ffn: nnx.Module, config: memory.MemoryConfig, *, rngs: nnx.Rngs
  ):
    self.ffn = ffn
    self.memory = memory.ProductKeyMemory(
      config, rngs=rngs, output_gate=config.gated
    )

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
    config: Sizes of each layer.
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
  model = nnx.clone(model)
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


def fit_memory(
  model: Model,
  config: memory.MemoryConfig,
  paths: Sequence[str],
  background: Iterable[Arguments],
  *,
  mask_of: Callable[[Arguments], Any] | None = None,
  seed: int = 0,
) -> Model:
  """Adds memory layers whose keys are fitted to a background.

  Their values are zero, so the model computes what it did, bit for bit; there
  is nothing to heal. Teach it next: train `wrt=memory.MemoryValue` on the slots
  that `ranking.tf_idf` finds.

  Args:
    model: As for `add_memory`.
    config: Sizes of each layer; not `gated`, with `qk_norm`, and value_dim that
      of the model. A `quorum` keeps chance hits from being read.
    paths: As for `add_memory`.
    background: General text: arguments of calls of the model, read once. Some
      50,000 tokens suffice for 512 sub-keys in a half.
    mask_of: arguments -> bool [...], True at the tokens to fit to; None takes
      all.
    seed: Seed of everything drawn.

  Returns:
    A model with memory.

  Raises:
    ValueError: As `add_memory` and `fit_keys` do.

  Example:
    >>> class Block(nnx.Module):
    ...   def __init__(self, rngs):
    ...     self.mlp = nnx.Linear(8, 8, rngs=rngs)
    ...   def __call__(self, x):
    ...     return x + self.mlp(x)
    >>> block = Block(nnx.Rngs(0))
    >>> config = memory.MemoryConfig(
    ...   model_dim=8, num_slots=49, value_dim=8, num_heads=2, k=3, key_dim=4,
    ...   gated=False, quorum=0.2)
    >>> background = [(jax.random.normal(jax.random.key(0), (30, 8)),)]
    >>> fitted = fit_memory(block, config, ['mlp'], background)
    >>> bool((fitted(*background[0]) == block(*background[0])).all())
    True
  """
  model = add_memory(model, config, paths, rngs=nnx.Rngs(seed))
  for _, layer in _layers(model):
    layer.values[...] = jnp.zeros_like(layer.values[...])
  return fit_keys(model, background, mask_of=mask_of, seed=seed)


def fit_keys(
  model: Model,
  background: Iterable[Arguments],
  *,
  mask_of: Callable[[Arguments], Any] | None = None,
  seed: int = 0,
) -> Model:
  """Fits the keys of a model's memory layers to a background.

  Args:
    model: A model with memory layers. It is not changed; the result shares its
      other parameters.
    background: As for `fit_memory`.
    mask_of: As for `fit_memory`.
    seed: As for `fit_memory`.

  Raises:
    ValueError: If there is no memory layer; one is gated, has no `qk_norm`, is
      never called or gets numbers that are not finite; or the background has
      fewer tokens than a half has sub-keys.
  """
  model = nnx.clone(model)
  found = _layers(model)
  if not found:
    raise ValueError('the model has no memory layer: add_memory adds one')
  for name, layer in found:
    if layer.config.gated or not layer.config.qk_norm:
      raise ValueError(
        f'{name}: keys are fitted for a memory with gated=False and'
        ' qk_norm=True; a gated one is trained'
      )
  graphdef, params = nnx.split(model)
  statistics = {
    name: key_fitting.InputStatistics(_SAMPLE, seed) for name, _ in found
  }
  is_empty = True
  for arguments in background:
    if not isinstance(arguments, (tuple, list)):
      raise ValueError(
        'background must give tuples of arguments, such as (tokens,), got a '
        f'{type(arguments).__name__}'
      )
    mask = None
    if mask_of is not None:
      mask = layout_lib.to_numpy(jnp.asarray(mask_of(arguments))).astype(bool)
    for name, arrays in _inputs(graphdef, params, *arguments).items():
      for rows in map(layout_lib.to_numpy, arrays):
        if mask is not None:
          rows = rows[mask]
        statistics[name].add(rows.reshape(-1, rows.shape[-1]))
        is_empty = False
  if is_empty:
    raise ValueError('the background is empty')
  for name, layer in found:
    one = statistics[name]
    if not one.sample.size:
      raise ValueError(f'{name}: the model never calls it on the background')
    config = layer.config
    keys = key_fitting.fit(
      one, config.num_heads, config.key_dim, config.subkeys_per_half, seed=seed
    )
    half = config.key_dim // 2
    # In `search`, cosines are scaled by query_scale * sqrt(half).
    scale = jnp.full(layer.query_scale.shape, _SHARPNESS * half**-0.5)
    _set(layer.query, keys.query)
    _set(layer.subkeys, keys.subkeys)
    _set(layer.query_scale, scale)
  return model


def _layers(model: nnx.Module) -> list[tuple[str, memory.ProductKeyMemory]]:
  """Returns the memory layers of a model by their paths."""
  found = [
    (path, module)
    for path, module in nnx.iter_modules(model)
    if isinstance(module, memory.ProductKeyMemory)
  ]
  return [('/'.join(map(str, path)), layer) for path, layer in sorted(found)]


@functools.partial(jax.jit, static_argnames='graphdef')
def _inputs(graphdef, params, *arguments):
  """Returns the inputs of each memory layer, one for each call, by path."""
  model = nnx.merge(graphdef, params)
  _, sown = nnx.capture(model, memory.MemoryInput)(*arguments)
  return {
    '/'.join(map(str, path[:-1])): jax.tree.leaves(inputs)
    for path, inputs in nnx.to_flat_state(sown)
  }


def _set(variable: nnx.Variable, value: Any) -> None:
  """Sets a Variable in its own dtype, on its own devices."""
  old = variable.get_value()
  new = jnp.asarray(value, old.dtype)
  variable.set_value(jax.device_put(new, old.sharding))


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
