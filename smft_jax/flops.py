"""Counts the operations of a program's matrix products, whatever runs it.

The count is of what was written, before a compiler: products, two operations a
multiply-add, forward and backward passes, updates. Elementwise work, sorting,
gathers and scatters are not in it, so that it does not depend on the backend;
the compiler's own count does, and on a CPU it leaves out library calls.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.extend import core


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> int:
  """Operations of the matrix products in one call of a function.

  Loops of a known length count every turn. One of an unknown length counts a
  single turn, a choice its costliest branch.

  Args:
    function: What `jax.jit` takes, jitted or not; it is traced, not run.
    *arguments: Its arguments; arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    Two for every multiply-add.

  Example:
    >>> import jax.numpy as jnp
    >>> matmul_flops(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
    60
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr, _of_all_devices)


def matmul_flops_of_device(
  replicas: int, function: Callable[..., Any], *arguments: Any
) -> float:
  """`matmul_flops` of one device of a mesh.

  What is written for whole arrays is taken to be split evenly over replicas;
  what is mapped over devices (`jax.shard_map`) counts as each of them does it.

  Args:
    replicas: How many there are.
    function: As there.
    *arguments: As there.

  Returns:
    As there.
  """
  jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
  return _count(jaxpr, lambda equation: replicas) / replicas


def _of_all_devices(equation: Any) -> int:
  """How often devices do what is mapped; what they do alike, once."""
  named = {
    axis
    for spec in equation.params['in_specs']
    for entry in spec
    for axis in (entry if isinstance(entry, tuple) else (entry,))
    if axis is not None
  }
  sizes = equation.params['mesh'].shape
  return math.prod(sizes[axis] for axis in named)


def _count(jaxpr: core.Jaxpr, of_mapped: Callable[[Any], int]) -> int:
  """Operations of a program, one that is mapped as often as is said."""
  return sum(_count_equation(e, of_mapped) for e in jaxpr.eqns)


def _count_equation(equation: Any, of_mapped: Callable[[Any], int]) -> int:
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    outputs = math.prod(equation.outvars[0].aval.shape)
    return 2 * outputs * math.prod(shape[axis] for axis in contracted)
  # Programs inside, such as a loop's body: closed ones hold theirs in `jaxpr`.
  leaves = jax.tree.leaves(
    equation.params, is_leaf=lambda leaf: hasattr(leaf, 'eqns')
  )
  inner = [
    _count(leaf if isinstance(leaf, core.Jaxpr) else leaf.jaxpr, of_mapped)
    for leaf in leaves
    if hasattr(leaf, 'eqns')
  ]
  if equation.primitive.name == 'cond':
    return max(inner)
  if equation.primitive.name == 'shard_map':
    return of_mapped(equation) * sum(inner)
  return equation.params.get('length', 1) * sum(inner)
