"""Searches product keys whose sub-keys are split over many devices.

Devices exchange the best half scores of every token, or the slots found for it:
nothing that grows with the number of sub-keys.

Shape letters: B batch, L length (all dims between the first and the last), H
heads, C half a key, n sub-keys in a half, k slots kept, T tokens of a device, R
rows of half scores, j half scores kept by a device.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from smft_jax import product_keys
from smft_jax.sharded import layout as layout_lib


def product_key_topk(
  layout: layout_lib.Layout, queries: jax.Array, subkeys: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
  """`product_keys.product_key_topk` over shards of sub-keys; just as exact.

  Arguments and results are the same, after `layout` and with a leading batch.
  With sub-keys split, every device finds its best half scores, and then the
  best of all devices'. With heads split, every device searches its heads.
  """
  product_keys.check(queries, subkeys, k)
  heads, _, _, half_dim = subkeys.shape
  halves = (*queries.shape[:-2], heads, 2, half_dim)
  return _search(layout, k, queries.reshape(halves), subkeys)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _search(layout, k, queries_BxLxHx2xC, subkeys_Hx2xnxC):
  head_axes, key_axes = _key_axes(layout)
  shard = subkeys_Hx2xnxC.shape[2] // layout.size(key_axes)

  def merge(top_k, best_Rxj, ids_Rxj):
    ids_Rxj += jax.lax.axis_index(key_axes) * shard
    best, ids = (
      layout_lib.all_gather(x, key_axes, 1) for x in (best_Rxj, ids_Rxj)
    )
    best_Rxk, places_Rxk = top_k(best, k)
    ids_Rxk = jnp.take_along_axis(
      ids, places_Rxk, axis=-1, mode='promise_in_bounds'
    )
    return best_Rxk, ids_Rxk, shard * layout.size(key_axes)

  def search(queries, subkeys):
    found = product_keys.search_tokens(
      _flat(queries, 3), subkeys, k, merge if key_axes else None
    )
    lead = queries.shape[:-3]
    return tuple(
      layout_lib.all_gather(x, head_axes, 1).reshape(*lead, -1, k)
      for x in found
    )

  lead = queries_BxLxHx2xC.shape[:-3]
  queries = layout.batch(lead, head_axes, None, None)
  found = layout.batch(lead, None, None)
  return layout_lib.map_parts(
    layout, search, (queries, layout.subkeys_Hx2xnxC), (found, found)
  )(queries_BxLxHx2xC, subkeys_Hx2xnxC)


def _search_forward(layout, k, queries, subkeys):
  slot_ids, scores = _search(layout, k, queries, subkeys)
  return (slot_ids, scores), (queries, subkeys, slot_ids)


def _search_backward(layout, k, residuals, gradients):
  del k
  queries, subkeys, slot_ids = residuals
  head_axes, key_axes = _key_axes(layout)
  batch_axes = layout.batch_axes(queries.shape)
  n = subkeys.shape[2]

  def pull_back(queries, subkeys, slot_ids, gradient):
    shard = subkeys.shape[2]

    def halve(slot_ids, gradient):
      ids, gradients = product_keys.halves(n, slot_ids, gradient)
      ids, mine = layout_lib.local_ids(ids, key_axes, shard)
      return jnp.where(mine, ids, 0), jnp.where(mine, gradients, 0)

    queries_gradient, subkeys_gradient = product_keys.search_gradients(
      _flat(queries, 3), subkeys, _flat(slot_ids, 2), _flat(gradient, 2), halve
    )
    lead = queries.shape[:-3]
    queries_gradient = layout_lib.psum(queries_gradient, key_axes)
    queries_gradient = layout_lib.all_gather(queries_gradient, head_axes, 1)
    return (
      queries_gradient.reshape(*lead, -1, *queries.shape[-2:]),
      layout_lib.psum(subkeys_gradient, batch_axes),
    )

  split = layout.batch(queries.shape[:-3], head_axes, None, None)
  found = layout.batch(queries.shape[:-3], head_axes, None)
  return layout_lib.map_parts(
    layout,
    pull_back,
    (split, layout.subkeys_Hx2xnxC, found, found),
    (layout.batch(queries.shape), layout.subkeys_Hx2xnxC),
  )(queries, subkeys, slot_ids, gradients[1])


_search.defvjp(_search_forward, _search_backward)


def _key_axes(
  layout: layout_lib.Layout,
) -> tuple[layout_lib.Axes, layout_lib.Axes]:
  """Returns the axes that split heads, and those that split sub-keys."""
  heads, _, keys, _ = layout.subkeys_Hx2xnxC
  return layout.axes(heads), layout.axes(keys)


def _flat(array: jax.Array, last: int) -> jax.Array:
  """[..., *last dims] -> [T, *last dims]."""
  return array.reshape(-1, *array.shape[-last:])
