"""Partition specs of all arrays on a mesh of devices, in one place.

A mesh has three axes. `data` and `fsdp` split the batch over replicas of the
model; `fsdp` also splits dense weights; `memory` splits the value table and
sub-keys over devices that see the same tokens.

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
  """Makes a mesh of the first data * fsdp * memory devices.

  Args:
    data: Replicas of the model.
    fsdp: Replicas that share one copy of the dense weights.
    memory: Devices that share one copy of the value table.
    devices: None for `jax.devices()`.
    axis_type: Type of all three axes. The functions of `sharded` work under
      Auto and Explicit, whole models under Auto.

  Returns:
    The mesh.

  Raises:
    ValueError: If an axis is below 1, or the size of the mesh does not divide
      the number of devices.

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
  num_devices = math.prod(sizes)
  if len(devices) % num_devices:
    raise ValueError(
      f'a mesh of data = {data} x fsdp = {fsdp} x memory = {memory} takes'
      f' {num_devices} devices, which does not divide the {len(devices)} there'
      ' are.'
    )
  # `jax.make_mesh` splits a torus's axis on v5e only.
  grid = mesh_utils.create_device_mesh(
    sizes, devices[:num_devices], allow_split_physical_axes=True
  )
  return jax.sharding.Mesh(grid, AXES, axis_types=(axis_type,) * 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """A mesh, and the spec of every kind of array on it; see `make_layout`.

  Attributes:
    mesh: The devices.
    values_NxV: The value table, and optimizer state of its shape.
    subkeys_Hx2xnxC: Sub-keys.
    slots_N: Access counts, document frequencies, scores.
    act_BxLxD: Activations, and other arrays with a leading batch.
    rows_txV: Gradients of selected rows.
  """

  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
  values_NxV: PartitionSpec
  subkeys_Hx2xnxC: PartitionSpec
  slots_N: PartitionSpec
  act_BxLxD: PartitionSpec
  rows_txV: PartitionSpec

  def axes(self, entry: str | Axes | None) -> Axes:
    """Returns the mesh axes in an entry of a spec that are larger than 1."""
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
    """The axes that split the leading batch of an array of this shape.

    Empty if they do not divide it: every replica then holds all of it.
    """
    axes = self.axes(self.act_BxLxD[0])
    return axes if shape and not shape[0] % self.size(axes) else ()

  def batch(self, lead: Sequence[int], *last: Axes | None) -> PartitionSpec:
    """Spec of an array with leading dims `lead`, then dims split by `last`."""
    entries: list[Axes | None] = [None] * len(lead)
    if lead:
      entries[0] = self.batch_axes(lead) or None
    return PartitionSpec(*entries, *(axes or None for axes in last))

  def size(self, axes: Axes) -> int:
    """The number of parts that these axes make."""
    return math.prod(self.mesh.shape[axis] for axis in axes)

  def dense(self, shape: Sequence[int]) -> PartitionSpec:
    """Spec of dense weights: `fsdp` splits the first dim that it divides."""
    parts = self.mesh.shape['fsdp']
    for dim, size in enumerate(shape):
      if parts > 1 and not size % parts:
        return PartitionSpec(*(None,) * dim, 'fsdp')
    return PartitionSpec()

  def check(self, num_slots: int, value_dim: int, num_heads: int) -> None:
    """Raises a ValueError unless `memory` divides the dims that it splits.

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
    """Returns the sharding of a spec on this mesh."""
    return jax.sharding.NamedSharding(self.mesh, spec)


def make_layout(
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh,
  split: Split = 'rows',
  subkeys: Subkeys = 'subkeys',
) -> Layout:
  """Makes a layout by what the `memory` axis splits.

  Args:
    mesh: From `make_mesh`, or another with the axes `AXES`.
    split: 'rows' gives each device some slots of the table: a read sums [B, L,
      V] over devices, and the device that has a slot counts, scores and updates
      it. 'dims' gives each device a part of every row: no values are sent, all
      devices rank all slots, and the read stays split.
    subkeys: 'subkeys' gives each device some sub-keys of every head and half,
      and exchanges the best of them; 'heads' gives each device some heads, and
      exchanges the slots found.

  Returns:
    The layout.

  Raises:
    ValueError: If the mesh has other axes.

  Example:
    >>> layout = make_layout(make_mesh(), split='dims')
    >>> tuple(layout.values_NxV)
    (None, 'memory')
  """
  if missing := [name for name in AXES if name not in mesh.axis_names]:
    raise ValueError(
      f'the mesh has the axes {", ".join(mesh.axis_names)}, not'
      f' {" and ".join(missing)}: make it by make_mesh, or give it'
      f' {", ".join(AXES)}, of size 1 where nothing is split.'
    )
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
  """Constrains an array of a jitted model to be split by batch.

  Returns the array unchanged if `layout` is None.
  """
  if layout is None:
    return array
  spec = layout.batch(array.shape)
  return jax.lax.with_sharding_constraint(array, layout.sharding(spec))


def constrain_replicated(layout: Layout | None, array: jax.Array) -> jax.Array:
  """Constrains an array of a jitted model to be whole on every device.

  Returns the array unchanged if `layout` is None.
  """
  if layout is None:
    return array
  return jax.lax.with_sharding_constraint(
    array, layout.sharding(PartitionSpec())
  )


def to_numpy(array: jax.Array) -> np.ndarray:
  """Copies an array to the host, also from devices of other processes.

  Every process must call it with the same array.
  """
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)


def map_parts(
  layout: Layout,
  function: Callable[..., Any],
  in_specs: tuple[Any, ...],
  out_specs: Any,
) -> Callable[..., Any]:
  """`jax.shard_map`, resharding the arguments where the mesh is Explicit.

  Not differentiable: callers define their gradients. `function` may call the
  functions below.
  """
  # Unchecked, because loops in `function` start from zeros, the same on all
  # devices, and end with values that differ.
  mapped = jax.shard_map(
    function,
    mesh=layout.mesh,
    in_specs=in_specs,
    out_specs=out_specs,
    check_vma=False,
  )

  def apply(*arrays):
    if jax.sharding.AxisType.Explicit in layout.mesh.axis_types:
      shardings = jax.tree.map(layout.sharding, in_specs)
      arrays = jax.tree.map(jax.sharding.reshard, arrays, shardings)
    return mapped(*arrays)

  return apply


def local_ids(
  ids: jax.Array, axes: Axes, size: int
) -> tuple[jax.Array, jax.Array]:
  """Within `map_parts`: converts ids split over `axes` to ids of this part.

  Returns local ids, which are outside [0, size) if not in this part, and
  whether they are in it.
  """
  if axes:
    ids = ids - jax.lax.axis_index(axes) * size
  return ids, (ids >= 0) & (ids < size)


def psum(array: jax.Array, axes: Axes) -> jax.Array:
  """Within `map_parts`: `jax.lax.psum`, for any number of axes."""
  return jax.lax.psum(array, axes) if axes else array


def all_gather(array: jax.Array, axes: Axes, dim: int) -> jax.Array:
  """Within `map_parts`: tiled `jax.lax.all_gather`, for any number of axes."""
  if not axes:
    return array
  return jax.lax.all_gather(array, axes, axis=dim, tiled=True)
