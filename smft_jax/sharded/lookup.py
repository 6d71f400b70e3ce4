"""Reads and updates rows of a value table split over many devices.

Each function takes a `layout.Layout` and then the arguments of its namesake in
`lookup` or `optim`, with a leading batch. It takes and returns whole arrays,
and returns the same result, but computes on the devices that hold the parts.
Devices exchange what tokens read, or the selected rows. Replicas exchange the
gradient of a whole table only if it is differentiated.

Shape letters: B batch, L length (all dims between the first and the last), A
accesses of a token, N slots, V value dim, t selected slots, T tokens of a
device.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import optax

from smft_jax import ids
from smft_jax import lookup
from smft_jax import rowwise
from smft_jax.sharded import layout as layout_lib


def read_rows(
  layout: layout_lib.Layout,
  values: jax.Array,
  slot_ids: jax.Array,
  weights: jax.Array,
) -> jax.Array:
  """`lookup.read_rows` of a table on a mesh.

  With rows split, every device sums the rows that it has, and an all-reduce
  adds up the sums [B, L, V] in float32. With dims split nothing is sent, and
  the result is split too.
  """
  return _read(layout, *lookup.checked(values, slot_ids, weights))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _read(layout, values_NxV, slot_ids_BxLxA, weights_BxLxA):
  row_axes, dim_axes = layout.row_axes, layout.dim_axes

  def read(values, slot_ids, weights):
    ids, mine = layout_lib.local_ids(slot_ids, row_axes, values.shape[0])
    dtype = lookup.wide_dtype(values.dtype) if row_axes else values.dtype
    read_TxV = lookup.read_tokens(
      values,
      lookup.flat(jnp.where(mine, ids, 0)),
      lookup.flat(jnp.where(mine, weights, 0)),
      dtype,
    )
    read_TxV = layout_lib.psum(read_TxV, row_axes)
    if row_axes:  # Without this, XLA for TPUs sums in bfloat16.
      wide = jnp.finfo(dtype)
      read_TxV = jax.lax.reduce_precision(read_TxV, wide.nexp, wide.nmant)
    read_TxV = read_TxV.astype(values.dtype)
    return read_TxV.reshape(*slot_ids.shape[:-1], -1)

  accesses = layout.batch(slot_ids_BxLxA.shape[:-1], None)
  reads = layout.batch(slot_ids_BxLxA.shape[:-1], dim_axes)
  return layout_lib.map_parts(
    layout, read, (layout.values_NxV, accesses, accesses), reads
  )(values_NxV, slot_ids_BxLxA, weights_BxLxA)


def _read_forward(layout, values, slot_ids, weights):
  read = _read(layout, values, slot_ids, weights)
  return read, (values, slot_ids, weights)


def _read_backward(layout, residuals, gradient_BxLxV):
  # Two maps, so that XLA drops an unused one: with frozen values the compiled
  # step has no gradient of the table.
  values, slot_ids, weights = residuals
  row_axes, dim_axes = layout.row_axes, layout.dim_axes
  batch_axes = layout.batch_axes(slot_ids.shape)
  accesses = layout.batch(slot_ids.shape[:-1], None)
  reads = layout.batch(slot_ids.shape[:-1], dim_axes)
  shard = values.shape[0] // layout.size(row_axes)
  wide = lookup.wide_dtype(values.dtype)

  def to_values(slot_ids, weights, gradient):
    ids, mine = layout_lib.local_ids(slot_ids, row_axes, shard)
    rows = lookup.scatter_rows(
      lookup.flat(gradient).astype(wide),
      lookup.flat(jnp.where(mine, ids, shard)),
      lookup.flat(weights),
      shard,
    )
    return layout_lib.psum(rows, batch_axes).astype(values.dtype)

  def to_weights(values, slot_ids, gradient):
    ids, mine = layout_lib.local_ids(slot_ids, row_axes, shard)
    products = lookup.dot_tokens(
      values,
      lookup.flat(jnp.where(mine, ids, 0)),
      lookup.flat(gradient).astype(wide),
    ).reshape(slot_ids.shape)
    products = jnp.where(mine, products, 0)
    return layout_lib.psum(products, row_axes or dim_axes).astype(weights.dtype)

  values_gradient = layout_lib.map_parts(
    layout, to_values, (accesses, accesses, reads), layout.values_NxV
  )(slot_ids, weights, gradient_BxLxV)
  weights_gradient = layout_lib.map_parts(
    layout, to_weights, (layout.values_NxV, accesses, reads), accesses
  )(values, slot_ids, gradient_BxLxV)
  return values_gradient, None, weights_gradient


_read.defvjp(_read_forward, _read_backward)


def row_gradient(
  layout: layout_lib.Layout,
  read_gradient: jax.Array,
  slot_ids: jax.Array,
  weights: jax.Array,
  slots: jax.Array,
) -> jax.Array:
  """`lookup.row_gradient` on a mesh; an all-reduce of [t, V] over replicas."""
  batch_axes = layout.batch_axes(slot_ids.shape)

  def gradient(*arrays):
    return layout_lib.psum(lookup.row_gradient(*arrays), batch_axes)

  accesses = layout.batch(slot_ids.shape[:-1], None)
  reads = layout.batch(slot_ids.shape[:-1], layout.dim_axes)
  specs = (reads, accesses, accesses, PartitionSpec(None))
  return layout_lib.map_parts(layout, gradient, specs, layout.rows_txV)(
    read_gradient, slot_ids, weights, slots
  )


def update_rows(
  layout: layout_lib.Layout,
  inner: optax.GradientTransformation,
  opt_state: Any,
  table: jax.Array,
  slots: jax.Array,
  row_gradients: jax.Array,
  rounding: jax.Array | None = None,
  **extra_args: Any,
) -> tuple[jax.Array, Any]:
  """`optim.update_rows` on the devices that have the rows; sends no row.

  The optimizer steps an array in which every device has its rows, and zeros in
  place of others', so that a norm is that of all selected rows. `opt_state` is
  split like the table, and its counts like slots.
  """
  row_axes, dim_axes = layout.row_axes, layout.dim_axes
  kinds = rowwise.state_kinds((table, opt_state), table.shape)
  whole = {
    'rows': layout.values_NxV,
    'count': layout.slots_N,
    'scalar': PartitionSpec(),
  }
  taken = {
    'rows': PartitionSpec(row_axes or None, dim_axes or None),
    'count': PartitionSpec(row_axes or None, None),
    'scalar': PartitionSpec(),
  }
  whole_specs, taken_specs = (
    jax.tree.map(specs.get, kinds) for specs in (whole, taken)
  )
  slots = ids.as_int32(slots, name='slots')

  def local(slots, shard):
    places, mine = layout_lib.local_ids(slots, row_axes, shard)
    places = jnp.where(mine, places, shard)
    order = jnp.arange(slots.size)
    if slots.size > shard:  # More than a device has: take its own only.
      order = jnp.argsort(~mine, stable=True)[:shard]
    return places[order], order

  def take(tree, slots, row_gradients):
    shard = tree[0].shape[0]
    places, order = local(slots, shard)
    mine = (places < shard)[:, None]
    return (
      *rowwise.take_rows(tree, places),
      jnp.where(mine, row_gradients[order], 0),
    )

  def put(tree, slots, rows):
    places, _ = local(slots, tree[0].shape[0])
    return rowwise.put_rows(tree, places, rows, rounding)

  tree, chosen = (table, opt_state), PartitionSpec(None)
  rows, row_state, row_gradients = layout_lib.map_parts(
    layout,
    take,
    (whole_specs, chosen, layout.rows_txV),
    (*taken_specs, taken['rows']),
  )(tree, slots, row_gradients)
  stepped = rowwise.step_rows(
    inner, row_state, rows, row_gradients, **extra_args
  )
  return layout_lib.map_parts(
    layout, put, (whole_specs, chosen, taken_specs), whole_specs
  )(tree, slots, stepped)
