"""Greedy decoding with a cache against whole forward passes."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax.models import decoding as decoding_lib
from tests.support import decoders

pytestmark = pytest.mark.usefixtures('quick_compilation')


def greedy_without_cache(model, prompt, count, eos_id):
  """One row at a time, by whole forward passes; the padding is to the right."""
  row, out = list(prompt), []
  for _ in range(count):
    if eos_id in out:
      out.append(eos_id)
      continue
    tokens = np.zeros((1, 13), np.int32)
    tokens[0, : len(row)] = row
    logits = np.asarray(decoders.logits_of(model, jnp.asarray(tokens)))
    out.append(int(np.argmax(logits[0, len(row) - 1])))
    row.append(out[-1])
  return out


def left_padded(prompts, pad_id=0):
  width = max(map(len, prompts))
  tokens = np.full((len(prompts), width), pad_id, np.int32)
  mask = np.zeros(tokens.shape, bool)
  for i, prompt in enumerate(prompts):
    tokens[i, width - len(prompt) :] = prompt
    mask[i, width - len(prompt) :] = True
  return jnp.asarray(tokens), jnp.asarray(mask)


@pytest.fixture(scope='module')
def decoding():
  """A model of all options, prompts of several lengths, and how it decodes."""
  model = decoders.make_model(
    memory=decoders.MEMORY,
    memory_layers=(0, 1),
    memory_placement='beside',
    qkv_bias=True,
    qk_norm=True,
  )
  prompts = [
    [int(t) for t in decoders.tokens_of(length, seed=length)]
    for length in (2, 5, 7)
  ]
  padded = left_padded(prompts)
  return model, prompts, lambda *ends: decoders.decode(model, *padded, 6, *ends)


def test_cached_greedy_decoding_equals_whole_forward_passes(decoding):
  model, prompts, decode = decoding
  decoded = decode(1)
  assert decoded.shape == (3, 6)
  assert decoded.dtype == jnp.int32
  expected = [greedy_without_cache(model, p, 6, 1) for p in prompts]
  assert decoded.tolist() == expected
  # The rows must differ, else a decoder blind to its prompt would pass.
  assert len({tuple(row) for row in expected}) > 1


def test_decoding_repeats_eos_after_a_row_has_ended(decoding):
  *_, decode = decoding
  free = decode(-1)
  # The second token of the first row ends every row in which it occurs.
  eos_id = int(free[0, 1])
  ended = decode(eos_id)
  for row, expected in zip(ended.tolist(), free.tolist(), strict=True):
    if eos_id in expected:
      first = expected.index(eos_id)
      expected[first:] = [eos_id] * (len(expected) - first)
    assert row == expected
  assert ended[0].tolist()[1:] == [eos_id] * 5


def test_any_of_several_tokens_ends_a_row(decoding):
  *_, decode = decoding
  free = decode(-1)
  ends = [int(free[1, 4]), int(free[0, 1])]
  assert ends[0] != ends[1]
  for row, expected in zip(decode(*ends).tolist(), free.tolist(), strict=True):
    places = [i for i, token in enumerate(expected) if token in ends]
    if places:
      expected[places[0] + 1 :] = [ends[0]] * (5 - places[0])
    assert row == expected


def test_the_cache_grows_in_pieces_of_any_length():
  model = decoders.make_model(**decoders.WITH_MEMORY)
  graphdef, params = nnx.split(model)
  tokens = decoders.tokens_of(2, 11)
  mask = jnp.ones(tokens.shape, bool).at[0, :3].set(False)  # left padding

  @jax.jit
  def extend(params, tokens, mask, cache):
    model = nnx.merge(graphdef, params)
    hidden, cache = model.extend(tokens, mask, cache)
    return model.logits(hidden[:, -1]), cache

  cache, ends = model.init_cache(2, 13), []
  for start, stop in ((0, 5), (5, 6), (6, 11)):
    piece = slice(start, stop)
    logits, cache = extend(params, tokens[:, piece], mask[:, piece], cache)
    ends.append(logits)
  assert cache.keys[0].shape == (2, 13, 2, 4)
  assert int(cache.length) == 11
  np.testing.assert_array_equal(cache.mask[:, :11], mask)
  assert not np.any(cache.mask[:, 11:])
  whole = decoders.logits_of(model, tokens, mask)[:, jnp.array([4, 5, 10])]
  np.testing.assert_allclose(
    np.stack(ends, axis=1), whole, rtol=1e-4, atol=1e-5
  )


def test_a_row_ends_with_its_first_line_that_is_not_blank():
  model, count = decoders.make_model(), 9
  tokens = decoders.tokens_of(24, 7)
  vocab_size = decoders.SIZES['vocab_size']
  end, *rest = range(vocab_size)
  breaks, blanks = rest[::4], rest[::3]
  mask = jnp.ones(tokens.shape, bool)
  whole = np.asarray(decoders.decode(model, tokens, mask, count, end))
  found = np.asarray(
    decoding_lib.greedy_decode(
      model,
      tokens,
      mask,
      count,
      [end],
      lines=decoding_lib.LineTokens(np.array(breaks), np.array(blanks)),
    )
  )
  lengths = set()
  for row, cut in zip(whole.tolist(), found.tolist(), strict=True):
    begun, length = False, count
    for place, token in enumerate(row):
      if token == end or (begun and token in breaks):
        length = place + 1
        break
      begun |= token not in blanks
    assert cut == row[:length] + [end] * (count - length)
    lengths.add(length)
  assert len(lengths) > 2


def test_no_new_tokens_are_an_empty_answer():
  model, tokens = decoders.make_model(), decoders.tokens_of(3, 5)
  mask = jnp.ones(tokens.shape, bool)
  found = decoding_lib.greedy_decode(model, tokens, mask, 0, [1])
  assert found.shape == (3, 0)
