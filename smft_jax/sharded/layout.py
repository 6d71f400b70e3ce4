"""Where arrays lie on a mesh of devices: the mesh, and one table of layouts.

A mesh has three axes. Replicas of the model take parts of a batch along `data`
and `fsdp`; dense weights are also split along `fsdp`; value table and sub-keys
are split along `memory`, whose devices see the same tokens.

Shape letters: B batch, L length, D model dim, N slots, V value dim, H heads, C
half a key, n sub-keys in a half, t selected slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any, Literal

import jax
from jax.experimental import mesh_utils
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec
import numpy as np

AXES = ('data', 'fsdp', 'memory')

Split = Literal['rows', 'dims']
Subkeys = Literal['subkeys', 'heads']

Axes = tuple[str, ...]

_BATCH = ('data', 'fsdp')


def make_mesh(
  data: int = 1,
  fsdp: int = 1,
  memory: int = 1,
  *,
  devices: Sequence[jax.Device] | None = None,
  axis_type: jax.sharding.AxisType = jax.sharding.AxisType.Auto,
) -> jax.sharding.Mesh:
  """Lays devices out in a mesh; a smaller one takes the first of them.

  Args:
    data: Replicas of the model.
    fsdp: Replicas that share one copy of the dense weights.
    memory: Devices that share one copy of the value table.
    devices: What to take from; None takes all there are.
    axis_type: Of all three axes. Under Auto and Explicit the functions of
      `sharded_search`, `sharded_lookup` and `sharded_ranking` work, under
      Auto whole models.

  Returns:
    The mesh.

  Raises:
    ValueError: If an axis is below 1, or the mesh does not divide the devices.

  Example:
    >>> make_mesh(data=5, memory=999)
    ... # doctest: +ELLIPSIS, +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ...
    ValueError: a mesh of data = 5 x fsdp = 1 x memory = 999 takes ...
  """
  sizes = data, fsdp, memory
  if min(sizes) < 1:
    raise ValueError(f'{AXES[sizes.index(min(sizes))]} must be at least 1.')
  devices = jax.devices() if devices is None else devices
  wanted = math.prod(sizes)
  if len(devices) % wanted:
    raise ValueError(
      f'a mesh of data = {data} x fsdp = {fsdp} x memory = {memory} takes'
      f' {wanted} devices, which does not divide the {len(devices)} there are.'
    )
  # `jax.make_mesh` lays an axis over a part of a torus's axis for v5e only.
  grid = mesh_utils.create_device_mesh(
    sizes, devices[:wanted], allow_split_physical_axes=True
  )
  return jax.sharding.Mesh(grid, AXES, axis_types=(axis_type,) * 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """A mesh, and how every kind of array lies on it; see `make_layout`.

  Attributes:
    mesh: The devices.
    values_NxV: The value table, and optimizer state of its shape.
    subkeys_Hx2xnxC: Sub-keys.
    slots_N: Access counts, document frequencies, scores.
    act_BxLxD: Activations, and all else that has a batch in front.
    rows_txV: Gradients of selected rows.
  """

  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
  values_NxV: PartitionSpec
  subkeys_Hx2xnxC: PartitionSpec
  slots_N: PartitionSpec
  act_BxLxD: PartitionSpec
  rows_txV: PartitionSpec

  def axes(self, entry: str | Axes | None) -> Axes:
    """The mesh axes of an entry of a spec that do split something."""
    names = () if entry is None else entry
    names = (names,) if isinstance(names, str) else names
    return tuple(name for name in names if self.mesh.shape[name] > 1)

  @property
  def row_axes(self) -> Axes:
    """The axes that split slots."""
    return self.axes(self.values_NxV[0])

  @property
  def dim_axes(self) -> Axes:
    """The axes that split value dims."""
    return self.axes(self.values_NxV[1])

  def batch_axes(self, shape: Sequence[int]) -> Axes:
    """The axes that split the first dim of an array with a batch in front.

    None do where they do not divide it: every replica then has all of it.
    """
    axes = self.axes(self.act_BxLxD[0])
    return axes if shape and not shape[0] % self.size(axes) else ()

  def batch(self, lead: Sequence[int], *last: Axes | None) -> PartitionSpec:
    """Spec of an array with these leading dims, and then dims split so."""
    entries: list[Axes | None] = [None] * len(lead)
    if lead:
      entries[0] = self.batch_axes(lead) or None
    return PartitionSpec(*entries, *(axes or None for axes in last))

  def size(self, axes: Axes) -> int:
    """How many parts these axes make."""
    return math.prod(self.mesh.shape[axis] for axis in axes)

  def dense(self, shape: Sequence[int]) -> PartitionSpec:
    """Dense weights: their first dim that `fsdp` divides is split by it."""
    parts = self.mesh.shape['fsdp']
    for dim, size in enumerate(shape):
      if parts > 1 and not size % parts:
        return PartitionSpec(*(None,) * dim, 'fsdp')
    return PartitionSpec()

  def check(self, num_slots: int, value_dim: int, num_heads: int) -> None:
    """Raises a one-line ValueError unless `memory` divides what it splits.

    Example:
      >>> mesh = jax.sharding.AbstractMesh((1, 1, 8), AXES)
      >>> make_layout(mesh).check(num_slots=49, value_dim=8, num_heads=2)
      Traceback (most recent call last):
      ...
      ValueError: mesh axis memory = 8 does not divide num_slots = 49.
    """
    rows, dims = self.values_NxV
    heads, _, keys, _ = self.subkeys_Hx2xnxC
    for name, size, entry in (
      ('num_slots', num_slots, rows),
      ('value_dim', value_dim, dims),
      ('num_heads', num_heads, heads),
      ('sqrt(num_slots)', math.isqrt(num_slots), keys),
    ):
      parts = self.size(self.axes(entry))
      if size % parts:
        raise ValueError(
          f'mesh axis memory = {parts} does not divide {name} = {size}.'
        )

  def sharding(self, spec: PartitionSpec) -> jax.sharding.NamedSharding:
    """A spec on this mesh."""
    return jax.sharding.NamedSharding(self.mesh, spec)


def make_layout(
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh,
  split: Split = 'rows',
  subkeys: Subkeys = 'subkeys',
) -> Layout:
  """Decides what the `memory` axis splits.

  Args:
    mesh: From `make_mesh`, or another with the axes `AXES`.
    split: 'rows' gives each device some slots of the table: a read sums [B, L,
      V] over devices, and a slot is counted, scored and updated where it lies.
      'dims' gives each a part of every row: no values travel and all devices
      rank all slots, but what was read stays split.
    subkeys: 'subkeys' gives each some sub-keys of every head and half, and
      exchanges the best of them; 'heads' some heads, and exchanges what these
      found.

  Returns:
    The layout.

  Example:
    >>> layout = make_layout(make_mesh(), split='dims')
    >>> tuple(layout.values_NxV)
    (None, 'memory')
  """
  rows, dims = ('memory', None) if split == 'rows' else (None, 'memory')
  heads, keys = (None, 'memory') if subkeys == 'subkeys' else ('memory', None)
  return Layout(
    mesh=mesh,
    values_NxV=PartitionSpec(rows, dims),
    subkeys_Hx2xnxC=PartitionSpec(heads, None, keys, None),
    slots_N=PartitionSpec(rows),
    act_BxLxD=PartitionSpec(_BATCH, None, None),
    rows_txV=PartitionSpec(None, dims),
  )


def constrain_batch(layout: Layout | None, array: jax.Array) -> jax.Array:
  """Has an array of a jitted model lie with its batch split; None: as it is."""
  if layout is None:
    return array
  spec = layout.batch(array.shape)
  return jax.lax.with_sharding_constraint(array, layout.sharding(spec))


def constrain_whole(layout: Layout | None, array: jax.Array) -> jax.Array:
  """Has every device have all of an array; None: as it is."""
  if layout is None:
    return array
  return jax.lax.with_sharding_constraint(
    array, layout.sharding(PartitionSpec())
  )


def to_numpy(array: jax.Array) -> np.ndarray:
  """All of an array, also of one that lies on devices of other processes.

  Every process must call it, on the same array.
  """
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)


def map_parts(
  layout: Layout,
  function: Callable[..., Any],
  in_specs: tuple[Any, ...],
  out_specs: Any,
  *arrays: Any,
) -> Any:
  """Applies a function to the parts of arrays, where they lie.

  Not to be differentiated: gradients are written out where there are any.

  Args:
    layout: The mesh.
    function: Of parts; it may call the functions below.
    in_specs: A tree of specs for each of `arrays`, which are moved to lie so.
    out_specs: Of its results.
    *arrays: Whole arrays.

  Returns:
    The whole arrays whose parts the function returned.
  """
  if jax.sharding.AxisType.Explicit in layout.mesh.axis_types:
    arrays = jax.tree.map(
      lambda array, spec: jax.sharding.reshard(array, layout.sharding(spec)),
      arrays,
      in_specs,
    )
  # Unchecked: loops of what is mapped begin with zeros, the same on all
  # devices, and end with what is not.
  return jax.shard_map(
    function,
    mesh=layout.mesh,
    in_specs=in_specs,
    out_specs=out_specs,
    check_vma=False,
  )(*arrays)


def own(ids: jax.Array, axes: Axes, size: int) -> tuple[jax.Array, jax.Array]:
  """Within `map_parts`: ids counted from this part's first, and which it has.

  Args:
    ids: Integers in [0, size * parts), or others.
    axes: What splits them.
    size: Ids of one part.

  Returns:
    Ids, out of [0, size) if not in this part, and booleans.
  """
  if axes:
    ids = ids - jax.lax.axis_index(axes) * size
  return ids, (ids >= 0) & (ids < size)


def add_up(array: jax.Array, axes: Axes) -> jax.Array:
  """Within `map_parts`: the sum over the devices along some axes."""
  return jax.lax.psum(array, axes) if axes else array


def gather(array: jax.Array, axes: Axes, dim: int) -> jax.Array:
  """Within `map_parts`: the arrays of all devices along some axes, joined."""
  if not axes:
    return array
  return jax.lax.all_gather(array, axes, axis=dim, tiled=True)
