"""Experts: what they add, and that only one of them ever trains."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smft_jax.methods import experts
from smft_jax.training import step as step_lib
from tests.support import decoders
from tests.support import method_steps
from tests.support import steps

pytestmark = pytest.mark.usefixtures('quick_compilation')

WIDTH, E = 11, 3
METHOD = experts.make(
  experts.Config(learning_rate=1e-2, width=WIDTH, num_experts=E)
)
FIRST = {'expert': jnp.int32(0)}


def make_mixed():
  return METHOD.add_modules(steps.make_model(), nnx.Rngs(7))


def test_every_ffn_gets_experts_and_nothing_else_changes():
  # The second block has memory in place of its FFN.
  model = decoders.make_model(**decoders.WITH_MEMORY)
  place = 'blocks/0/mlp/down/expert_'
  shapes = {
    'down': (E, 14, WIDTH),
    'up': (E, WIDTH, 14),
    'gate': (E, 14),
    'bias': (E,),
  }
  method_steps.check_nothing_else_changes(
    METHOD, model, {place + name: shape for name, shape in shapes.items()}
  )


def test_experts_add_gated_networks_of_the_output():
  projection = make_mixed().blocks[0].mlp.down
  random = np.random.default_rng(3)
  for name in ('up', 'gate', 'bias'):
    variable = getattr(projection, f'expert_{name}')
    numbers = random.normal(size=variable.shape)
    variable[...] = jnp.asarray(numbers, jnp.float32)
  w, down, up, gate, bias = (
    np.asarray(variable[...], np.float64)
    for variable in (
      projection.weight,
      projection.expert_down,
      projection.expert_up,
      projection.expert_gate,
      projection.expert_bias,
    )
  )
  x = random.normal(size=(2, 5, 19))
  y = x @ w
  expected = y.copy()
  for e in range(E):
    inner = y @ down[e]
    open_part = 1 / (1 + np.exp(-(y @ gate[e] + bias[e])))
    change = inner / (1 + np.exp(-inner)) @ up[e]
    expected += open_part[..., None] * change
  np.testing.assert_allclose(
    projection(jnp.asarray(x, jnp.float32)), expected, rtol=1e-4, atol=1e-4
  )


def test_only_the_given_expert_trains_whatever_trained_before():
  """Momentum and decay must not move an expert whose turn is over."""
  programs = set()
  state = method_steps.init(make_mixed(), METHOD, FIRST)
  batch = steps.make_batch()
  for document, expert in ((6, 2), (3, 1)):
    state.extras.update(METHOD.begin_document(document, 7))
    old = method_steps.variables(state.params)
    moments = [np.array(leaf) for leaf in jax.tree.leaves(state.opt_state)]
    losses = []
    with steps.optax_promotion():
      for _ in range(4):
        state, metrics = step_lib.train_step(state, batch)
        losses.append(float(metrics['loss']))
    assert np.all(np.diff(losses) < 0), losses
    programs.add(step_lib.train_step._cache_size())
    new = method_steps.variables(state.params)
    for name, array in old.items():
      if 'expert_' not in name:
        assert array.tobytes() == new[name].tobytes(), name
        continue
      for e in range(E):
        same = array[e].tobytes() == new[name][e].tobytes()
        assert same == (e != expert), (name, e)
    others = np.arange(E) != expert
    for before, leaf in zip(
      moments, jax.tree.leaves(state.opt_state), strict=True
    ):
      np.testing.assert_array_equal(before[others], np.array(leaf)[others])
  assert len(programs) == 1  # the next group shares it


def test_an_expert_trains_as_if_it_had_the_optimizer_alone():
  random = np.random.default_rng(3)
  gradients = jnp.asarray(random.normal(size=(6, E, 5)), jnp.float32)
  start = jnp.asarray(random.normal(size=(E, 5)), jnp.float32)
  inner = optax.adamw(0.1)
  together = experts.one_expert_at_a_time(inner)
  params, state = start, together.init(start)
  alone = [(start[e], inner.init(start[e])) for e in range(E)]
  for step, expert in enumerate((0, 0, 2, 2, 0, 2)):
    with steps.optax_promotion():
      updates, state = together.update(
        gradients[step], state, params, expert=jnp.int32(expert)
      )
      own, own_state = alone[expert]
      own_updates, own_state = inner.update(
        gradients[step, expert], own_state, own
      )
    params = optax.apply_updates(params, updates)
    alone[expert] = optax.apply_updates(own, own_updates), own_state
  np.testing.assert_allclose(
    params, jnp.stack([own for own, _ in alone]), rtol=1e-6
  )
  np.testing.assert_array_equal(params[1], start[1])


def test_groups_of_documents_follow_one_another():
  trained = [int(METHOD.begin_document(i, 7)['expert']) for i in range(7)]
  assert trained == [0, 0, 0, 1, 1, 2, 2]
  assert METHOD.begin_document(0, 1)['expert'].dtype == jnp.int32


def test_decoding_reads_the_experts_too():
  method_steps.check_decoding(METHOD, steps.make_model(), FIRST)


def test_a_model_without_ffns_is_refused():
  model = decoders.make_model(
    num_layers=1, memory=decoders.MEMORY, memory_layers=(0,)
  )
  with pytest.raises(ValueError, match='matches no projection; there are'):
    METHOD.add_modules(model, nnx.Rngs(7))
