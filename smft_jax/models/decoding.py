"""Greedy decoding with a key-value cache.

Shapes: B batch, L length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import overlay as overlay_lib
from smft_jax.models import transformer


class LineTokens(NamedTuple):
  """Tokens that tell where a line ends.

  Attributes:
    breaks: int32 [..], tokens with a line break in them.
    blanks: int32 [..], tokens of nothing but space.
  """

  breaks: jax.Array | np.ndarray
  blanks: jax.Array | np.ndarray


def greedy_decode(
  model: transformer.Transformer,
  tokens: jax.Array,
  mask: jax.Array,
  max_new_tokens: int,
  end_ids: Sequence[int] | jax.Array,
  overlay: overlay_lib.Overlay | None = None,
  lines: LineTokens | None = None,
  past: transformer.Cache | None = None,
) -> jax.Array:
  """Decodes the likeliest token at each step, with a key-value cache.

  Stops when all rows have ended.

  Args:
    model: The decoder.
    tokens: int32 [B, L], prompts, padded on the left.
    mask: bool [B, L], False at padding.
    max_new_tokens: Tokens to decode.
    end_ids: int32 [E], tokens that end a row, which then repeats the first of
      them.
    overlay: As for a call of the model.
    lines: If given, a row also ends with its first line that is not blank.
    past: The full cache of one row, for tokens before all prompts.

  Returns:
    int32 [B, max_new_tokens].
  """
  batch_size, length = tokens.shape
  if not max_new_tokens:
    return jnp.zeros((batch_size, 0), jnp.int32)
  if past is None:
    cache = model.init_cache(batch_size, length + max_new_tokens)
  else:
    cache = past.repeated(batch_size, length + max_new_tokens)
  hidden, cache = model.extend(tokens, mask, cache, overlay)
  ends = jnp.asarray(end_ids, jnp.int32)
  # A loop must not close over Variables.
  graphdef, params = nnx.split(model)

  def choose(model, hidden, done, begun):
    logits = model.logits(hidden[:, -1])
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    token = jnp.where(done, ends[0], token)
    done |= jnp.isin(token, ends)
    if lines is not None:
      done |= begun & jnp.isin(token, lines.breaks)
      begun |= ~jnp.isin(token, lines.blanks)
    return token, done, begun

  def add_token(state):
    count, decoded, cache, done, begun = state
    model = nnx.merge(graphdef, params)
    last, everything = (
      decoded[count - 1][:, None],
      jnp.ones((batch_size, 1), bool),
    )
    hidden, cache = model.extend(last, everything, cache, overlay)
    token, done, begun = choose(model, hidden, done, begun)
    return count + 1, decoded.at[count].set(token), cache, done, begun

  nothing = jnp.zeros((batch_size,), bool)
  token, done, begun = choose(model, hidden, nothing, nothing)
  decoded = jnp.full((max_new_tokens, batch_size), ends[0])
  _, decoded, *_ = jax.lax.while_loop(
    lambda state: (state[0] < max_new_tokens) & ~jnp.all(state[3]),
    add_token,
    (jnp.int32(1), decoded.at[0].set(token), cache, done, begun),
  )
  return decoded.T
