"""The estimate of a training step: bytes by kind, and bytes sent."""

import dataclasses
import re

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from smft_jax import methods
from smft_jax import schema
from smft_jax.compile import __main__ as compile_lib
from smft_jax.compile import compiled
from smft_jax.compile import estimate as estimate_lib
from smft_jax.compile import shapes
from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from smft_jax.data import tokenizers
from smft_jax.models import transformer
from smft_jax.runs import base as base_lib
from smft_jax.runs import finetune
from smft_jax.runs import model as model_lib
from smft_jax.runs import states
from smft_jax.runtime import program
from smft_jax.training import step as step_lib
from tests.support import many_processes
from tests.support import tiny_run

MESH = {'data': 2, 'fsdp': 2, 'memory': 2}


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly: nothing runs often."""


def make(**changes):
  sizes = {**many_processes.SIZES, 'mesh': MESH, **changes}
  if sizes['mesh'] is None:
    del sizes['mesh']
  return config_lib.from_config_dict(tiny_run.make(**sizes))


def report(**changes):
  return estimate_lib.estimate(make(**changes), jax.devices())


@pytest.fixture(scope='module')
def found():
  """The estimate of `make()`, and the program that it compiled."""
  compile, programs = jax.stages.Lowered.compile, []

  def recorded(lowered):
    programs.append(compile(lowered))
    return programs[-1]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax.stages.Lowered, 'compile', recorded)
    patch.setattr(compiled, 'free_memory', lambda device: 1e9)
    return report(), *programs


def test_the_kinds_of_bytes_are_those_of_the_arrays_and_of_the_program(found):
  found, program = found
  kinds = found.memory
  assert kinds['value table'] == 64 * 12 * 4 / 2
  assert kinds['sub-keys'] == 2 * 2 * 8 * 3 * 4 / 2
  assert kinds['document frequencies'] == 64 * 4 / 2 + 4
  # int32 tokens, a boolean and a float32 weight, over four replicas.
  _, length = shapes.vocab_size_and_length(make())
  assert kinds['batch'] == 8 * length * (4 + 1 + 4) / 4
  assert kinds['padding of these'] == 0
  assert kinds['results not in place'] < 512  # numbers, and a tuple of all
  sizes = program.memory_analysis()
  assert found.total == (
    sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    - sizes.alias_size_in_bytes
    + sizes.temp_size_in_bytes
    + sizes.generated_code_size_in_bytes
  )
  assert found.capacity == 1e9
  assert found.fits
  assert found.mesh == MESH


def test_nothing_that_is_sent_grows_with_the_table(found):
  # So few slots of a device that all are scored, and so many that only those
  # accessed are. Sub-keys are as many as the square root.
  few, many = found[0], report(memory__num_slots=176**2)
  assert many.memory['value table'] == 22**2 * few.memory['value table']
  assert few.sent_bytes > 0
  few, many = (
    sorted((str(c), c.devices, c.times) for c in one.sent)
    for one in (few, many)
  )
  assert few == many


def test_devices_along_memory_repeat_what_replicas_split(found):
  whole = report(mesh={'memory': 8})
  # All but the search: tokens x heads x sub-keys x key dims.
  tokens = 8 * shapes.vocab_size_and_length(make())[1]
  search = 2 * tokens * 2 * 8 * 6
  assert whole.flops - search / 8 == 4 * (found[0].flops - search / 8)


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  """An untrained base."""
  experiment = make(mesh=None, model__memory_placement='beside')
  task = base_lib.make_task(experiment)
  tokenizer = tokenizers.train_word_level(task.vocabulary_texts())
  config = model_lib.config_of(experiment, tokenizer.vocab_size)
  graphdef, shapes_of_params = nnx.split(
    nnx.eval_shape(lambda: transformer.Transformer(config, rngs=nnx.Rngs(0)))
  )
  return base_lib.Base(
    folder=tmp_path_factory.mktemp('base'),
    read_task=lambda: task,
    tokenizer=tokenizer,
    graphdef=graphdef,
    params=jax.tree.map(
      lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes_of_params
    ),
    fingerprint='untrained',
  )


def described(tree):
  return {
    jax.tree_util.keystr(path): (leaf.shape, leaf.dtype)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


STEPS = [
  *({'name': name} for name in methods.METHODS if name != 'in_context'),
  {'name': 'sparse_memory', 'replay_fraction': 0.5},
  {'name': 'sparse_memory', 'stream__packed': True, 'stream__max_length': 29},
]


@pytest.mark.parametrize(
  'method', STEPS, ids=lambda m: ','.join(map(str, m.values()))
)
def test_the_step_is_that_of_a_run(method, base):
  changes = {'model__memory_placement': 'beside'}
  changes |= {k: v for k, v in method.items() if k.startswith('stream__')}
  method = {k: v for k, v in method.items() if k not in changes}
  if method['name'] == 'sparse_memory':
    method = method | {'t': 7}
  if method['name'] == 'ewc':
    method = method | {'num_sequences': 32}
  changes['method'] = method
  experiment = make(mesh=None, **changes)
  with jax.numpy_dtype_promotion('standard'):  # optax adds numbers to arrays
    state = states.first_state(experiment, base)
    begin_document = state.method.begin_document
    if begin_document is not None:
      state.extras.update(begin_document(0, 3))
    batch, *_ = finetune.make_learner(experiment, base).batches.step(0, 0)
    assert described(shapes.step(experiment)) == described((state, batch))
    # On a mesh it can be traced too.
    _, values = jax.eval_shape(
      step_lib.train_step, *shapes.step(make(**changes))
    )
  assert values['loss'].shape == ()


def test_without_a_stream_it_is_that_of_pretraining():
  experiment = make(stream=None, method=None, background=None, mesh=None)
  with jax.numpy_dtype_promotion('standard'):
    state, batch = shapes.step(experiment)
    found = estimate_lib.estimate(experiment, jax.devices())
  assert state.method.name == 'pretraining'
  assert batch.tokens.shape[0] == experiment.base.batch_size
  # Two moments of each weight.
  weights = found.memory['value table'] + found.memory['sub-keys']
  weights += found.memory['other weights']
  assert found.memory['optimizer state'] == pytest.approx(2 * weights, rel=0.01)


@pytest.mark.parametrize(
  ('variant', 'changes', 'length'),
  [
    ('facts', {}, 64),
    ('documents', {}, 512),
    ('facts', {'stream.max_length': 'none'}, 512),
    ('facts', {'method.replay_fraction': '0.5'}, 512),
    ('facts', {'stream': 'none'}, 512),
  ],
)
def test_a_config_compiles_without_the_data_it_would_read(
  variant, changes, length
):
  overrides = [f'--config.{key}={value}' for key, value in changes.items()]
  invocation = command_line.parse(
    [f'--config=configs/paper_1b.py:{variant}', *overrides]
  )
  with pytest.raises(schema.UserError, match=r'\.data\.documents_file='):
    config_lib.from_config_dict(config_file.load('configs/paper_1b.py'))
  experiment = shapes.parse_experiment(invocation.config)
  assert shapes.vocab_size_and_length(experiment) == (32768, length)


@pytest.mark.parametrize('fits', [True, False])
def test_the_program_says_whether_it_fits(
  fits, found, tmp_path, capsys, monkeypatch
):
  capacity = 1e9 if fits else 1000
  monkeypatch.setattr(
    estimate_lib,
    'estimate',
    lambda *_: dataclasses.replace(found[0], capacity=capacity),
  )
  config = many_processes.write_config(tmp_path, mesh=MESH)
  code = program.run(compile_lib.main, [f'--config={config}'])
  assert code == (0 if fits else 1)
  said = capsys.readouterr().out
  assert 'data 2 x fsdp 2 x memory 2' in said
  assert 'all-reduce' in said
  assert bool(re.search(r'it fits: \d+% of the memory', said)) == fits
  assert ('it does not fit' in said) != fits


def test_a_chip_that_is_known_bounds_the_step(found):
  found, _ = found
  assert found.seconds() == {}  # the peak rates of a CPU are unknown
  known = dataclasses.replace(
    found,
    peak=compiled.Device(
      memory=1e9, bandwidth=1e6, flops=1e15, links=1e15, source=''
    ),
  )
  seconds = known.seconds()
  assert max(seconds, key=seconds.get) == 'memory'
  assert seconds['links'] == found.sent_bytes / 1e15
  said = '\n'.join(estimate_lib.lines(known))
  assert 'bound by memory' in said
  assert 'compute, at 1000 T/s' in said


def test_a_step_that_the_compiler_refuses_does_not_fit(
  tmp_path, capsys, monkeypatch
):
  refused = compiled.Program(
    memory={'arguments': 1e5, 'temporaries': 1e9}, refusal='out of memory'
  )
  monkeypatch.setattr(compiled, 'compile_for', lambda *_, **__: refused)
  config = many_processes.write_config(tmp_path, mesh=MESH)
  assert program.run(compile_lib.main, [f'--config={config}']) == 1
  said = capsys.readouterr().out
  assert said.endswith('it does not fit: out of memory\n')


def test_a_run_is_as_long_as_its_config_says():
  assert estimate_lib._run(make()) == ('learning 1000 documents', 2000)
  few = make(stream__steps_per_document=3, stream__max_documents=7)
  assert estimate_lib._run(few) == ('learning 7 documents', 21)
  base_only = make(stream=None, method=None)
  assert estimate_lib._run(base_only) == ('pretraining', 5)


def test_tokens_and_chip_hours_are_those_of_all_steps_and_devices(found):
  found, _ = found
  _, length = shapes.vocab_size_and_length(make())
  said = '\n'.join(estimate_lib.lines(found))
  assert found.num_steps == 2000
  assert f'tokens {2000 * 8 * length / 1e6:37.3f} M' in said
  assert 'chip hours' not in said  # the peak rates of a CPU are unknown
  known = dataclasses.replace(
    found,
    flops=3e12,
    peak=compiled.Device(
      memory=1e9, bandwidth=1e15, flops=1e12, links=1e15, source=''
    ),
  )
  # 3 s a step at the peak, on eight devices.
  hours = 2000 * 3 / 0.4 * 8 / 3600
  assert known.device_hours() == pytest.approx(hours)
  said = '\n'.join(estimate_lib.lines(known))
  assert f'chip hours, at 40% of the peak {hours:13.3f} h, an estimate' in said


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--config.mesh.data=3'], 'batch_size = 8 must be a multiple of the 3'),
    (['--config.mesh.memory=8'], 'takes 16 devices, which does not divide'),
    (['--config.method.name=in_context'], "'in_context' takes no steps"),
    (['--topolgy=v5e:4x4'], 'did you mean --topology?'),
    (['--config.stream.max_length=1'], 'max_length must be at least 2'),
    (
      ['--config.memory.num_slots=49', '--config.mesh.data=1'],
      'mesh axis memory = 2 does not divide num_slots = 49',
    ),
  ],
)
def test_bad_input_is_one_line_and_exit_code_2(
  flags, message, tmp_path, capsys
):
  config = many_processes.write_config(
    tmp_path, mesh={'data': 2, 'fsdp': 1, 'memory': 2}
  )
  assert program.run(compile_lib.main, [f'--config={config}', *flags]) == 2
  said = capsys.readouterr().err.strip().splitlines()
  assert len(said) == 1
  assert message in said[0]


@pytest.mark.parametrize(
  ('changes', 'hint'),
  [
    # Four divides all batches, and two the eight sub-keys.
    (
      {'base__batch_size': 4},
      'takes 1 of the 8 chips of --topology=v5e:2x4: for one,'
      ' --config.mesh.data=4 --config.mesh.memory=2',
    ),
    ({'base__batch_size': 7, 'memory__num_slots': 49}, 'no other mesh divides'),
  ],
)
def test_a_mesh_that_leaves_chips_out_is_refused_with_another(
  changes, hint, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(compiled, 'tpu', lambda topology: jax.devices())
  config = many_processes.write_config(tmp_path, **changes)
  arguments = [f'--config={config}', '--topology=v5e:2x4']
  assert program.run(compile_lib.main, arguments) == 2
  said = capsys.readouterr().err
  assert hint in said
  if 'for one' in hint:
    arguments += re.findall(r'--config\.mesh\.\w+=\d+', said)
    assert program.run(compile_lib.main, arguments) == 0
    assert 'data 4 x fsdp 1 x memory 2' in capsys.readouterr().out
