"""Fits the keys of a memory to the inputs that a model gives it, untrained.

Inputs of a trained model vary far more in some directions than in others, and
random keys would send nearly all tokens to few slots. So inputs are whitened by
their principal components (eigenvalue ** -0.4, which leaves a little of their
shape), rotated at random, and split into heads and halves; spherical k-means of
each half gives its sub-keys. Queries are compared by their cosines.

Everything streams: a covariance and a sample of bounded size are all that is
kept of the inputs.

Shape letters: D model dim, H heads, K key dim, C = K / 2, n sub-keys of a half,
T inputs.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Inputs compared with all sub-keys at once.
_BLOCK = 4096


class Keys(NamedTuple):
  """What a memory searches with.

  Attributes:
    query: float32 [D, H, K], the map from inputs to queries.
    subkeys: float32 [H, 2, n, C], of length 1.
  """

  query: np.ndarray
  subkeys: np.ndarray


class InputStatistics:
  """Second moments of a stream of inputs, and a sample of them.

  Every input has the same chance to be in the sample, whatever the length of
  the stream.

  Args:
    size: Most inputs in the sample.
    seed: Seed of the sample.

  Example:
    >>> statistics = InputStatistics(size=2, seed=0)
    >>> statistics.add(np.ones((5, 3)))
    >>> statistics.sample.shape, statistics.moments[0].tolist()
    ((2, 3), [1.0, 1.0, 1.0])
  """

  def __init__(self, size: int, seed: int):
    self._size = size
    self._rng = np.random.default_rng(seed)
    self._total, self._sum = 0, np.zeros(())
    self._places = np.zeros(0)
    self.sample = np.zeros((0, 0), np.float32)

  def add(self, inputs: np.ndarray) -> None:
    """Adds inputs [T, D]."""
    wide = inputs.astype(np.float32)
    self._total += len(wide)
    self._sum = self._sum + (wide.T @ wide).astype(np.float64)
    # The inputs with the highest of uniform draws are a uniform sample.
    places = np.concatenate([self._places, self._rng.random(len(wide))])
    inputs = np.concatenate([self.sample.reshape(-1, wide.shape[1]), wide])
    kept = np.sort(np.argsort(-places, kind='stable')[: self._size])
    self._places, self.sample = places[kept], inputs[kept]

  @property
  def moments(self) -> np.ndarray:
    """float64 [D, D], the mean product of two channels."""
    return self._sum / max(self._total, 1)


def fit(
  statistics: InputStatistics,
  num_heads: int,
  key_dim: int,
  subkeys_per_half: int,
  *,
  seed: int = 0,
  power: float = 0.4,
  iterations: int = 12,
) -> Keys:
  """Fits keys to inputs.

  Args:
    statistics: Of the inputs.
    num_heads: H.
    key_dim: K.
    subkeys_per_half: n.
    seed: Seed of the rotation and of the first sub-keys.
    power: How far to whiten: 0 leaves the inputs as they are, 0.5 makes all
      directions alike.
    iterations: Of k-means.

  Raises:
    ValueError: If there are fewer inputs than sub-keys in a half, or some are
      not finite.

  Example:
    >>> rng = np.random.default_rng(0)
    >>> statistics = InputStatistics(size=100, seed=0)
    >>> statistics.add(rng.normal(size=(100, 8)))
    >>> keys = fit(statistics, num_heads=2, key_dim=4, subkeys_per_half=5)
    >>> keys.query.shape, keys.subkeys.shape
    ((8, 2, 4), (2, 2, 5, 2))
  """
  sample = statistics.sample
  if len(sample) < subkeys_per_half:
    raise ValueError(
      f'the background has {len(sample)} tokens, fewer than the'
      f' {subkeys_per_half} sub-keys to fit: give it more text, or lower'
      f' num_slots to at most {len(sample) ** 2}'
    )
  if not np.all(np.isfinite(statistics.moments)):
    raise ValueError(
      'the model gives its memory inputs that are not finite numbers: look for'
      ' a damaged weight, or compute in a wider dtype'
    )
  rng = np.random.default_rng(seed)
  query = _whitening(statistics.moments, power) @ _rotations(
    rng, sample.shape[1], num_heads * key_dim
  )
  query = query.reshape(-1, num_heads, 2, key_dim // 2).astype(np.float32)
  subkeys = np.stack(
    [
      _spherical_k_means(
        sample @ query[:, head, half],
        rng.choice(len(sample), subkeys_per_half, replace=False),
        iterations,
      )
      for head in range(num_heads)
      for half in range(2)
    ]
  )
  return Keys(
    query.reshape(-1, num_heads, key_dim),
    subkeys.reshape(num_heads, 2, subkeys_per_half, -1),
  )


def _whitening(moments_DxD: np.ndarray, power: float) -> np.ndarray:
  """Returns the map [D, D] to principal components of more equal size."""
  sizes_D, components_DxD = np.linalg.eigh(moments_DxD)
  # Directions that hardly occur are noise, which must not be blown up.
  sizes_D = np.maximum(sizes_D, 1e-6 * sizes_D[-1])
  return components_DxD * sizes_D**-power


def _rotations(
  rng: np.random.Generator, model_dim: int, columns: int
) -> np.ndarray:
  """Returns orthonormal columns, from several rotations if D are too few."""
  count = -(-columns // model_dim)
  drawn = rng.standard_normal((count, model_dim, model_dim))
  return np.concatenate([np.linalg.qr(x)[0] for x in drawn], axis=1)[
    :, :columns
  ]


def _spherical_k_means(
  inputs_TxC: np.ndarray, first_n: np.ndarray, iterations: int
) -> np.ndarray:
  """Returns centres [n, C] of length 1, starting from the inputs `first_n`."""
  norms_T = np.linalg.norm(inputs_TxC, axis=1, keepdims=True)
  units_TxC = (inputs_TxC / np.maximum(norms_T, 1e-9)).astype(np.float32)
  padding = -len(units_TxC) % _BLOCK
  padded = np.pad(units_TxC, ((0, padding), (0, 0)))
  blocks = jnp.asarray(padded.reshape(-1, _BLOCK, units_TxC.shape[1]))
  centres_nxC = jnp.asarray(units_TxC[first_n])
  return np.asarray(_improve(blocks, centres_nxC, iterations))


@functools.partial(jax.jit, static_argnames='iterations')
def _improve(blocks, centres_nxC, iterations):
  """Moves each centre to the mean direction of its inputs, repeatedly."""

  def improve(_, centres_nxC):
    def add(sums_nxC, units_BxC):
      nearest_B = jnp.argmax(units_BxC @ centres_nxC.T, axis=1)
      return sums_nxC.at[nearest_B].add(units_BxC), None  # padding adds zeros

    sums_nxC, _ = jax.lax.scan(add, jnp.zeros_like(centres_nxC), blocks)
    norms_nx1 = jnp.linalg.norm(sums_nxC, axis=1, keepdims=True)
    # A centre without inputs stays where it is.
    moved_nxC = sums_nxC / jnp.maximum(norms_nx1, 1e-6)
    return jnp.where(norms_nx1 > 1e-6, moved_nxC, centres_nxC)

  return jax.lax.fori_loop(0, iterations, improve, centres_nxC)
