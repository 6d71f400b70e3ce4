"""Counts the operations of a program's matrix products, for any backend.

Counts the traced program, before compilation: two operations for each
multiply-add of the forward and backward passes and the update. Ignores
elementwise work, sorting, gathers and scatters. The compiler's own count
depends on the backend, and on a CPU leaves out library calls.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.extend import core


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> int:
  """Counts the operations of the matrix products in one call of a function.

  Counts every turn of a loop of known length, one turn of other loops, and the
  costliest branch of a conditional.

  Args:
    function: A function that `jax.jit` takes; it is traced, not run.
    *arguments: Its arguments, arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    Two for every multiply-add.

  Example:
    >>> import jax.numpy as jnp
    >>> matmul_flops(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
    60
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr, _num_parts)


def matmul_flops_of_device(
  replicas: int, function: Callable[..., Any], *arguments: Any
) -> float:
  """`matmul_flops` for one device of a mesh.

  Assumes that work on whole arrays is split evenly over the replicas; work
  mapped over devices (`jax.shard_map`) counts once.
  """
  jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
  return _count(jaxpr, lambda equation: replicas) / replicas


def _num_parts(equation: Any) -> int:
  """Returns the number of different parts that a `shard_map` computes."""
  axes = {
    axis
    for spec in equation.params['in_specs']
    for entry in spec
    for axis in (entry if isinstance(entry, tuple) else (entry,))
    if axis is not None
  }
  sizes = equation.params['mesh'].shape
  return math.prod(sizes[axis] for axis in axes)


def _count(jaxpr: core.Jaxpr, repeats: Callable[[Any], int]) -> int:
  """Counts a program's operations, a `shard_map`'s `repeats` times."""
  return sum(_count_equation(e, repeats) for e in jaxpr.eqns)


def _count_equation(equation: Any, repeats: Callable[[Any], int]) -> int:
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    outputs = math.prod(equation.outvars[0].aval.shape)
    return 2 * outputs * math.prod(shape[axis] for axis in contracted)
  # Inner programs such as a loop's body; closed ones hold theirs in `jaxpr`.
  leaves = jax.tree.leaves(
    equation.params, is_leaf=lambda leaf: hasattr(leaf, 'eqns')
  )
  inner = [
    _count(leaf if isinstance(leaf, core.Jaxpr) else leaf.jaxpr, repeats)
    for leaf in leaves
    if hasattr(leaf, 'eqns')
  ]
  if equation.primitive.name == 'cond':
    return max(inner)
  if equation.primitive.name == 'shard_map':
    return repeats(equation) * sum(inner)
  return equation.params.get('length', 1) * sum(inner)
