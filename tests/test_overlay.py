"""Reading an overlay equals reading the version of the table itself."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax import lesson as lesson_lib
from smft_jax import lookup
from smft_jax import memory
from smft_jax import overlay as overlay_lib
from smft_jax.models import decoding
from smft_jax.sharded import layout as layout_lib
from smft_jax.sharded import lookup as sharded_lookup
from smft_jax.training import state as state_lib
from tests.support import compilation
from tests.support import decoders
from tests.support import lessons

N, V = lessons.N, lessons.V
WHICH = [1, -1, 0, 1]
L, A = 5, 13

read_overlay = jax.jit(overlay_lib.read_rows)
read_table = jax.jit(lookup.read_rows)


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Applies to all tests but the one of a compiled program's size."""


def reads(seed=3):
  random = np.random.default_rng(seed)
  shape = (len(WHICH), L, A)
  slot_ids = jnp.asarray(random.integers(0, N, shape), jnp.int32)
  return slot_ids, jnp.asarray(random.uniform(0, 1, shape), jnp.float32)


def lessons_of(dtype=np.float32):
  slots = np.random.default_rng(4).permutation(N)
  return [
    lessons.make(np.sort(slots[:31]), 1, dtype),
    lessons.make(np.sort(slots[17:70]), 2, dtype),
  ]


def tables(values, given):
  """The table that each row of the batch should read."""
  written = [lesson_lib.apply(values, one) for one in given]
  return [values if i < 0 else written[i] for i in WHICH]


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_each_row_reads_its_lesson(dtype):
  values, given = lessons.table(dtype=dtype), lessons_of(dtype)
  slot_ids, weights = reads()
  found = read_overlay(
    values, lesson_lib.overlay(given, WHICH), slot_ids, weights
  )
  assert found.dtype == dtype
  expected = [
    read_table(one, slot_ids[i], weights[i])
    for i, one in enumerate(tables(values, given))
  ]
  eps = float(jnp.finfo(dtype).eps)
  wide = np.array(expected, np.float64)
  np.testing.assert_allclose(
    np.asarray(found, np.float64), wide, rtol=4 * eps, atol=8 * eps
  )
  # The lesson makes a difference.
  plain = read_table(values, slot_ids[0], weights[0])
  assert np.max(np.abs(np.asarray(plain, np.float64) - wide[0])) > 0.5


def test_a_lesson_without_rows_is_the_table():
  values = lessons.table()
  slot_ids, weights = reads()
  overlay = lesson_lib.overlay([lessons.make([])], [0] * len(WHICH))
  np.testing.assert_array_equal(
    read_overlay(values, overlay, slot_ids, weights),
    read_table(values, slot_ids, weights),
  )


def test_bad_arguments_are_refused():
  overlay = lesson_lib.overlay(lessons_of(), WHICH)
  slot_ids, weights = reads()
  with pytest.raises(ValueError, match=r'a batch of 2.*of 4'):
    overlay_lib.read_rows(lessons.table(), overlay, slot_ids[:2], weights[:2])
  with pytest.raises(ValueError, match='which holds 2, but there are 2'):
    lesson_lib.overlay(lessons_of(), [0, 2])
  with pytest.raises(ValueError, match='at least one version'):
    lesson_lib.overlay([], [-1])


@pytest.mark.parametrize('split', ['rows', 'dims'])
def test_a_table_on_a_mesh_reads_the_same(split):
  mesh = layout_lib.make_mesh(2, 1, 4)
  layout = layout_lib.make_layout(mesh, split, 'subkeys')
  values = jnp.asarray(
    np.random.default_rng(0).standard_normal((96, 8)), jnp.float32
  )
  given = [lessons.make([2, 3, 50, 95], values=values)]
  slot_ids, weights = reads()
  slot_ids %= 96
  overlay = lesson_lib.overlay(given, [0, -1, 0, -1])
  expected = read_overlay(values, overlay, slot_ids, weights)
  with jax.set_mesh(mesh):
    found = jax.jit(
      functools.partial(
        overlay_lib.read_rows,
        read=functools.partial(sharded_lookup.read_rows, layout),
      )
    )(
      jax.device_put(values, layout.sharding(layout.values_NxV)),
      overlay,
      slot_ids,
      weights,
    )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def model_and_lessons():
  model = decoders.make_model(memory=decoders.MEMORY, memory_layers=(0, 1))
  values = state_lib.value_table(nnx.split(model)[1])
  given = [
    lessons.make([0, 3, 4, 11, 30], 1, values=values),
    lessons.make(range(49), 2, values=values),
  ]
  return model, values, given


def test_a_decoder_uses_each_lesson_as_if_it_were_applied():
  model, values, given = model_and_lessons()
  graphdef, params = nnx.split(model)
  tokens = np.tile(decoders.tokens_of(1, 6), (len(WHICH), 1))
  mask = jnp.broadcast_to(np.arange(6) >= 2, tokens.shape)
  overlay = lesson_lib.overlay(given, WHICH)

  @jax.jit
  def run(params, overlay):
    model = nnx.merge(graphdef, params)
    return (
      model(tokens, mask, overlay=overlay),
      decoding.greedy_decode(model, tokens, mask, 4, [1], overlay),
    )

  logits, decoded = run(params, overlay)
  none = lesson_lib.overlay(given, [-1] * len(WHICH))  # the same program
  frozen = nnx.split_state(params, memory.MemoryValue, ...)
  for row, written in enumerate(tables(values, given)):
    changed = jax.tree.map(lambda _, new=written: new, frozen[0])
    nnx.update(model, changed)
    np.testing.assert_allclose(
      logits[row, 2:],
      decoders.logits_of(model, tokens, mask)[row, 2:],
      rtol=2e-5,
      atol=2e-5,
    )
    _, expected = run(nnx.merge_state(frozen[1], changed), none)
    np.testing.assert_array_equal(decoded[row], expected[row])
  first, plain = np.asarray(logits)[:2, 2:]
  assert np.max(np.abs(first - plain)) > 1e-2


def test_no_table_is_copied():
  num_slots, value_dim, rows = 2**18, 16, 2**14 + 3
  config = memory.MemoryConfig(
    model_dim=14, num_slots=num_slots, value_dim=value_dim, k=2, key_dim=6
  )
  graphdef, params = nnx.split(
    nnx.eval_shape(lambda: memory.ProductKeyMemory(config, rngs=nnx.Rngs(0)))
  )
  version = (np.arange(rows), np.zeros((rows, value_dim), np.float32))
  with compilation.quick(False):
    program = (
      jax.jit(lambda p, x, o: nnx.merge(graphdef, p)(x, overlay=o))
      .lower(
        params,
        jax.ShapeDtypeStruct((len(WHICH), 3, 14), jnp.float32),
        overlay_lib.make([version, version], WHICH),
      )
      .compile()
    )
  sizes = program.memory_analysis()
  bytes_of_table = num_slots * value_dim * 4
  assert sizes.argument_size_in_bytes > bytes_of_table
  # Nor are the rows of the lessons, twice as much as this.
  assert sizes.temp_size_in_bytes < bytes_of_table / 16
