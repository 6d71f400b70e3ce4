"""Product-key search, against its natural form and PyTorch.

  python -m benchmarks.search [--out FILE.json] [--repeats R]

Three sizes: a small one, that of configs/docqa.py, and that of the paper's
layer with a million slots.
"""

from __future__ import annotations

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks import peers
from smft_jax import product_keys

# Name: tokens, heads, sub-keys in a half, key dim, k.
SIZES = {
  '16k slots, 2 heads, k = 8': (4096, 2, 128, 64, 8),
  '65k slots, 4 heads, k = 16': (4096, 4, 256, 64, 16),
  '1M slots, 4 heads, k = 32': (2048, 4, 1024, 64, 32),
}


def natural(queries, subkeys, k):
  """Searches the plain way, with all k * k sums."""
  heads, _, n, half_dim = subkeys.shape
  halves = queries.reshape(-1, heads, 2, half_dim)
  best, ids = jax.lax.top_k(jnp.einsum('thpc,hpnc->thpn', halves, subkeys), k)
  sums = best[:, :, 0, :, None] + best[:, :, 1, None, :]
  slot_ids = ids[:, :, 0, :, None] * n + ids[:, :, 1, None, :]
  flat = (*sums.shape[:2], k * k)
  scores, winners = jax.lax.top_k(sums.reshape(flat), k)
  return jnp.take_along_axis(slot_ids.reshape(flat), winners, -1), scores


def forms_of(size: tuple[int, ...]) -> dict[str, Callable[[], None]]:
  """Returns the forms to compare at one of `SIZES`."""
  tokens, heads, n, key_dim, k = size
  rng = np.random.default_rng(0)
  queries = rng.standard_normal((tokens, heads, key_dim), np.float32)
  subkeys = rng.standard_normal((heads, 2, n, key_dim // 2), np.float32)

  def compiled(search):
    arguments = jnp.asarray(queries), jnp.asarray(subkeys)
    program, _ = harness.compile_form(
      functools.partial(search, k=k), *arguments
    )
    return lambda: jax.block_until_ready(program(*arguments))

  forms = {
    'product_key_topk': compiled(product_keys.product_key_topk),
    'natural form in JAX': compiled(natural),
  }
  if peers.installed():
    forms['PyTorch'] = peers.search(queries, subkeys, k)
  return forms


def main() -> None:
  """Runs the program."""
  options = harness.parse('Product-key search.')
  seconds, claims = {}, []
  for name, size in SIZES.items():
    measured = harness.interleave(forms_of(size), options.repeats)
    harness.print_table(
      f'{name}, {size[0]} tokens', measured, 'product_key_topk'
    )
    seconds[name] = measured
    ours = measured['product_key_topk']
    claims.append(
      harness.Claim(
        f'{name}: natural form / product_key_topk',
        measured['natural form in JAX'] / ours,
        3.0,
        at_most=False,
      )
    )
    if 'PyTorch' in measured:
      ratio = ours / measured['PyTorch']
      claims.append(
        harness.Claim(f'{name}: product_key_topk / PyTorch', ratio, 1.0)
      )
  last = list(seconds)[-1]
  harness.finish(
    'search',
    {'seconds': seconds},
    claims,
    harness.bars(f'Product-key search, {last}', seconds[last]),
    options.out,
  )


if __name__ == '__main__':
  main()
