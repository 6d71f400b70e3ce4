"""A compiled program as XLA's text tells it: its instructions, how often run.

The text is a list of computations. One in the body of a loop runs as often as
the loop turns: XLA notes that where it knows, and else a loop that counts up to
a number, as those of `jax.lax.scan` do, is taken to begin at 0; of any other a
single turn counts.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import functools
import math
import re

_HEADER = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*-> .*\{\s*$')
_INSTRUCTION = re.compile(
  r'\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)'
)
_ARRAY = re.compile(r'([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?')
_CALLED = re.compile(
  r'(to_apply|calls|body|condition|called_computations|true_computation|'
  r'false_computation|branch_computations)=(\{[^}]*\}|%?[\w.-]+)'
)
_TURNS = re.compile(r'known_trip_count[^}]*?"?n"?[:=]"?(\d+)')
# These name the computation that a start has begun.
_NAMED_AGAIN = ('async-update', 'async-done', 'call-update', 'call-done')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
  """An array of a program.

  Attributes:
    text: Such as 'f32[3,5]'.
    num_bytes: Of it.
    in_memory: Whether it lies in the memory of the device, and not closer to
      what computes.
  """

  text: str
  num_bytes: int
  in_memory: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
  """An instruction of a computation.

  Attributes:
    name: It is that of its result, too.
    opcode: Such as 'all-reduce'.
    results: Its result, or what the tuple of its results holds.
    operands: Names of instructions of the same computation.
    attributes: What stands behind the operands.
    is_root: Whether its result is that of the computation.
  """

  name: str
  opcode: str
  results: tuple[Array, ...]
  operands: tuple[str, ...]
  attributes: str
  is_root: bool

  @property
  def called(self) -> list[tuple[str, str]]:
    """Pairs (as what, name of a computation)."""
    return [
      (match[1], name)
      for match in _CALLED.finditer(self.attributes)
      for name in re.findall(r'[\w.-]+', match[2])
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A program.

  Attributes:
    computations: Their instructions, by name.
    entry: The one that is run.
  """

  computations: dict[str, tuple[Instruction, ...]]
  entry: str

  @functools.cached_property
  def times(self) -> dict[str, int]:
    """How often each computation runs in a call; those that do not are out."""
    counted: dict[str, int] = {}
    self._visit(self.entry, 1, counted)
    return counted

  @functools.cached_property
  def fused(self) -> frozenset[str]:
    """Computations whose arrays are not made one by one."""
    return frozenset(
      name
      for instructions in self.computations.values()
      for instruction in instructions
      for kind, name in instruction.called
      if kind == 'to_apply' or instruction.opcode == 'fusion'
    )

  def instructions(self) -> Iterator[tuple[str, Instruction, int]]:
    """What runs: name of the computation, instruction, how often."""
    for name, times in self.times.items():
      for instruction in self.computations[name]:
        yield name, instruction, times

  def _visit(self, name: str, times: int, counted: dict[str, int]) -> None:
    counted[name] = counted.get(name, 0) + times
    for instruction in self.computations[name]:
      if instruction.opcode in _NAMED_AGAIN:
        continue
      turns = self._turns(instruction)
      for _, called in instruction.called:
        if called in self.computations:
          self._visit(called, times * turns, counted)

  def _turns(self, instruction: Instruction) -> int:
    if instruction.opcode != 'while':
      return 1
    known = _TURNS.search(instruction.attributes)
    if known:
      return int(known[1])
    condition = self.computations.get(dict(instruction.called)['condition'], ())
    limits = [i.attributes for i in condition if i.opcode == 'constant']
    counts_up = any('direction=LT' in i.attributes for i in condition)
    if counts_up and len(limits) == 1 and limits[0].split(')')[0].isdigit():
      return int(limits[0].split(')')[0])
    return 1


def parse(text: str) -> Program:
  r"""Reads a program.

  Args:
    text: What `jax.stages.Compiled.as_text` gives.

  Returns:
    The program.

  Example:
    >>> program = parse('\n'.join([
    ...   'ENTRY %main (p: f32[3]) -> f32[3] {',
    ...   '  %p = f32[3]{0} parameter(0)',
    ...   '  ROOT %y = f32[3]{0:S(1)} negate(%p), metadata={}',
    ...   '}']))
    >>> for _, instruction, times in program.instructions():
    ...   print(instruction.opcode, instruction.operands, times)
    parameter () 1
    negate ('p',) 1
    >>> program.computations['main'][1].results
    (Array(text='f32[3]', num_bytes=12, in_memory=False),)
  """
  found: dict[str, list[Instruction]] = {}
  name = entry = ''
  for line in text.splitlines():
    header = not line.startswith(' ') and _HEADER.match(line)
    match = _INSTRUCTION.match(line)
    if header:
      name = header[2]
      found[name] = []
      entry = name if header[1] else entry
    elif match and name:
      # A constant or the number of a parameter stands where operands do.
      inside, _, behind = match[4].partition(')')
      operands = tuple(re.findall(r'%([\w.-]+)', inside))
      found[name].append(
        Instruction(
          name=match[1],
          opcode=match[3],
          results=tuple(map(_array, _ARRAY.finditer(match[2]))),
          operands=operands,
          attributes=behind if operands else match[4],
          is_root=line.lstrip().startswith('ROOT '),
        )
      )
  return Program(
    computations={name: tuple(lines) for name, lines in found.items()},
    entry=entry,
  )


def _array(match: re.Match) -> Array:
  dtype, dims, layout = match.groups()
  size = math.prod(int(d) for d in dims.split(',') if d)
  return Array(
    text=f'{dtype}[{dims}]',
    num_bytes=math.ceil(size * _bits(dtype) / 8),
    in_memory='S(' not in (layout or ''),
  )


def _bits(dtype: str) -> int:
  """'bf16' -> 16; a boolean takes a byte."""
  digits = re.search(r'\d+', dtype)
  return int(digits[0]) if digits else 8
