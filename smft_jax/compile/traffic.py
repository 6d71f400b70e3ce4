"""Bytes that a compiled program moves: between devices and in their memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import math
import re

from smft_jax.compile import hlo

_KINDS = (
  *('all-reduce', 'all-gather', 'all-to-all', 'reduce-scatter'),
  *('collective-permute', 'collective-broadcast', 'ragged-all-to-all'),
)

# Pass arrays on, or call computations that move them.
_MOVE_NOTHING = frozenset(
  (
    *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast'),
    *('while', 'conditional', 'call', 'call-start', 'call-update', 'call-done'),
    *('async-start', 'async-update', 'async-done', 'opt-barrier', 'iota'),
    *('after-all', 'partition-id', 'replica-id'),
  )
)
# Read only what they return of their first operand.
_READ_PARTS = ('gather', 'dynamic-slice', 'slice')
# Write in place as much as their update holds.
_WRITE_PARTS = ('scatter', 'dynamic-update-slice')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
  """A collective, as each device sees it.

  Attributes:
    kind: Such as 'all-reduce'.
    array: Its result, such as 'f32[3,5]'.
    num_bytes: Bytes of the result.
    devices: Number of devices in a group.
    times: How often it runs in a call of the program.
  """

  kind: str
  array: str
  num_bytes: int
  devices: int
  times: int

  def __str__(self) -> str:
    return f'{self.kind} {self.array}'

  @property
  def sent_bytes(self) -> float:
    """Bytes that a device sends in a call, by ring algorithms."""
    share = (self.devices - 1) / self.devices
    factor = {'all-reduce': 2 * share, 'reduce-scatter': self.devices - 1}.get(
      self.kind, share
    )
    if self.kind.startswith('collective'):
      factor = 1
    return self.times * self.num_bytes * factor


def collectives(program: hlo.Program, num_devices: int) -> list[Collective]:
  r"""Lists the collectives of a compiled program.

  Args:
    program: From `hlo.parse`.
    num_devices: Number of devices that it runs on.

  Returns:
    One for every array in every collective that runs.

  Example:
    >>> program = hlo.parse('\n'.join([
    ...   '%body (p: f32[3]) -> f32[3] {',
    ...   '  %x = f32[3]{0} all-reduce(%p), replica_groups=[4,2]<=[8]',
    ...   '}',
    ...   'ENTRY %main (p: f32[3]) -> f32[3] {',
    ...   '  %y = f32[3]{0} while(%p), body=%body,'
    ...   ' backend_config={"known_trip_count":{"n":"5"}}',
    ...   '}']))
    >>> found = collectives(program, num_devices=8)
    >>> [(str(c), c.devices, c.times) for c in found]
    [('all-reduce f32[3]', 2, 5)]
    >>> found[0].sent_bytes  # 5 times 12 bytes, twice half of them
    60.0
  """
  continued = {
    name
    for name, instructions in program.computations.items()
    if _continues(name, instructions)
  }
  return [
    Collective(
      kind=instruction.opcode.removesuffix('-start'),
      array=array.text,
      num_bytes=array.num_bytes,
      devices=_group_size(instruction.attributes, num_devices),
      times=times,
    )
    for name, instruction, times in program.instructions()
    if instruction.opcode.removesuffix('-start') in _KINDS
    and name not in continued
    for array in _received(instruction)
  ]


def _continues(name: str, instructions: Iterable[hlo.Instruction]) -> bool:
  """Returns whether a computation repeats a collective that another started.

  XLA for TPUs overlaps a collective with other work: it starts in one
  computation, continues in a second and ends in a third.
  """
  return name.startswith('async_collective_fusion') or any(
    '"AsyncCollectiveDone"' in i.attributes for i in instructions
  )


def _received(instruction: hlo.Instruction) -> tuple[hlo.Array, ...]:
  """Returns the arrays that a collective returns."""
  arrays = instruction.results
  is_start = instruction.opcode.endswith('-start')
  if (
    not is_start or len(arrays) == 1 or instruction.opcode == 'all-reduce-start'
  ):
    return arrays
  # A start also passes on its operands, and a permute two numbers.
  arrays = tuple(a for a in arrays if not a.text.endswith('[]'))
  return arrays[len(arrays) // 2 :]


def _group_size(attributes: str, num_devices: int) -> int:
  """Returns the size of a group, from replica_groups in any of its forms."""
  iota = re.search(r'replica_groups=\[\d+,(\d+)\]', attributes)
  if iota:
    return int(iota[1])
  listed = re.search(r'replica_groups=\{\{([\d,]*)\}', attributes)
  if listed:
    return len(listed[1].split(','))
  meshed = re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', attributes)
  if meshed:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", meshed[1]))
    axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", meshed[2])
    return math.prod(int(part or sizes[axis]) for axis, part in axes)
  return num_devices


def accessed_bytes(program: hlo.Program) -> float:
  r"""Counts the bytes that a device reads and writes in memory in a call.

  It counts operands and results of instructions, or of fusions, that are in
  main memory. Unlike XLA's own count, a gather or slice reads only what it
  returns, and an update in place writes only what changes.

  Args:
    program: From `hlo.parse`.

  Example:
    >>> accessed_bytes(hlo.parse('\n'.join([
    ...   'ENTRY %main (p: f32[9,5], i: s32[2,1]) -> f32[2,5] {',
    ...   '  %p = f32[9,5]{1,0} parameter(0)',
    ...   '  %i = s32[2,1]{1,0} parameter(1)',
    ...   '  ROOT %rows = f32[2,5]{1,0} gather(%p, %i), offset_dims={1}',
    ...   '}'])))  # 2 rows read, 2 ids, 2 rows written
    88
  """
  total: float = 0
  for name, instruction, times in program.instructions():
    if name not in program.fused:
      made = {i.name: i for i in program.computations[name]}
      total += times * _moved(program, made, instruction)
  return total


def _moved(
  program: hlo.Program,
  made: Mapping[str, hlo.Instruction],
  instruction: hlo.Instruction,
) -> float:
  """Returns the bytes that an instruction reads and writes."""
  opcode, results = instruction.opcode, instruction.results
  if opcode in _MOVE_NOTHING or opcode.endswith('-done'):
    return 0
  if opcode in ('copy-start', 'slice-start'):
    # Source and destination, in either order.
    size = min(array.num_bytes for array in results[:2])
    return size * sum(array.in_memory for array in results[:2])
  read = sum(
    min(_in_memory(made[name].results), _read(program, instruction, place))
    for place, name in enumerate(instruction.operands)
    if name in made
  )
  if opcode.endswith('-start'):
    return read + _in_memory(_received(instruction))
  return read + _written(program, made, instruction)


def _read(
  program: hlo.Program, instruction: hlo.Instruction, place: int
) -> float:
  """Returns the most bytes read of an operand; infinite if it may be all."""
  if place == 0 and instruction.opcode in _READ_PARTS:
    return sum(array.num_bytes for array in instruction.results)
  if place == 0 and instruction.opcode in _WRITE_PARTS:
    return 0
  if instruction.opcode == 'fusion':
    inner = program.computations[instruction.called[0][1]]
    [parameter] = (
      i.name
      for i in inner
      if i.opcode == 'parameter' and i.attributes.startswith(f'{place})')
    )
    return _read_inside(program, inner, parameter)
  return math.inf


def _read_inside(
  program: hlo.Program, fused: Iterable[hlo.Instruction], name: str
) -> float:
  """Returns the bytes that a fused computation reads of an array."""
  return sum(
    _read_inside(program, fused, user.name)
    if user.opcode == 'bitcast'
    else _read(program, user, place)
    for user in fused
    for place, operand in enumerate(user.operands)
    if operand == name
  )


def _written(
  program: hlo.Program,
  made: Mapping[str, hlo.Instruction],
  instruction: hlo.Instruction,
) -> float:
  """Returns the bytes of memory that an instruction writes."""
  results = instruction.results
  if instruction.opcode in _WRITE_PARTS:
    update = 1 if instruction.opcode == 'dynamic-update-slice' else -1
    changed = made[instruction.operands[update]].results
    return min(_in_memory(results), sum(a.num_bytes for a in changed))
  if instruction.opcode == 'bitcast' and instruction.operands[0] in made:
    return _written(program, made, made[instruction.operands[0]])
  if instruction.opcode == 'fusion':
    inner = program.computations[instruction.called[0][1]]
    inside = {i.name: i for i in inner}
    [root] = (i for i in inner if i.is_root)
    roots = [root]
    if root.opcode == 'tuple':
      roots = [inside[name] for name in root.operands]
    if len(roots) == len(results):  # otherwise one root is a tuple
      return sum(
        min(_in_memory([array]), _written(program, inside, root))
        for array, root in zip(results, roots, strict=True)
      )
  return _in_memory(results)


def _in_memory(arrays: Iterable[hlo.Array]) -> float:
  return sum(array.num_bytes for array in arrays if array.in_memory)
