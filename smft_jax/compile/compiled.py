"""What a compiled program needs, on a device at hand or on none.

XLA compiles for a TPU that nobody has at hand, and tells what the program would
take of it: see `tpu`.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from smft_jax import schema

# Instructions that hand an array on, or write into it in place. What happens
# inside a fusion or a loop has lines of its own.
_PASSES_ON = {
  *('parameter', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'call'),
  *('conditional', 'fusion', 'scatter', 'dynamic-update-slice', 'opt-barrier'),
  *('call-start', 'call-update', 'call-done'),
  *('async-start', 'async-update', 'async-done'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
  """What the maker says of one chip.

  Attributes:
    memory: Bytes.
    bandwidth: Of that memory, bytes per second.
    flops: Dense bfloat16 operations per second.
    links: Bytes per second that a chip sends to others, over all its links at
      once: of a TPU to its pod, of a GPU to its machine. Half of what is said
      of both directions.
    source: The page that says so.
  """

  memory: float
  bandwidth: float
  flops: float
  links: float
  source: str


DEVICES = {
  'TPU v5 lite': Device(
    memory=16e9,
    bandwidth=819e9,
    flops=197e12,
    links=200e9,
    source='https://docs.cloud.google.com/tpu/docs/v5e',
  ),
  'TPU v5': Device(
    memory=95e9,
    bandwidth=2765e9,
    flops=459e12,
    links=600e9,
    source='https://docs.cloud.google.com/tpu/docs/v5p',
  ),
  'TPU v6 lite': Device(
    memory=32e9,
    bandwidth=1638e9,
    flops=918e12,
    links=400e9,
    source='https://docs.cloud.google.com/tpu/docs/v6e',
  ),
  'NVIDIA H100 80GB HBM3': Device(
    memory=80e9,
    bandwidth=3.35e12,
    flops=989e12,
    links=450e9,
    source='https://www.nvidia.com/en-us/data-center/h100/',
  ),
  'NVIDIA H200': Device(
    memory=141e9,
    bandwidth=4.8e12,
    flops=989e12,
    links=450e9,
    source='https://www.nvidia.com/en-us/data-center/h200/',
  ),
}
"""By the name that jax gives them; 'TPU v5' is v5p, the lite ones v5e, v6e."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A compiled program.

  Attributes:
    memory: Bytes by what they are for; together the peak.
    cost: The compiler's own count: flops, bytes accessed, optimal_seconds.
    text: The program in XLA's words.
    run: It, or None where the compiler refused it.
    refusal: Why.
  """

  memory: dict[str, float]
  cost: dict[str, float] = dataclasses.field(default_factory=dict)
  text: str = ''
  run: Any = None
  refusal: str = ''

  @property
  def peak(self) -> float:
    """Bytes."""
    return sum(self.memory.values())


def on_device(device: jax.Device, tree: Any) -> Any:
  """Shapes of arrays, or of their shapes, that lie on one device."""
  sharding = jax.sharding.SingleDeviceSharding(device)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )


def bytes_on_chip(tree: Any) -> int:
  """Bytes that one device has of shapes with shardings."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def compile_for(function: Any, *shapes: Any) -> Program:
  """Compiles a function for the devices its arguments lie on, there or not.

  Args:
    function: Jitted, see `jax.jit`.
    *shapes: Trees of `jax.ShapeDtypeStruct`s with shardings.

  Returns:
    The program. If it does not fit the devices, only its arguments and its
    temporaries are known.
  """
  try:
    compiled = function.lower(*shapes).compile()
  except jax.errors.JaxRuntimeError as error:
    refusal = re.search(r'RESOURCE_EXHAUSTED: (.*)', str(error))
    if not refusal:
      raise
    size = re.search(r'temporaries \(([\d.]+)G\)', refusal[1])
    return Program(
      memory={
        'arguments': float(bytes_on_chip(shapes)),
        'temporaries': float(size[1]) * 2**30 if size else math.inf,
      },
      refusal=refusal[1],
    )
  sizes, cost = compiled.memory_analysis(), compiled.cost_analysis()
  return Program(
    memory={
      'arguments': sizes.argument_size_in_bytes,
      'results not in place': (
        sizes.output_size_in_bytes - sizes.alias_size_in_bytes
      ),
      'temporaries': sizes.temp_size_in_bytes,
      'code': sizes.generated_code_size_in_bytes,
    },
    # Where the compiler does not know, it says a negative number or nothing.
    cost={
      name: cost[name]
      for name in ('flops', 'bytes accessed', 'optimal_seconds')
      if cost.get(name, -1) > 0
    },
    text=compiled.as_text(),
    run=compiled,
  )


def arrays_made(text: str, shape: Sequence[int]) -> list[str]:
  """Instructions of a compiled program that make an array of a shape.

  Args:
    text: `Program.text`.
    shape: Such as [N, V].

  Returns:
    Their lines, up to the operands. An array that comes in, is handed on and
    is written in place makes none.

  Example:
    >>> import jax.numpy as jnp
    >>> table = jnp.ones((7, 5))
    >>> text = jax.jit(lambda x: x * 2).lower(table).compile().as_text()
    >>> len(arrays_made(text, (7, 5))) > 0, arrays_made(text, (5, 7))
    (True, [])
  """
  dims = f'[{",".join(map(str, shape))}]'
  made = []
  for line in text.splitlines():
    match = re.match(r'\s*(?:ROOT )?(%?[\w.-]+ = (.*?) ([a-z][\w-]*))\(', line)
    if match and dims in match[2] and match[3] not in _PASSES_ON:
      made.append(match[1])
  return made


def tpu(topology: str) -> list[jax.Device]:
  """The chips of a TPU that need not be there.

  Args:
    topology: Such as 'v5p:2x2x1'.

  Raises:
    UserError: If there is no such TPU, no libtpu to compile for it, or its
      chips are not in `DEVICES`.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise schema.UserError(
      '--topology needs libtpu: pip install "smft-jax[tpu]"'
    )
  # Else libtpu looks for the TPU of this machine, waits for it, and complains.
  os.environ['TPU_SKIP_MDS_QUERY'] = '1'
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-4')
  # Nor does it take a TPU that another process must not share.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  jax.config.update('jax_platforms', 'cpu')
  try:
    found = topologies.get_topology_desc(platform='tpu', topology_name=topology)
  except jax.errors.JaxRuntimeError as error:
    raise schema.UserError(
      f'--topology={topology} is not known; v5e:1x1, v5p:2x2x1 and v6e:1x1'
      f' are ({str(error).splitlines()[0]})'
    ) from None
  devices: list[jax.Device] = list(found.devices)
  kind = devices[0].device_kind
  if kind not in DEVICES:
    raise schema.UserError(
      f'--topology={topology} has chips of a kind, {kind!r}, whose memory and'
      f' peak rates are not known here: take v5e, v5p or v6e'
    )
  return devices


def room(device: jax.Device) -> float:
  """Bytes free on a device at hand; infinite where it does not say."""
  if device.platform == 'cpu':
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_AVPHYS_PAGES')
  return (device.memory_stats() or {}).get('bytes_limit', math.inf)
