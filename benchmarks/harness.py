"""What the benchmarks share: timing in turn, tables, claims, JSON and a plot.

A machine's speed drifts by more than the differences that matter, so all forms
of one comparison are timed in turn, again and again in one process, and the
median of each is kept. Ratios are of those medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import gc
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from typing import Any

import jax

from benchmarks import plot

# A turn: seconds of calls that are left out, then timed calls, and after how
# many seconds no more of these are begun.
_WARM_UP_S = 0.15
_CALLS = 5
_TURN_S = 0.1


@dataclasses.dataclass(frozen=True)
class Claim:
  """A goal and what was measured.

  Attributes:
    text: What is compared, such as '1M slots / 262k slots'.
    measured: The number.
    goal: What it should be.
    at_most: Whether the goal is an upper bound, else a lower one.
    unit: 'x' for ratios, else such as 'MB'.
  """

  text: str
  measured: float
  goal: float
  at_most: bool = True
  unit: str = 'x'

  @property
  def holds(self) -> bool:
    """Whether the goal is reached."""
    if self.at_most:
      return self.measured <= self.goal
    return self.measured >= self.goal


def interleave(
  forms: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
  """Median wall seconds of each form, all timed in turn.

  Args:
    forms: Functions by name. Each must wait for its own result, as
      `jax.block_until_ready` does.
    repeats: Rounds; in a round every form has one turn of a few calls.

  Returns:
    Medians by name.

  Example:
    >>> sorted(interleave({'a': lambda: None, 'b': lambda: None}, repeats=3))
    ['a', 'b']
  """
  seconds: dict[str, list[float]] = {name: [] for name in forms}
  gc.collect()
  for _ in range(repeats):
    for name, form in forms.items():
      seconds[name].append(_turn(form))
  return {name: statistics.median(times) for name, times in seconds.items()}


def _turn(form: Callable[[], Any]) -> float:
  """Median seconds of some calls in a row, as in a loop of the form's own.

  The calls before, for a moment, are left out: the system takes back what the
  form before has freed, its threads wait for more, the caches are full of other
  things, and a core that rested is slow to start.
  """
  start = time.perf_counter()
  while True:
    form()
    if time.perf_counter() - start > _WARM_UP_S:
      break
  seconds: list[float] = []
  while len(seconds) < _CALLS and sum(seconds) < _TURN_S:
    start = time.perf_counter()
    form()
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds)


def parse(description: str, argv: Sequence[str] | None = None, **more: Any):
  """Parses --out, --repeats and further options of one benchmark.

  Args:
    description: Shown by --help.
    argv: Arguments; None takes those of the process.
    **more: Name of an option -> keywords for `add_argument`.

  Returns:
    The namespace. Bad input ends the program with exit code 2.
  """
  parser = argparse.ArgumentParser(
    prog=f'python -m benchmarks.{pathlib.Path(sys.argv[0]).stem}',
    description=description,
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    '--out', type=_json_file, help='FILE.json for the numbers; FILE.svg beside'
  )
  parser.add_argument(
    '--repeats', type=positive, default=9, help='rounds to take medians of'
  )
  for name, keywords in more.items():
    parser.add_argument(f'--{name.replace("_", "-")}', **keywords)
  return parser.parse_args(argv)


def positive(text: str) -> int:
  """A whole number above 0, for the `type` of an option.

  Example:
    >>> positive('7')
    7
  """
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f'{text} is no whole number of at least 1')
  return int(text)


def _json_file(text: str) -> pathlib.Path:
  path = pathlib.Path(text)
  if path.suffix != '.json':
    raise argparse.ArgumentTypeError(f'{text} must end in .json')
  if not path.parent.is_dir():
    raise argparse.ArgumentTypeError(f'there is no folder {path.parent}')
  return path


def print_table(
  title: str, seconds: Mapping[str, float], reference: str
) -> None:
  """Prints times in ms, and their ratios to one of them."""
  width = max(map(len, seconds))
  print(f'\n{title}')
  for name, value in seconds.items():
    ratio = value / seconds[reference]
    print(f'  {name:<{width}}  {value * 1e3:10.2f} ms  {ratio:9.2f}x')


def finish(
  name: str,
  results: Mapping[str, Any],
  claims: Sequence[Claim],
  drawing: plot.Bars | plot.Lines,
  out: pathlib.Path | None,
) -> None:
  """Prints the claims; writes the JSON and the plot if asked to.

  Args:
    name: Of the benchmark.
    results: Numbers, in seconds or bytes as their names say.
    claims: What was to be reached.
    drawing: The plot.
    out: FILE.json, or None.
  """
  print()
  for claim in claims:
    sign = '<=' if claim.at_most else '>='
    verdict = 'holds' if claim.holds else 'DOES NOT HOLD'
    print(
      f'{claim.text}: {claim.measured:.3g}{claim.unit} '
      f'(goal {sign} {claim.goal:g}{claim.unit}): {verdict}'
    )
  if out is None:
    return
  record = {
    'benchmark': name,
    'argv': sys.argv[1:],
    'machine': machine(),
    'results': results,
    'claims': [
      dataclasses.asdict(claim) | {'holds': claim.holds} for claim in claims
    ],
  }
  out.write_text(json.dumps(record, indent=2) + '\n')
  out.with_suffix('.svg').write_text(plot.draw(drawing))
  print(f'numbers in {out}, plot in {out.with_suffix(".svg")}')


def machine() -> dict[str, Any]:
  """The device and the versions that the numbers belong to."""
  versions = {'python': platform.python_version()}
  for package in ('jax', 'jaxlib', 'flax', 'optax', 'torch'):
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return {
    'device': jax.devices()[0].device_kind,
    'processor': _processor(),
    'cores': len(os.sched_getaffinity(0)),
    'versions': versions,
  }


def _processor() -> str:
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor()
  names = [line.split(':')[1].strip() for line in lines if 'model name' in line]
  return names[0] if names else platform.machine()
