"""The decoder against a plain float64 reading of its definition."""

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax import counting
from smft_jax import memory
from smft_jax import optim
from smft_jax import ranking
from smft_jax.models import decoding
from smft_jax.models import layers
from tests.support import compilation
from tests.support import decoders


@pytest.fixture(autouse=True)
def quickly(request):
  """But for the comparison with the definition."""
  with compilation.quick('definition' not in request.node.name):
    yield


NORMS_AND_BIASES = {'qkv_bias': True, 'qk_norm': True}


# The grouped and the full heads serve a test below as well.
@pytest.mark.parametrize(
  'options',
  [
    {},
    NORMS_AND_BIASES,
    NORMS_AND_BIASES | {'num_kv_heads': 6},
    {'tie_embeddings': False, 'rope_theta': 500.0, 'num_kv_heads': 1},
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


def test_grouped_queries_equal_repeated_key_value_heads():
  grouped = decoders.make_model(**NORMS_AND_BIASES)
  full = decoders.make_model(**NORMS_AND_BIASES, num_kv_heads=6)
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
  tokens = decoders.tokens_of(2, 17)
  np.testing.assert_allclose(
    decoders.logits_of(full, tokens),
    decoders.logits_of(grouped, tokens),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize('pads', [(5, 0), (0, 5)])
def test_padding_changes_nothing_for_the_real_tokens(pads):
  model = decoders.make_model(**decoders.WITH_MEMORY)
  tokens = decoders.tokens_of(2, 11)
  pads = [(0, 0), pads]
  padded = np.pad(tokens, pads, constant_values=2)
  mask = np.pad(np.ones((2, 11), bool), pads)
  logits = np.asarray(decoders.logits_of(model, padded, mask))
  assert np.isfinite(logits).all()
  np.testing.assert_allclose(
    logits[mask].reshape(2, 11, -1),
    decoders.logits_of(model, tokens),
    rtol=1e-4,
    atol=1e-5,
  )


@functools.partial(jax.jit, static_argnums=0)
def logits_of_segments(graphdef, params, tokens, segments):
  """Logits, also those that start at the hidden states below the memory."""
  model = nnx.merge(graphdef, params)
  hidden = model.below_memory(tokens, segments > 0, segments)
  return (
    model(tokens, segments > 0, segments=segments),
    model(tokens, segments > 0, hidden, segments),
  )


@pytest.mark.parametrize('columns', [slice(0, 4), slice(4, 9)])
def test_texts_that_share_a_row_do_not_see_each_other(columns):
  model = nnx.split(decoders.make_model(**decoders.WITH_MEMORY))
  tokens = decoders.tokens_of(2, 11)
  segments = jnp.array([[1] * 4 + [2] * 5 + [0] * 2] * 2, jnp.int32)
  before, reused = logits_of_segments(*model, tokens, segments)
  np.testing.assert_allclose(reused, before, rtol=1e-5, atol=1e-5)
  changed = tokens.at[:, columns].set((tokens[:, columns] + 1) % 23)
  after, _ = logits_of_segments(*model, changed, segments)
  mine = np.zeros(11, bool)
  mine[columns] = True
  real = np.asarray(segments[0] > 0)
  np.testing.assert_array_equal(after[:, ~mine & real], before[:, ~mine & real])
  assert np.all(np.any(after[:, mine] != before[:, mine], axis=-1))


def test_one_text_in_a_row_is_as_without_segments():
  model = decoders.make_model(**decoders.WITH_MEMORY)
  tokens = decoders.tokens_of(2, 11)
  mask = jnp.arange(11)[None] < jnp.array([11, 8])[:, None]
  segments = mask.astype(jnp.int32)
  np.testing.assert_array_equal(
    logits_of_segments(*nnx.split(model), tokens, segments)[0][mask],
    decoders.logits_of(model, tokens, mask)[mask],
  )


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
  # Traced with the model itself, which no trace may change either.
  jax.eval_shape(lambda: decoding.greedy_decode(model, tokens, mask, 2, [1]))
  after = nnx.split(model)
  assert after[0] == graphdef
  jax.tree.map(np.testing.assert_array_equal, after[1], params)


def assert_equal_without_memory(model, plain):
  """Reading zeros, the model must be the plain one, and not before."""
  tokens = decoders.tokens_of(2, 11)
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

  def forward(params, tokens):
    model = nnx.merge(graphdef, params)
    return nnx.capture(model, memory.SlotIds)(tokens)

  logits, sown = jax.eval_shape(forward, params, decoders.tokens_of(2, 7))
  assert logits.shape == (2, 7, decoders.SIZES['vocab_size'])
  assert set(sown['blocks']) == {0, 1}
  for block in sown['blocks'].values():
    [slot_ids] = block['memory']['slot_ids'].get_value()
    assert slot_ids.shape == (2, 7, 6)


@pytest.mark.parametrize('placement', ['replace', 'beside'])
@pytest.mark.parametrize('stored', ['bfloat16', 'float32'])
def test_bfloat16_model_computes_in_bfloat16(stored, placement):
  sizes = {'num_layers': 1, 'memory_layers': (0,), 'dtype': jnp.bfloat16}
  # As retrofitted, say: a float32 memory in a bfloat16 model.
  mem = memory.MemoryConfig(model_dim=14, num_slots=49, value_dim=5, k=2)
  model = decoders.make_model(
    memory=mem, memory_placement=placement, param_dtype=stored, **sizes
  )
  tokens = decoders.tokens_of(2, 7)
  assert model.final_hidden(tokens).dtype == jnp.bfloat16
  logits = decoders.logits_of(model, tokens)
  assert logits.dtype == jnp.float32
  assert np.isfinite(logits).all()
  # Tracing is enough to refuse a dtype that is mixed with another.
  decoded = jax.eval_shape(
    lambda: decoding.greedy_decode(
      model, tokens, jnp.ones(tokens.shape, bool), 2, [1]
    )
  )
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


@pytest.mark.parametrize('placement', ['replace', 'beside'])
def test_layers_that_share_a_pool_carry_the_counts_of_all_real_tokens(
  placement,
):
  # As our own trainer counts: also tokens that bear no loss, and while the gate
  # of a layer beside an FFN is still shut.
  mem = dataclasses.replace(decoders.MEMORY, count_carrier=True)
  model = decoders.make_model(
    num_layers=3,
    memory=mem,
    memory_layers=(0, 2),
    memory_placement=placement,
  )
  tokens = decoders.tokens_of(2, 7)
  mask = jnp.arange(7)[None] < jnp.array([[7], [4]])

  def loss(params, graphdef):
    forward = nnx.capture(nnx.merge(graphdef, params), memory.SlotIds)
    logits, slot_ids = forward(tokens, mask)
    return jnp.sum(logits[:, 2]), jax.tree.leaves(slot_ids)

  graphdef, params = nnx.split(model)
  gradient, slot_ids = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(
    params, graphdef
  )
  assert len(slot_ids) == 2
  np.testing.assert_array_equal(
    counting.carried_counts(gradient['pool_counts'][...]),
    ranking.count_accesses(jnp.concatenate(slot_ids, -1), mem.num_slots, mask),
  )
  optimizer = optim.sparse_memory_finetuning(
    optax.sgd(1.0),
    3,
    rank_by='tf',
    is_values=counting.named('pool'),
    is_carrier=counting.named('pool_counts'),
  )
  updates, _ = optimizer.update(gradient, optimizer.init(params), params)
  moved = jnp.any(updates['pool'][...] != 0, axis=-1)
  assert jnp.sum(moved) <= 3
