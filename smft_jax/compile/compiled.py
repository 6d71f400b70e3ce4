"""What a compiled program needs of a device.

The device need not exist: XLA compiles for TPUs that are absent (`tpu`).
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

# Instructions that pass an array on, or write into it in place. The inside of a
# fusion or a loop has lines of its own.
_PASSES_ON = {
  *('parameter', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'call'),
  *('conditional', 'fusion', 'scatter', 'dynamic-update-slice', 'opt-barrier'),
  *('call-start', 'call-update', 'call-done'),
  *('async-start', 'async-update', 'async-done'),
}


@dataclasses.dataclass(frozen=True)
class Device:
  """The maker's numbers for one device.

  Attributes:
    memory: Bytes.
    bandwidth: Of that memory, in bytes per second.
    flops: Dense bfloat16 operations per second.
    links: Bytes per second that it sends over all its links at once: within the
      pod of a TPU, within the machine of a GPU. Half of a bidirectional rate.
    source: The page with these numbers.
  """

  memory: float
  bandwidth: float
  flops: float
  links: float
  source: str


_TPU = 'https://docs.cloud.google.com/tpu/docs'
_NVIDIA = 'https://www.nvidia.com/en-us/data-center'
DEVICES = {
  'TPU v5 lite': Device(16e9, 819e9, 197e12, 200e9, f'{_TPU}/v5e'),
  'TPU v5': Device(95e9, 2765e9, 459e12, 600e9, f'{_TPU}/v5p'),
  'TPU v6 lite': Device(32e9, 1638e9, 918e12, 400e9, f'{_TPU}/v6e'),
  'NVIDIA H100 80GB HBM3': Device(
    80e9, 3.35e12, 989e12, 450e9, f'{_NVIDIA}/h100/'
  ),
  'NVIDIA H200': Device(141e9, 4.8e12, 989e12, 450e9, f'{_NVIDIA}/h200/'),
}
"""By `jax.Device.device_kind`; 'TPU v5' is v5p, the lite ones v5e and v6e."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A compiled program.

  Attributes:
    memory: Bytes by use; their sum is the peak.
    cost: The compiler's own count: flops, bytes accessed, optimal_seconds.
    text: The program as HLO text.
    run: The executable, or None if the compiler refused it.
    refusal: Why it did, or ''.
  """

  memory: dict[str, float]
  cost: dict[str, float] = dataclasses.field(default_factory=dict)
  text: str = ''
  run: Any = None
  refusal: str = ''

  @property
  def peak(self) -> float:
    """Peak memory in bytes."""
    return sum(self.memory.values())


def on_device(device: jax.Device, tree: Any) -> Any:
  """Returns the shapes of a tree of arrays or shapes, placed on one device."""
  sharding = jax.sharding.SingleDeviceSharding(device)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )


def bytes_per_device(tree: Any) -> int:
  """Returns the bytes on one device of shapes with shardings."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def compile_for(function: Any, *shapes: Any, **static: Any) -> Program:
  """Compiles a function for the devices of its arguments.

  Args:
    function: A result of `jax.jit`.
    *shapes: Trees of `jax.ShapeDtypeStruct`s with shardings.
    **static: Static arguments.

  Returns:
    The program. If it does not fit the devices, its memory has only arguments
    and temporaries.
  """
  try:
    compiled = function.lower(*shapes, **static).compile()
  except jax.errors.JaxRuntimeError as error:
    refusal = re.search(r'RESOURCE_EXHAUSTED: (.*)', str(error))
    if not refusal:
      raise
    size = re.search(r'temporaries \(([\d.]+)G\)', refusal[1])
    return Program(
      memory={
        'arguments': float(bytes_per_device(shapes)),
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
    # The compiler gives no number or a negative one where it does not know.
    cost={
      name: cost[name]
      for name in ('flops', 'bytes accessed', 'optimal_seconds')
      if cost.get(name, -1) > 0
    },
    text=compiled.as_text(),
    run=compiled,
  )


def arrays_made(text: str, shape: Sequence[int]) -> list[str]:
  """Finds the instructions of a program that make a new array of a shape.

  Args:
    text: `Program.text`.
    shape: Such as [N, V].

  Returns:
    Their lines, up to the operands. Passing an argument on and writing it in
    place make no array.

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
  """Returns the chips of a TPU topology, to compile for; no TPU is needed.

  Args:
    topology: Such as 'v5p:2x2x1'.

  Raises:
    UserError: If the topology is unknown, libtpu is not installed, or `DEVICES`
      lacks its chips.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise schema.UserError(
      '--topology needs libtpu: pip install "smft-jax[tpu]"'
    )
  # Otherwise libtpu looks for a TPU in this machine, waits, and complains.
  os.environ['TPU_SKIP_MDS_QUERY'] = '1'
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-4')
  # Do not lock a TPU that other processes use.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  jax.config.update('jax_platforms', 'cpu')
  # A host has four chips by default, and libtpu refuses fewer.
  one_chip = topology.endswith(':1x1')
  bounds = {'chips_per_host_bounds': [1, 1, 1]} if one_chip else {}
  try:
    found = topologies.get_topology_desc(
      platform='tpu', topology_name=topology, **bounds
    )
  except jax.errors.JaxRuntimeError as error:
    raise schema.UserError(
      f'--topology={topology} is unknown; v5e:1x1, v5p:2x2x1 and v6e:1x1'
      f' are known ({str(error).splitlines()[0]})'
    ) from None
  devices: list[jax.Device] = list(found.devices)
  kind = devices[0].device_kind
  if kind not in DEVICES:
    raise schema.UserError(
      f'--topology={topology} has chips {kind!r}, whose memory and peak rates'
      ' are unknown: use v5e, v5p or v6e'
    )
  return devices


def free_memory(device: jax.Device) -> float:
  """Returns the free bytes of a device; infinite if it does not tell."""
  if device.platform == 'cpu':
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_AVPHYS_PAGES')
  return (device.memory_stats() or {}).get('bytes_limit', math.inf)
