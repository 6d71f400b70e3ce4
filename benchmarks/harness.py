"""What the benchmarks share: interleaved timing, tables, claims and files.

A machine's speed drifts by more than the differences that matter. So all forms
of a comparison are timed in turn, over several rounds in one process, and
ratios are of their medians.
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
import numpy as np

from benchmarks import plot
from smft_jax.store import paths

# A turn: seconds of warm-up, most timed calls, and seconds after which no more
# of these begin.
_WARM_UP_S = 0.15
_CALLS = 5
_TURN_S = 0.1


@dataclasses.dataclass(frozen=True)
class Claim:
  """A measured number and its goal.

  Attributes:
    text: What is compared, such as '1M slots / 262k slots'.
    measured: The number.
    goal: Its bound.
    at_most: Whether the bound is an upper one.
    unit: 'x' for ratios, otherwise such as ' MB'.
  """

  text: str
  measured: float
  goal: float
  at_most: bool = True
  unit: str = 'x'

  @property
  def holds(self) -> bool:
    """Whether the number is within the bound."""
    if self.at_most:
      return self.measured <= self.goal
    return self.measured >= self.goal


def interleave(
  forms: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
  """Times forms in turn; returns the median wall seconds of each.

  Args:
    forms: Functions by name. Each waits for its own result, as
      `jax.block_until_ready` does.
    repeats: Rounds; in each, every form has one turn of a few calls.

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
  """Returns the median seconds of a few calls in a row.

  The warm-up lets memory, threads, caches and clock rates recover from the form
  before.
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


def compile_form(
  function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()
) -> tuple[Callable[..., Any], int]:
  """Compiles a function; returns it and the bytes of its temporaries."""
  jitted = jax.jit(function, donate_argnums=donate)
  compiled = jitted.lower(*arguments).compile()
  sizes = compiled.memory_analysis()
  assert sizes is not None  # some backends have no analysis
  return compiled, sizes.temp_size_in_bytes


def stepper(step: Callable[[Any], tuple[Any, Any]], state: Any):
  """Returns a function that takes the next step and waits for it.

  Args:
    step: State -> (next state, other results). It may donate the state.
    state: The first state; pass on the only reference to it.
  """
  held = [state]

  def run() -> None:
    held[0], others = step(held[0])
    jax.block_until_ready((held[0], others))

  return run


def random_words(
  random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  """Makes 5000 words, and how likely each is in a text."""
  letters = np.array(list('abcdefghijklmnopqrstuvwxyz'))
  words = np.array(
    [''.join(random.choice(letters, n)) for n in random.integers(1, 10, 5000)]
  )
  # As in language, a few words make up much of a text.
  chances = 1 / np.arange(1, len(words) + 1)
  return words, chances / chances.sum()


def parse(description: str, argv: Sequence[str] | None = None, **more: Any):
  """Parses --out, --repeats and the options of one benchmark.

  Bad input ends the program with exit code 2.

  Args:
    description: Shown by --help.
    argv: Arguments; None takes those of the process.
    **more: Keywords for `add_argument` by name of the option.
  """
  parser = argparse.ArgumentParser(
    prog=f'python -m benchmarks.{pathlib.Path(sys.argv[0]).stem}',
    description=description,
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    '--out', type=_json_file, help='write FILE.json, and the plot as FILE.svg'
  )
  parser.add_argument(
    '--repeats', type=positive, default=9, help='rounds to take medians of'
  )
  for name, keywords in more.items():
    parser.add_argument(f'--{name.replace("_", "-")}', **keywords)
  return parser.parse_args(argv)


def positive(text: str) -> int:
  """Parses a whole number above 0, as `type` of an option.

  Example:
    >>> positive('7')
    7
  """
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(
      f'{text} is not a whole number of at least 1'
    )
  return int(text)


def _json_file(text: str) -> pathlib.Path:
  path = paths.expand(text)
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


def bars(title: str, seconds: Mapping[str, float]) -> plot.Bars:
  """Returns a plot of times in ms."""
  return plot.Bars(
    title=title,
    unit='ms',
    values={name: value * 1e3 for name, value in seconds.items()},
  )


def finish(
  name: str,
  results: Mapping[str, Any],
  claims: Sequence[Claim],
  drawing: plot.Bars | plot.Lines,
  out: pathlib.Path | None,
) -> None:
  """Prints the claims; writes the JSON and the plot if wanted.

  Args:
    name: Name of the benchmark.
    results: Numbers in the units that their names state.
    claims: The claims.
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
  """Returns the device and the versions that the numbers belong to."""
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
