"""Rotary positions, with the scaling of Llama 3.1 and later.

Shapes: B batch, L length, H heads, K head dim.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from smft_jax import schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
  """Slower rotations for longer texts, as in Llama 3.1 and later ('llama3').

  Frequencies that turn less than `low_freq_factor` times within the original
  length are divided by `factor`, those that turn more than `high_freq_factor`
  times are unchanged, and those between are interpolated. Fields are named as
  in a checkpoint's config.json.

  Attributes:
    factor: Divisor of slow frequencies.
    low_freq_factor: Turns below which a frequency is slow.
    high_freq_factor: Turns above which a frequency is fast.
    original_max_position_embeddings: The original length, in tokens.

  Raises:
    ValueError: For an impossible number.
  """

  factor: float
  low_freq_factor: float
  high_freq_factor: float
  original_max_position_embeddings: int

  def __post_init__(self):
    schema.positive(self, *(f.name for f in dataclasses.fields(self)))
    if self.low_freq_factor >= self.high_freq_factor:
      raise ValueError(
        f'high_freq_factor must be above low_freq_factor ='
        f' {self.low_freq_factor}, got {self.high_freq_factor}'
      )


def frequencies(
  half: int, theta: float, scaling: RopeScaling | None = None
) -> jax.Array:
  """Returns the radians that each pair of dims turns by per position.

  Args:
    half: K / 2, the number of pairs.
    theta: Base of the frequencies.
    scaling: Scaling of the frequencies, or None.

  Returns:
    float32 [half], fastest first.

  Example:
    >>> frequencies(2, 10_000.0).tolist()
    [1.0, 0.009999999776482582]
    >>> scaling = RopeScaling(
    ...     factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    ...     original_max_position_embeddings=100)
    >>> frequencies(2, 10_000.0, scaling).tolist()
    [1.0, 0.0012499999720603228]
  """
  rates = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if scaling is None:
    return rates
  turns = rates / (2 * math.pi) * scaling.original_max_position_embeddings
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  fast = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
  return fast * rates + (1.0 - fast) * (rates / scaling.factor)


def rotate(
  x: jax.Array,
  positions: jax.Array,
  theta: float,
  scaling: RopeScaling | None = None,
) -> jax.Array:
  """Applies rotary positions (arXiv:2104.09864) in Llama's half-split layout.

  Args:
    x: [B, L, H, K]; the first half of K is paired with the second.
    positions: int32 [B, L].
    theta: Base of the frequencies.
    scaling: Scaling of the frequencies, or None.

  Returns:
    [B, L, H, K].
  """
  rates = frequencies(x.shape[-1] // 2, theta, scaling)
  # Not as a matrix product, which accelerators round to bfloat16: position 257
  # would be 256.
  angles = positions.astype(jnp.float32)[:, :, None, None] * rates.reshape(
    (1, 1, 1, -1)
  )
  sin, cos = jnp.sin(angles), jnp.cos(angles)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return rotated.astype(x.dtype)
