"""Puts something in the place of a model's projections, chosen by path.

Methods that add parameters to a frozen model (`lora`, `adapter`, `experts`)
share this. What a memory layer multiplies by are bare parameters and no
`layers.Projection`s, so nothing here ever touches them.
"""

from __future__ import annotations

from collections.abc import Callable
import difflib
import re
from typing import TypeVar

from flax import nnx

from smft_jax.models import layers

Model = TypeVar('Model', bound=nnx.Module)

EVERY = ''  # the pattern that all paths match


class Extended(layers.Projection):
  """A projection for subclasses to add to; `weight` keeps its path.

  Attributes:
    weight: That of the projection it stands for, [*in_shape, *out_shape].
    num_in: How many of its axes are those of the input.
  """

  def __init__(self, projection: layers.Projection):
    self.weight = projection.weight
    self.num_in = projection.num_in


def check_pattern(pattern: str) -> None:
  """Checks that a pattern can be searched for.

  Raises:
    ValueError: If it is no regular expression.
  """
  try:
    re.compile(pattern)
  except re.error as error:
    raise ValueError(
      f'pattern {pattern!r} is no regular expression: {error}'
    ) from None


def replace_projections(
  model: Model,
  pattern: str,
  substitute: Callable[[layers.Projection], nnx.Module],
) -> Model:
  """The model with something else in the place of some of its projections.

  Args:
    model: Has `layers.Projection`s; it stays as it is. Its parameters are
      shared with the result, where they have the same paths.
    pattern: Regular expression, searched for in paths such as
      'blocks/0/attention/query'; `EVERY` for all projections.
    substitute: Makes what takes a projection's place. It is called in an order
      that is the same every time.

  Returns:
    The changed model.

  Raises:
    ValueError: If the pattern is no regular expression, matches nothing, or
      matches what has been replaced already.

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
  model = nnx.merge(*nnx.split(model))
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
      f'pattern {pattern!r} matches no projection; there is {near}{more}'
    )
  for path in matching:
    parent, name, child = found[path]
    if isinstance(child, Extended):
      raise ValueError(
        f'{path} has been replaced by {type(child).__name__} already'
      )
    setattr(parent, name, substitute(child))
  return model
