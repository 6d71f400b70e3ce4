"""Parses XLA's text of a compiled program.

The text is a list of computations. The body of a loop runs once per iteration.
The number of iterations is XLA's where it notes one; else that of a loop that
counts up to a constant, assumed to start at 0, as in `jax.lax.scan`; else 1.
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
# These repeat the name of a computation that a start already runs.
_NAMED_AGAIN = ('async-update', 'async-done', 'call-update', 'call-done')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
  """An array of a program.

  Attributes:
    text: Dtype and shape, such as 'f32[3,5]'.
    num_bytes: Size in bytes.
    in_memory: Whether it is in the main memory of the device, not closer to its
      compute units.
  """

  text: str
  num_bytes: int
  in_memory: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
  """An instruction of a computation.

  Attributes:
    name: Name of the instruction and of its result.
    opcode: Such as 'all-reduce'.
    results: The result, or the elements of a tuple.
    operands: Names of instructions of the same computation.
    attributes: The text after the operands.
    is_root: Whether the computation returns its result.
  """

  name: str
  opcode: str
  results: tuple[Array, ...]
  operands: tuple[str, ...]
  attributes: str
  is_root: bool

  @property
  def called(self) -> list[tuple[str, str]]:
    """Pairs (role, name of a computation) that the instruction calls."""
    return [
      (match[1], name)
      for match in _CALLED.finditer(self.attributes)
      for name in re.findall(r'[\w.-]+', match[2])
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A program.

  Attributes:
    computations: Instructions by name of the computation.
    entry: Name of the computation that runs first.
  """

  computations: dict[str, tuple[Instruction, ...]]
  entry: str

  @functools.cached_property
  def times(self) -> dict[str, int]:
    """How often each computation runs in a call, without those that do not."""
    counted: dict[str, int] = {}
    self._visit(self.entry, 1, counted)
    return counted

  @functools.cached_property
  def fused(self) -> frozenset[str]:
    """Computations whose intermediate arrays are never written to memory."""
    return frozenset(
      name
      for instructions in self.computations.values()
      for instruction in instructions
      for kind, name in instruction.called
      if kind == 'to_apply' or instruction.opcode == 'fusion'
    )

  def instructions(self) -> Iterator[tuple[str, Instruction, int]]:
    """Yields name of the computation, instruction, and how often it runs."""
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
  r"""Parses a program.

  Args:
    text: From `jax.stages.Compiled.as_text`.

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
      # A constant and the index of a parameter are written like operands.
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
  """Returns the bits of a dtype: 16 for 'bf16', 8 for a boolean."""
  digits = re.search(r'\d+', dtype)
  return int(digits[0]) if digits else 8
