"""The decoder against a plain float64 reading of its definition."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import memory
from smft_jax.models import layers
from smft_jax.models import rotary
from smft_jax.models import transformer
from tests.support import compilation

MEMORY = memory.MemoryConfig(
  model_dim=14, num_slots=49, value_dim=5, num_heads=3, k=2, key_dim=6
)
SIZES = {
  'vocab_size': 23,
  'num_layers': 2,
  'model_dim': 14,
  'num_heads': 6,
  'num_kv_heads': 2,
  'head_dim': 4,
  'ffn_dim': 19,
}
WITH_MEMORY = {'memory': MEMORY, 'memory_layers': (1,)}


@pytest.fixture(autouse=True)
def quickly(request):
  """But for the comparison with the definition."""
  with compilation.quick('definition' not in request.node.name):
    yield


def make_model(seed=0, **changes):
  """A model of random numbers: fresh scales are ones and biases are zeros."""
  config = layers.TransformerConfig(**(SIZES | changes))
  graphdef, shapes = nnx.split(
    nnx.eval_shape(lambda: transformer.Transformer(config, rngs=nnx.Rngs(0)))
  )
  random = np.random.default_rng(seed)

  def fill(shape):
    numbers = random.uniform(0.1, 0.6, shape.shape)
    signs = random.choice([-1.0, 1.0], shape.shape)
    return jnp.asarray(numbers * signs, shape.dtype)

  return nnx.merge(graphdef, jax.tree.map(fill, shapes))


@functools.partial(jax.jit, static_argnums=0)
def _logits(graphdef, params, tokens, mask):
  return nnx.merge(graphdef, params)(tokens, mask)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _decode(graphdef, params, tokens, mask, count, eos_id):
  model = nnx.merge(graphdef, params)
  return transformer.greedy_decode(model, tokens, mask, count, eos_id)


def logits_of(model, tokens, mask=None):
  return _logits(*nnx.split(model), tokens, mask)


def decode(model, tokens, mask, count, eos_id):
  return _decode(*nnx.split(model), tokens, mask, count, jnp.int32(eos_id))


def tokens_of(*shape, seed=1):
  random = np.random.default_rng(seed)
  return jnp.asarray(random.integers(0, SIZES['vocab_size'], shape), jnp.int32)


def reference(model, tokens):
  """Logits [L, T] of one unpadded row, in float64, head by head."""
  config = model.config
  p = jax.tree.map(
    lambda leaf: np.asarray(leaf, np.float64),
    nnx.to_pure_dict(nnx.state(model, nnx.Param)),
  )

  def norm(x, scale):
    rms = np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + 1e-6)
    return x / rms * scale

  def silu(x):
    return x / (1 + np.exp(-x))

  def turn(x):  # [L, K]; pairs of coordinates as complex numbers
    half = config.head_dim // 2
    rate = config.rope_theta ** (-2 * np.arange(half) / config.head_dim)
    angle = np.arange(len(x))[:, None] * rate
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], axis=-1)

  def project(layer, name, x, head):
    out = x @ layer[name]['weight'][:, head]
    if config.qkv_bias:
      out = out + layer[f'{name}_bias'][head]
    return out

  length = len(tokens)
  x = p['embedding'][np.asarray(tokens)]
  for i in range(config.num_layers):
    block = p['blocks'][i]
    attention = block['attention']
    normed = norm(x, block['attention_norm']['scale'])
    mixed = 0.0
    for head in range(config.num_heads):
      group = head // (config.num_heads // config.num_kv_heads)
      query = project(attention, 'query', normed, head)
      key = project(attention, 'key', normed, group)
      value = project(attention, 'value', normed, group)
      if config.qk_norm:
        query = norm(query, attention['query_norm']['scale'])
        key = norm(key, attention['key_norm']['scale'])
      scores = turn(query) @ turn(key).T / np.sqrt(config.head_dim)
      scores[np.triu_indices(length, 1)] = -np.inf
      scores = np.exp(scores - scores.max(-1, keepdims=True))
      scores /= scores.sum(-1, keepdims=True)
      mixed = mixed + scores @ value @ attention['out']['weight'][head]
    x = x + mixed
    mlp = {name: block['mlp'][name]['weight'] for name in block['mlp']}
    normed = norm(x, block['mlp_norm']['scale'])
    x = x + (silu(normed @ mlp['gate']) * (normed @ mlp['up'])) @ mlp['down']
  table = p['embedding'] if config.tie_embeddings else p['unembedding']
  return norm(x, p['final_norm']['scale']) @ table.T


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'qkv_bias': True},
    {'qk_norm': True},
    {'tie_embeddings': False},
    {'rope_theta': 500.0, 'num_kv_heads': 6},
    {'num_kv_heads': 1, 'qkv_bias': True, 'qk_norm': True},
  ],
)
def test_equals_the_plain_definition(options):
  model = make_model(**options)
  tokens = tokens_of(2, 17)
  logits = logits_of(model, tokens)
  assert logits.shape == (2, 17, SIZES['vocab_size'])
  assert logits.dtype == jnp.float32
  expected = np.stack([reference(model, row) for row in tokens])
  np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_options_add_just_their_parameters():
  def names(**options):
    state = nnx.state(make_model(**options), nnx.Param)
    return {'/'.join(map(str, path)) for path, _ in nnx.to_flat_state(state)}

  plain = names()
  assert not any('bias' in n or 'query_norm' in n for n in plain)
  assert names(tie_embeddings=False) - plain == {'unembedding'}
  assert len(names(qkv_bias=True) - plain) == 3 * SIZES['num_layers']
  assert len(names(qk_norm=True) - plain) == 2 * SIZES['num_layers']
  assert 'blocks/1/mlp/up' not in names(**WITH_MEMORY)
  beside = names(**WITH_MEMORY, memory_placement='beside')
  assert plain < beside
  assert {n for n in beside - plain if 'blocks/1/memory' not in n} == {'pool'}


@pytest.mark.parametrize('placement', ['replace', 'beside'])
def test_a_later_token_changes_no_earlier_logits(placement):
  model = make_model(**WITH_MEMORY, memory_placement=placement)
  tokens = tokens_of(2, 11)
  changed = tokens.at[:, 7].set((tokens[:, 7] + 1) % SIZES['vocab_size'])
  before, after = logits_of(model, tokens), logits_of(model, changed)
  np.testing.assert_array_equal(after[:, :7], before[:, :7])
  assert np.all(np.any(after[:, 7:] != before[:, 7:], axis=-1))


def test_rotated_products_depend_on_the_distance_only():
  random = np.random.default_rng(0)
  query, key = (
    jnp.asarray(x, jnp.float32) for x in random.normal(size=(2, 1, 1, 1, 6))
  )

  @jax.jit
  def product(i, j):
    rotated = (
      rotary.rotate(x, jnp.full((1, 1), position, jnp.int32), 10_000.0)
      for x, position in ((query, i), (key, j))
    )
    return jnp.vdot(*rotated)

  near = product(3, 1)
  np.testing.assert_allclose(product(103, 101), near, rtol=1e-3)
  assert abs(product(3, 2) - near) > 1e-2
  np.testing.assert_allclose(product(0, 0), np.vdot(query, key), rtol=1e-5)


def test_grouped_queries_equal_repeated_key_value_heads():
  grouped = make_model(qkv_bias=True, qk_norm=True)
  full = make_model(qkv_bias=True, qk_norm=True, num_kv_heads=6)
  state = nnx.to_pure_dict(nnx.state(grouped))
  for block in state['blocks'].values():
    attention = block['attention']
    for name in ('key', 'value'):
      weight = attention[name]['weight']
      attention[name]['weight'] = jnp.asarray(np.repeat(weight, 3, axis=1))
      bias = f'{name}_bias'
      attention[bias] = jnp.asarray(np.repeat(attention[bias], 3, axis=0))
  full_state = nnx.state(full)
  nnx.replace_by_pure_dict(full_state, state)
  nnx.update(full, full_state)
  tokens = tokens_of(2, 11)
  np.testing.assert_allclose(
    logits_of(full, tokens), logits_of(grouped, tokens), rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize('side', ['left', 'right'])
def test_padding_changes_nothing_for_the_real_tokens(side):
  model = make_model(**WITH_MEMORY)
  tokens = tokens_of(1, 7)
  pads = [(0, 0), (5, 0) if side == 'left' else (0, 5)]
  padded = np.pad(tokens, pads, constant_values=2)
  mask = np.pad(np.ones((1, 7), bool), pads)
  logits = np.asarray(logits_of(model, padded, mask))
  assert np.isfinite(logits).all()
  np.testing.assert_allclose(
    logits[mask], logits_of(model, tokens)[0], rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('columns', [slice(0, 4), slice(4, 9)])
def test_texts_that_share_a_row_do_not_see_each_other(columns):
  graphdef, params = nnx.split(make_model(**WITH_MEMORY))
  tokens = tokens_of(2, 11)
  segments = jnp.array([[1] * 4 + [2] * 5 + [0] * 2] * 2, jnp.int32)

  @jax.jit
  def forward(params, tokens):
    model = nnx.merge(graphdef, params)
    hidden = model.below_memory(tokens, segments > 0, segments)
    return (
      model(tokens, segments > 0, segments=segments),
      model(tokens, segments > 0, hidden, segments),
    )

  before, reused = forward(params, tokens)
  np.testing.assert_allclose(reused, before, rtol=1e-5, atol=1e-5)
  changed = tokens.at[:, columns].set((tokens[:, columns] + 1) % 23)
  after, _ = forward(params, changed)
  mine = np.zeros(11, bool)
  mine[columns] = True
  real = np.asarray(segments[0] > 0)
  np.testing.assert_array_equal(after[:, ~mine & real], before[:, ~mine & real])
  assert np.all(np.any(after[:, mine] != before[:, mine], axis=-1))


def test_one_text_in_a_row_is_as_without_segments():
  graphdef, params = nnx.split(make_model(**WITH_MEMORY))
  tokens = tokens_of(2, 7)
  mask = jnp.arange(7)[None] < jnp.array([7, 5])[:, None]

  @jax.jit
  def forward(params, tokens, segments):
    return nnx.merge(graphdef, params)(tokens, mask, segments=segments)

  np.testing.assert_array_equal(
    forward(params, tokens, mask.astype(jnp.int32))[mask],
    forward(params, tokens, None)[mask],
  )


def greedy_without_cache(model, prompt, count, eos_id):
  """One row at a time, by whole forward passes; the padding is to the right."""
  row, out = list(prompt), []
  for _ in range(count):
    if eos_id in out:
      out.append(eos_id)
      continue
    tokens = np.zeros((1, 13), np.int32)
    tokens[0, : len(row)] = row
    logits = np.asarray(logits_of(model, jnp.asarray(tokens)))
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


@pytest.mark.parametrize(
  'options',
  [
    {'qkv_bias': True, 'qk_norm': True},
    WITH_MEMORY | {'memory_placement': 'beside', 'memory_layers': (0, 1)},
  ],
)
def test_cached_greedy_decoding_equals_whole_forward_passes(options):
  model = make_model(**options)
  prompts = [
    [int(t) for t in tokens_of(length, seed=length)] for length in (2, 5, 7)
  ]
  tokens, mask = left_padded(prompts)
  eos_id = 1
  decoded = decode(model, tokens, mask, 6, eos_id)
  assert decoded.shape == (3, 6)
  assert decoded.dtype == jnp.int32
  expected = [greedy_without_cache(model, p, 6, eos_id) for p in prompts]
  assert decoded.tolist() == expected
  # The rows must differ, else a decoder blind to its prompt would pass.
  assert len({tuple(row) for row in expected}) > 1


def test_decoding_repeats_eos_after_a_row_has_ended():
  model = make_model()
  prompts = [[int(t) for t in tokens_of(5, seed=s)] for s in range(4)]
  tokens, mask = left_padded(prompts)
  free = decode(model, tokens, mask, 6, -1)
  # What the first row says second ends it; other rows end where they say it.
  eos_id = int(free[0, 1])
  ended = decode(model, tokens, mask, 6, eos_id)
  for row, expected in zip(ended.tolist(), free.tolist(), strict=True):
    if eos_id in expected:
      first = expected.index(eos_id)
      expected[first:] = [eos_id] * (len(expected) - first)
    assert row == expected
  assert ended[0].tolist()[1:] == [eos_id] * 5


def test_the_cache_grows_in_pieces_of_any_length():
  model = make_model(**WITH_MEMORY)
  graphdef, params = nnx.split(model)
  tokens = tokens_of(2, 11)
  mask = jnp.ones(tokens.shape, bool).at[0, :3].set(False)  # left padding

  @jax.jit
  def extend_in_pieces(params, tokens, mask):
    model = nnx.merge(graphdef, params)
    cache = model.init_cache(2, 13)
    ends = []
    for start, stop in ((0, 4), (4, 5), (5, 11)):
      piece = slice(start, stop)
      logits, cache = model.extend(tokens[:, piece], mask[:, piece], cache)
      ends.append(logits)
    return jnp.stack(ends, axis=1), cache

  ends, cache = extend_in_pieces(params, tokens, mask)
  assert cache.keys[0].shape == (2, 13, 2, 4)
  assert int(cache.length) == 11
  np.testing.assert_array_equal(cache.mask[:, :11], mask)
  assert not np.any(cache.mask[:, 11:])
  whole = logits_of(model, tokens, mask)[:, jnp.array([3, 4, 10])]
  np.testing.assert_allclose(ends, whole, rtol=1e-4, atol=1e-5)


def test_one_trace_serves_every_batch_and_equals_the_eager_model():
  model = make_model(num_layers=1, memory=MEMORY, memory_layers=(0,))
  graphdef, params = nnx.split(model)
  traces = []

  @jax.jit
  def forward(params, tokens, mask):
    traces.append(None)
    return nnx.merge(graphdef, params)(tokens, mask)

  for seed in (1, 2):
    tokens = tokens_of(2, 11, seed=seed)
    mask = jnp.ones(tokens.shape, bool)
    np.testing.assert_allclose(
      forward(params, tokens, mask), model(tokens), rtol=1e-4, atol=1e-5
    )
  assert len(traces) == 1


def test_decoding_and_calling_leave_the_model_as_it_was():
  model = make_model(num_layers=1, memory=MEMORY, memory_layers=(0,))
  tokens = tokens_of(2, 11)  # as above, whose operations are compiled
  before = nnx.split(model)
  model(tokens)
  transformer.greedy_decode(model, tokens, jnp.ones(tokens.shape, bool), 2, 1)
  after = nnx.split(model)
  assert after[0] == before[0]
  jax.tree.map(np.testing.assert_array_equal, after[1], before[1])


def test_memory_beside_the_ffn_that_reads_zeros_changes_nothing():
  plain = make_model()
  beside = make_model(**WITH_MEMORY, memory_placement='beside')
  nnx.update(beside, nnx.state(plain))
  tokens = tokens_of(2, 7)
  assert np.any(logits_of(beside, tokens) != logits_of(plain, tokens))
  beside.pool[...] = jnp.zeros_like(beside.pool[...])
  np.testing.assert_array_equal(
    logits_of(beside, tokens), logits_of(plain, tokens)
  )


def test_memory_in_place_of_the_ffn_that_reads_zeros_leaves_the_block_out():
  model = make_model(**WITH_MEMORY)
  assert model.blocks[1].mlp is None
  tokens = tokens_of(2, 7)
  plain = make_model()
  state = nnx.to_pure_dict(nnx.state(model))
  del state['pool'], state['blocks'][1]['memory']
  plain_state = nnx.state(plain)
  nnx.replace_by_pure_dict(plain_state, state)
  nnx.update(plain, plain_state)
  down = plain.blocks[1].mlp.down.weight
  down[...] = jnp.zeros_like(down[...])
  assert np.any(logits_of(model, tokens) != logits_of(plain, tokens))
  model.pool[...] = jnp.zeros_like(model.pool[...])
  np.testing.assert_array_equal(
    logits_of(model, tokens), logits_of(plain, tokens)
  )


def test_memory_layers_share_one_pool_and_sow_in_their_blocks():
  model = make_model(memory=MEMORY, memory_layers=(0, 1))
  [pool] = jax.tree.leaves(nnx.state(model, memory.MemoryValue))
  assert pool.shape == (49, 5)
  graphdef, params = nnx.split(model)

  @jax.jit
  def forward(params, tokens):
    model = nnx.merge(graphdef, params)
    return nnx.capture(model, memory.SlotIds)(tokens)

  logits, sown = forward(params, tokens_of(2, 7))
  assert logits.shape == (2, 7, SIZES['vocab_size'])
  assert set(sown['blocks']) == {0, 1}
  for block in sown['blocks'].values():
    [slot_ids] = block['memory']['slot_ids'].get_value()
    assert slot_ids.shape == (2, 7, 6)


def test_bfloat16_model_computes_in_bfloat16():
  sizes = {'num_layers': 1, 'memory_layers': (0,), 'dtype': jnp.bfloat16}
  mem = memory.MemoryConfig(
    model_dim=14, num_slots=49, value_dim=5, k=2, dtype=jnp.bfloat16
  )
  model = make_model(memory=mem, **sizes)
  tokens = tokens_of(2, 7)
  assert np.isfinite(logits_of(model, tokens).astype(jnp.float32)).all()
  decoded = decode(model, tokens, jnp.ones(tokens.shape, bool), 2, 1)
  assert decoded.shape == (2, 2)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_kv_heads': 4}, r'num_kv_heads must divide num_heads = 6, got 4'),
    ({'num_kv_heads': 0}, r'num_kv_heads'),
    ({'num_layers': 0}, r'num_layers'),
    ({'head_dim': 5}, r'head_dim must be even .* 5; take 6'),
    (WITH_MEMORY | {'memory_placement': 'besides'}, r"'replace' or 'beside'"),
    (WITH_MEMORY | {'memory_layers': (2,)}, r'no block 2; blocks are 0 to 1'),
    ({'memory': MEMORY}, r'memory and memory_layers go together'),
    ({'memory_layers': (1,)}, r'memory and memory_layers go together'),
    (WITH_MEMORY | {'model_dim': 13}, r'model_dim = 13, got 14'),
  ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(changes, message):
  with pytest.raises(ValueError, match=message) as caught:
    layers.TransformerConfig(**(SIZES | changes))
  assert '\n' not in str(caught.value)
