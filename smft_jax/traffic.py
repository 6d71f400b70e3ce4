"""What a compiled program sends between devices in a call: counted, in bytes.

The text of a program is a list of computations; one in the body of a loop
counts as often as the loop turns, which XLA notes where it knows.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import math
import re

_KINDS = (
  r'all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|'
  r'collective-broadcast|ragged-all-to-all'
)
_INSTRUCTION = re.compile(
  rf'\s*(?:ROOT )?%?[\w.-]+ = (.*?) ({_KINDS})(-start)?\((.*)'
)
_ARRAY = re.compile(r'([a-z]+[\d]*\w*)\[([\d,]*)\]')
_HEADER = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*-> .*\{\s*$')
_CALLED = re.compile(
  r'(?:to_apply|calls|body|condition|called_computations|true_computation|'
  r'false_computation|branch_computations)=\{?((?:%?[\w.-]+(?:, )?)+)\}?'
)
# These name the computation that a start has begun.
_NAMED_AGAIN = re.compile(r' (?:async|call)-(?:update|done)\(')
_TURNS = re.compile(r'known_trip_count[^}]*?"?n"?[:=]"?(\d+)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
  """A collective, as each device sees it.

  Attributes:
    kind: Such as 'all-reduce'.
    array: Its result, such as 'f32[3,5]'.
    num_bytes: Of the result.
    devices: How many take part with each other.
    times: How often a call of the program comes to it.
  """

  kind: str
  array: str
  num_bytes: int
  devices: int
  times: int

  @property
  def sent_bytes(self) -> float:
    """What a device sends in a call of the program, in rings."""
    share = (self.devices - 1) / self.devices
    factor = {'all-reduce': 2 * share, 'reduce-scatter': self.devices - 1}.get(
      self.kind, share
    )
    if self.kind.startswith('collective'):
      factor = 1
    return self.times * self.num_bytes * factor


def collectives(text: str, num_devices: int) -> list[Collective]:
  r"""The collectives of a compiled program.

  Args:
    text: Its HLO.
    num_devices: How many devices it runs on.

  Returns:
    One for every array in every collective that the program comes to.

  Example:
    >>> text = '\n'.join([
    ...   '%body (p: f32[3]) -> f32[3] {',
    ...   '  %x = f32[3]{0} all-reduce(%p), replica_groups=[4,2]<=[8]',
    ...   '}',
    ...   'ENTRY %main (p: f32[3]) -> f32[3] {',
    ...   '  %y = f32[3]{0} while(%p), body=%body,'
    ...   ' backend_config={"known_trip_count":{"n":"5"}}',
    ...   '}'])
    >>> found = collectives(text, num_devices=8)
    >>> [(c.kind, c.array, c.devices, c.times) for c in found]
    [('all-reduce', 'f32[3]', 2, 5)]
    >>> found[0].sent_bytes  # 5 times 12 bytes, twice half of them
    60.0
  """
  computations, entry = _computations(text)
  times: dict[str, int] = {}
  _visit(computations, entry, 1, times)
  return [
    dataclasses.replace(found, times=times[name])
    for name, lines in computations.items()
    if name in times
    for line in lines
    for found in _parse(line, num_devices)
  ]


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """The lines of each computation by its name, and the name of the first."""
  found: dict[str, list[str]] = {}
  name = entry = ''
  for line in text.splitlines():
    header = _HEADER.match(line)
    if header and not line.startswith(' '):
      name = header[2]
      found[name] = []
      entry = name if header[1] else entry
    elif name:
      found[name].append(line)
  return found, entry


def _visit(computations, name: str, times: int, counted: dict[str, int]):
  counted[name] = counted.get(name, 0) + times
  for line in computations[name]:
    if _NAMED_AGAIN.search(line):
      continue
    turns = _TURNS.search(line)
    for called in _CALLED.finditer(line):
      inner = times * (int(turns[1]) if turns and ' while(' in line else 1)
      for one in called[1].replace('%', '').split(', '):
        if one in computations:
          _visit(computations, one, inner, counted)


def _parse(line: str, num_devices: int) -> Iterator[Collective]:
  match = _INSTRUCTION.match(line)
  if not match:
    return
  arrays = _ARRAY.findall(match[1])
  if match[3] and len(arrays) > 1 and match[2] != 'all-reduce':
    # A start also hands on its operands, and a permute two numbers.
    arrays = [a for a in arrays if a[1]]
    arrays = arrays[len(arrays) // 2 :]
  for dtype, dims in arrays:
    size = math.prod(int(d) for d in dims.split(',') if d)
    yield Collective(
      kind=match[2],
      array=f'{dtype}[{dims}]',
      num_bytes=math.ceil(size * _bits(dtype) / 8),
      devices=_group_size(match[4], num_devices),
      times=1,
    )


def _bits(dtype: str) -> int:
  """'bf16' -> 16; a boolean takes a byte."""
  if dtype == 'pred':
    return 8
  digits = re.search(r'\d+', dtype)
  return int(digits[0]) if digits else 8


def _group_size(operands: str, num_devices: int) -> int:
  """How many devices take part, from replica_groups."""
  iota = re.search(r'replica_groups=\[\d+,(\d+)\]', operands)
  if iota:
    return int(iota[1])
  listed = re.search(r'replica_groups=\{\{([\d,]*)\}', operands)
  if listed:
    return len(listed[1].split(','))
  return num_devices
