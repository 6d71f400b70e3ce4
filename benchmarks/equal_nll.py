"""Methods side by side at the same loss on the answers they were to learn.

  python -m smft_jax.sweep --config=configs/compare.py \
      --config.data.data_dir=DIR
  python -m benchmarks.equal_nll runs/compare

Each method is tried at several rates. Its held-out losses are read off, linear
between its points and the untouched model, where the loss on the answers asked
as questions is the lowest that every method reaches; points that another point
of the method dominates do not count. A share is `metrics.relative_drop`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import pathlib
import sys
from typing import Any

from smft_jax import cli
from smft_jax import schema
from smft_jax.pareto import fronts

_ASKED = ('target_unseen_phrasing', 'target')


def read(workdir: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  """The results of a sweep's finished points, by method.

  Raises:
    UserError: There are none.
  """
  files = sorted(workdir.glob('points/*/results.json'))
  if not files:
    raise schema.UserError(
      f'{workdir} holds no finished point: it is the --workdir of a sweep'
    )
  found: dict[str, list[dict[str, Any]]] = {}
  for file in files:
    results = json.loads(file.read_text())
    found.setdefault(results['method'], []).append(results)
  return found


def table(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
  """The lines of the table, in Markdown."""
  some = next(iter(found.values()))[0]
  asked = next(name for name in _ASKED if name in some['metrics_after'])
  held_out = list(some['held_out'])
  learned = {m: [_learned(r, asked) for r in rs] for m, rs in found.items()}
  reached = min(max(gains) for gains in learned.values())
  before = some['metrics_before'][asked]['nll']
  lines = [
    f'At a loss of {before - reached:.3f} on the answers, {before:.3f} before:',
    '',
    '| method | points | lowest loss | best F1 | '
    + ' | '.join(f'{n}, {some["held_out"][n]["metric"]}' for n in held_out)
    + ' |',
    '|---|---:|---:|---:|' + '---:|' * len(held_out),
  ]
  for method, results in found.items():
    cells = []
    for name in held_out:
      points = [
        (gain, r['held_out'][name]['relative_drop'])
        for gain, r in zip(learned[method], results, strict=True)
      ]
      lost = fronts.drop_at(fronts.front([(0.0, 0.0), *points]), reached)
      cells.append('none' if lost is None else f'{lost:+.2%}')
    best = max(r['metrics_after'][asked]['f1'] for r in results)
    lines.append(
      f'| {method} | {len(results)} | {before - max(learned[method]):.3f} |'
      f' {best:.3f} | {" | ".join(cells)} |'
    )
  values = (f'{n} {some["held_out"][n]["before"]:.4g}' for n in held_out)
  return [*lines, '', f'Before: {", ".join(values)}.']


def _learned(results: Mapping[str, Any], asked: str) -> float:
  """By how much the loss on the answers fell, in nats a token."""
  return (
    results['metrics_before'][asked]['nll']
    - results['metrics_after'][asked]['nll']
  )


def main(arguments: Sequence[str]) -> None:
  """Prints the table of one sweep."""
  if len(arguments) != 1:
    raise schema.UserError('usage: python -m benchmarks.equal_nll WORKDIR')
  print('\n'.join(table(read(pathlib.Path(arguments[0])))))


if __name__ == '__main__':
  sys.exit(cli.run(main))
