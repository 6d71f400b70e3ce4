"""Makes decoders: whole, in part, or as shapes alone."""

from __future__ import annotations

from flax import nnx
import jax

from smft_jax import memory as memory_lib
from smft_jax.models import layers
from smft_jax.models import transformer


def make(
  config: layers.TransformerConfig, seed: int
) -> tuple[nnx.GraphDef, nnx.State]:
  """Makes a decoder; on a mesh, each device makes only its own part.

  Args:
    config: Its sizes, and the mesh.
    seed: Seed of the parameters.

  Returns:
    The model and its Variables.
  """
  if config.memory is None or config.memory.layout is None:
    return nnx.split(transformer.Transformer(config, rngs=nnx.Rngs(seed)))
  graphdef, like = shapes(config)
  return graphdef, make_some(config, seed, like, nnx.Variable)


def make_some(
  config: layers.TransformerConfig,
  seed: int,
  params: nnx.State,
  kind: type[nnx.Variable],
) -> nnx.State:
  """Makes the Variables of one type as `make` does, and no others.

  Args:
    config: As for `make`.
    seed: As for `make`.
    params: The others; of those that are made, the shapes and shardings.
    kind: Type of the Variables to make.

  Returns:
    All Variables.
  """
  wanted, rest = nnx.split_state(params, kind, ...)

  def build() -> nnx.State:
    model = transformer.Transformer(config, rngs=nnx.Rngs(seed))
    return nnx.filter_state(nnx.state(model), kind)

  # Compiled, so that what is not returned is not drawn.
  placed = jax.tree.map(lambda x: x.sharding, wanted)
  return nnx.merge_state(rest, jax.jit(build, out_shardings=placed)())


def shapes(
  config: layers.TransformerConfig,
) -> tuple[nnx.GraphDef, nnx.State]:
  """Returns a decoder, and shapes and shardings of its Variables."""
  graphdef, found = nnx.split(
    nnx.eval_shape(lambda: transformer.Transformer(config, rngs=nnx.Rngs(0)))
  )
  layout = config.memory.layout if config.memory is not None else None
  if layout is None:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(lambda _: device, found)
  else:
    placed = memory_lib.shardings_of(found, layout)
  return graphdef, jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    found,
    placed,
  )
