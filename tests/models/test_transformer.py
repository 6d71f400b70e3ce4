"""The decoder against a plain float64 reading of its definition."""

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
from tests.support import decoders


@pytest.fixture(autouse=True)
def quickly(request):
  """But for the comparison with the definition."""
  with compilation.quick('definition' not in request.node.name):
    yield


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
  model = decoders.make_model(**options)
  tokens = decoders.tokens_of(2, 17)
  logits = decoders.logits_of(model, tokens)
  assert logits.shape == (2, 17, decoders.SIZES['vocab_size'])
  assert logits.dtype == jnp.float32
  expected = np.stack([decoders.reference(model, row) for row in tokens])
  np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_options_add_just_their_parameters():
  def names(**options):
    state = nnx.state(decoders.make_model(**options), nnx.Param)
    return {'/'.join(map(str, path)) for path, _ in nnx.to_flat_state(state)}

  plain = names()
  assert not any('bias' in n or 'query_norm' in n for n in plain)
  assert names(tie_embeddings=False) - plain == {'unembedding'}
  assert len(names(qkv_bias=True) - plain) == 3 * decoders.SIZES['num_layers']
  assert len(names(qk_norm=True) - plain) == 2 * decoders.SIZES['num_layers']
  assert 'blocks/1/mlp/up' not in names(**decoders.WITH_MEMORY)
  beside = names(**decoders.WITH_MEMORY, memory_placement='beside')
  assert plain < beside
  assert {n for n in beside - plain if 'blocks/1/memory' not in n} == {'pool'}


@pytest.mark.parametrize('placement', ['replace', 'beside'])
def test_a_later_token_changes_no_earlier_logits(placement):
  model = decoders.make_model(
    **decoders.WITH_MEMORY, memory_placement=placement
  )
  tokens = decoders.tokens_of(2, 11)
  changed = tokens.at[:, 7].set(
    (tokens[:, 7] + 1) % decoders.SIZES['vocab_size']
  )
  before = decoders.logits_of(model, tokens)
  after = decoders.logits_of(model, changed)
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
  grouped = decoders.make_model(qkv_bias=True, qk_norm=True)
  full = decoders.make_model(qkv_bias=True, qk_norm=True, num_kv_heads=6)
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
  tokens = decoders.tokens_of(2, 11)
  np.testing.assert_allclose(
    decoders.logits_of(full, tokens),
    decoders.logits_of(grouped, tokens),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize('side', ['left', 'right'])
def test_padding_changes_nothing_for_the_real_tokens(side):
  model = decoders.make_model(**decoders.WITH_MEMORY)
  tokens = decoders.tokens_of(1, 7)
  pads = [(0, 0), (5, 0) if side == 'left' else (0, 5)]
  padded = np.pad(tokens, pads, constant_values=2)
  mask = np.pad(np.ones((1, 7), bool), pads)
  logits = np.asarray(decoders.logits_of(model, padded, mask))
  assert np.isfinite(logits).all()
  np.testing.assert_allclose(
    logits[mask], decoders.logits_of(model, tokens)[0], rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('columns', [slice(0, 4), slice(4, 9)])
def test_texts_that_share_a_row_do_not_see_each_other(columns):
  graphdef, params = nnx.split(decoders.make_model(**decoders.WITH_MEMORY))
  tokens = decoders.tokens_of(2, 11)
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
  graphdef, params = nnx.split(decoders.make_model(**decoders.WITH_MEMORY))
  tokens = decoders.tokens_of(2, 7)
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


@pytest.mark.parametrize(
  'options',
  [
    {'qkv_bias': True, 'qk_norm': True},
    decoders.WITH_MEMORY
    | {'memory_placement': 'beside', 'memory_layers': (0, 1)},
  ],
)
def test_cached_greedy_decoding_equals_whole_forward_passes(options):
  model = decoders.make_model(**options)
  prompts = [
    [int(t) for t in decoders.tokens_of(length, seed=length)]
    for length in (2, 5, 7)
  ]
  tokens, mask = left_padded(prompts)
  eos_id = 1
  decoded = decoders.decode(model, tokens, mask, 6, eos_id)
  assert decoded.shape == (3, 6)
  assert decoded.dtype == jnp.int32
  expected = [greedy_without_cache(model, p, 6, eos_id) for p in prompts]
  assert decoded.tolist() == expected
  # The rows must differ, else a decoder blind to its prompt would pass.
  assert len({tuple(row) for row in expected}) > 1


def test_decoding_repeats_eos_after_a_row_has_ended():
  model = decoders.make_model()
  prompts = [[int(t) for t in decoders.tokens_of(5, seed=s)] for s in range(4)]
  tokens, mask = left_padded(prompts)
  free = decoders.decode(model, tokens, mask, 6, -1)
  # What the first row says second ends it; other rows end where they say it.
  eos_id = int(free[0, 1])
  ended = decoders.decode(model, tokens, mask, 6, eos_id)
  for row, expected in zip(ended.tolist(), free.tolist(), strict=True):
    if eos_id in expected:
      first = expected.index(eos_id)
      expected[first:] = [eos_id] * (len(expected) - first)
    assert row == expected
  assert ended[0].tolist()[1:] == [eos_id] * 5


def test_the_cache_grows_in_pieces_of_any_length():
  model = decoders.make_model(**decoders.WITH_MEMORY)
  graphdef, params = nnx.split(model)
  tokens = decoders.tokens_of(2, 11)
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
  whole = decoders.logits_of(model, tokens, mask)[:, jnp.array([3, 4, 10])]
  np.testing.assert_allclose(ends, whole, rtol=1e-4, atol=1e-5)


def test_one_trace_serves_every_batch_and_the_eager_model_stays_the_same():
  model = decoders.make_model(
    num_layers=1, memory=decoders.MEMORY, memory_layers=(0,)
  )
  graphdef, params = nnx.split(model)
  traces = []

  @jax.jit
  def forward(params, tokens, mask):
    traces.append(None)
    return nnx.merge(graphdef, params)(tokens, mask)

  for seed in (1, 2):
    tokens = decoders.tokens_of(2, 11, seed=seed)
    mask = jnp.ones(tokens.shape, bool)
    np.testing.assert_allclose(
      forward(params, tokens, mask), model(tokens), rtol=1e-4, atol=1e-5
    )
  assert len(traces) == 1
  transformer.greedy_decode(model, tokens, mask, 2, 1)
  after = nnx.split(model)
  assert after[0] == graphdef
  jax.tree.map(np.testing.assert_array_equal, after[1], params)


def assert_equal_without_memory(model, plain):
  """Reading zeros, the model must be the plain one, and not before."""
  tokens = decoders.tokens_of(2, 7)
  expected = decoders.logits_of(plain, tokens)
  assert np.any(decoders.logits_of(model, tokens) != expected)
  model.pool[...] = jnp.zeros_like(model.pool[...])
  np.testing.assert_array_equal(decoders.logits_of(model, tokens), expected)


def test_memory_beside_the_ffn_that_reads_zeros_changes_nothing():
  plain = decoders.make_model()
  beside = decoders.make_model(
    **decoders.WITH_MEMORY, memory_placement='beside'
  )
  nnx.update(beside, nnx.state(plain))
  assert_equal_without_memory(beside, plain)


def test_memory_in_place_of_the_ffn_that_reads_zeros_leaves_the_block_out():
  model = decoders.make_model(**decoders.WITH_MEMORY)
  assert model.blocks[1].mlp is None
  plain = decoders.make_model()
  state = nnx.to_pure_dict(nnx.state(model))
  del state['pool'], state['blocks'][1]['memory']
  plain_state = nnx.state(plain)
  nnx.replace_by_pure_dict(plain_state, state)
  nnx.update(plain, plain_state)
  down = plain.blocks[1].mlp.down.weight
  down[...] = jnp.zeros_like(down[...])
  assert_equal_without_memory(model, plain)


def test_memory_layers_share_one_pool_and_sow_in_their_blocks():
  model = decoders.make_model(memory=decoders.MEMORY, memory_layers=(0, 1))
  [pool] = jax.tree.leaves(nnx.state(model, memory.MemoryValue))
  assert pool.shape == (49, 5)
  graphdef, params = nnx.split(model)

  @jax.jit
  def forward(params, tokens):
    model = nnx.merge(graphdef, params)
    return nnx.capture(model, memory.SlotIds)(tokens)

  logits, sown = forward(params, decoders.tokens_of(2, 7))
  assert logits.shape == (2, 7, decoders.SIZES['vocab_size'])
  assert set(sown['blocks']) == {0, 1}
  for block in sown['blocks'].values():
    [slot_ids] = block['memory']['slot_ids'].get_value()
    assert slot_ids.shape == (2, 7, 6)


def test_bfloat16_model_computes_in_bfloat16():
  sizes = {'num_layers': 1, 'memory_layers': (0,), 'dtype': jnp.bfloat16}
  mem = memory.MemoryConfig(
    model_dim=14, num_slots=49, value_dim=5, k=2, dtype=jnp.bfloat16
  )
  model = decoders.make_model(memory=mem, **sizes)
  tokens = decoders.tokens_of(2, 7)
  assert np.isfinite(
    decoders.logits_of(model, tokens).astype(jnp.float32)
  ).all()
  decoded = decoders.decode(model, tokens, jnp.ones(tokens.shape, bool), 2, 1)
  assert decoded.shape == (2, 2)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_kv_heads': 4}, r'num_kv_heads must divide num_heads = 6, got 4'),
    ({'num_kv_heads': 0}, r'num_kv_heads'),
    ({'num_layers': 0}, r'num_layers'),
    ({'head_dim': 5}, r'head_dim must be even .* 5; take 6'),
    (
      decoders.WITH_MEMORY | {'memory_placement': 'besides'},
      r"memory_placement = 'besides' .* did you mean 'beside'",
    ),
    (
      decoders.WITH_MEMORY | {'memory_layers': (2,)},
      r'no block 2; blocks are 0 to 1',
    ),
    ({'memory': decoders.MEMORY}, r'memory and memory_layers go together'),
    ({'memory_layers': (1,)}, r'memory and memory_layers go together'),
    (decoders.WITH_MEMORY | {'model_dim': 13}, r'model_dim = 13, got 14'),
  ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(changes, message):
  with pytest.raises(ValueError, match=message) as caught:
    layers.TransformerConfig(**(decoders.SIZES | changes))
  assert '\n' not in str(caught.value)
