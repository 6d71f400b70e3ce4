"""Replaces a model's projections, chosen by path.

Shared by the methods that add parameters to a frozen model: `lora`, `adapter`
and `experts`. Memory layers have no `layers.Projection`, so they never match.
"""

from __future__ import annotations

from collections.abc import Callable
import difflib
import re
from typing import TypeVar

from flax import nnx

from smft_jax.models import layers

Model = TypeVar('Model', bound=nnx.Module)

EVERY = ''  # matches all paths


class Extended(layers.Projection):
  """A projection for subclasses to add to; `weight` keeps its path.

  Attributes:
    weight: The original projection's weight, [*in_shape, *out_shape].
    num_in: Number of input axes.
  """

  def __init__(self, projection: layers.Projection):
    self.weight = projection.weight
    self.num_in = projection.num_in


def check_pattern(pattern: str) -> None:
  """Raises a ValueError unless the pattern is a regular expression."""
  try:
    re.compile(pattern)
  except re.error as error:
    raise ValueError(
      f'pattern {pattern!r} is not a regular expression: {error}'
    ) from None


def replace_projections(
  model: Model,
  pattern: str,
  substitute: Callable[[layers.Projection], nnx.Module],
) -> Model:
  """Replaces the projections whose path matches a pattern.

  Args:
    model: A model with `layers.Projection`s; not changed. The result shares its
      parameters, under the same paths.
    pattern: Regular expression, searched for in paths such as
      'blocks/0/attention/query'; `EVERY` matches all.
    substitute: Builds the replacement of a projection; called in a fixed order.

  Returns:
    The changed model.

  Raises:
    ValueError: If the pattern is not a regular expression, matches nothing, or
      matches a projection that was already replaced.

  Example:
    >>> config = layers.TransformerConfig(
    ...     vocab_size=11, num_layers=1, model_dim=8, num_heads=2,
    ...     num_kv_heads=1, head_dim=4, ffn_dim=16)
    >>> ffn = layers.FeedForward(config, rngs=nnx.Rngs(0))
    >>> changed = replace_projections(ffn, '^(up|gate)$', Extended)
    >>> [type(m).__name__ for m in (changed.up, changed.down, ffn.up)]
    ['Extended', 'Projection', 'Projection']
  """
  check_pattern(pattern)
  model = nnx.clone(model)
  found = {
    '/'.join(map(str, (*path, name))): (parent, name, child)
    for path, parent in list(nnx.iter_modules(model))
    for name, child in vars(parent).items()
    if isinstance(child, layers.Projection)
  }
  if not found:
    raise ValueError(f'{type(model).__name__} has no layers.Projection')
  matching = [path for path in found if re.search(pattern, path)]
  if not matching:
    near = ', '.join(difflib.get_close_matches(pattern, found, 3, cutoff=0))
    more = f' and {len(found) - 3} more' if len(found) > 3 else ''
    raise ValueError(
      f'pattern {pattern!r} matches no projection; there are {near}{more}'
    )
  for path in matching:
    parent, name, child = found[path]
    if isinstance(child, Extended):
      raise ValueError(f'{path} was already replaced by {type(child).__name__}')
    setattr(parent, name, substitute(child))
  return model
