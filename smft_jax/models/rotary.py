"""Rotary positions, and how Llama 3.1 and later stretch them.

Shapes: B batch, L length, H heads, K head dim.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
  """Slower rotations for longer texts, as in Llama 3.1 and later ('llama3').

  A frequency with less than `low_freq_factor` turns in the length that the
  model was first trained with is divided by `factor`; one with more than
  `high_freq_factor` stays; between the two the divisor is interpolated. Fields
  have the names that they have in a checkpoint's config.json.

  Attributes:
    factor: What slow frequencies are divided by.
    low_freq_factor: Turns in the first length below which a frequency is slow.
    high_freq_factor: Turns above which it is fast.
    original_max_position_embeddings: The first length, in tokens.

  Raises:
    ValueError: For a number that is impossible.
  """

  factor: float
  low_freq_factor: float
  high_freq_factor: float
  original_max_position_embeddings: int

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not 0 < value < math.inf:
        raise ValueError(
          f'{field.name} must be above 0 and finite, got {value}.'
        )
    if self.low_freq_factor >= self.high_freq_factor:
      raise ValueError(
        f'high_freq_factor must be above low_freq_factor ='
        f' {self.low_freq_factor}, got {self.high_freq_factor}.'
      )


def frequencies(
  half: int, theta: float, scaling: RopeScaling | None = None
) -> jax.Array:
  """Radians that each pair of dims turns by from one position to the next.

  Args:
    half: K / 2, how many pairs.
    theta: Base of the frequencies.
    scaling: How they are stretched; None leaves them.

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
  """Rotary positions (arXiv 2104.09864), in the half-split layout of Llama.

  Args:
    x: [B, L, H, K].
    positions: int32 [B, L].
    theta: Base of the frequencies.
    scaling: How they are stretched; None leaves them.

  Returns:
    [B, L, H, K]; the first half of K is paired with the second.
  """
  rates = frequencies(x.shape[-1] // 2, theta, scaling)
  angles = jnp.einsum('bl,f->blf', positions.astype(jnp.float32), rates)[
    :, :, None
  ]
  sin, cos = jnp.sin(angles), jnp.cos(angles)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return rotated.astype(x.dtype)
