"""Compares methods at the same loss on the answers to learn.

  python -m smft_jax.sweep --config=configs/compare.py \
      --config.data.data_dir=DIR
  python -m benchmarks.equal_nll runs/compare

The sweep tries each method at several rates. A method's held-out losses are
interpolated between its points and the untouched model, at a quarter, half and
all of the gain that sparse memory reaches on the answers. Dominated points are
left out. Shares are `scores.relative_drop`. Questions have phrasings that
training showed, and phrasings that it never showed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import pathlib
import sys
from typing import Any

from smft_jax import schema
from smft_jax.runtime import program
from smft_jax.sweep.pareto import fronts

_ASKED = {
  'target': 'shown in training',
  'target_unseen_phrasing': 'never shown in training',
}
_REFERENCE = 'sparse_memory'
_SHARES = (0.25, 0.5, 1.0)


def read(workdir: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  """Reads the results of a sweep's finished points, by method.

  Raises:
    UserError: If there are none, or none of sparse memory.
  """
  files = sorted(workdir.glob('points/*/results.json'))
  if not files:
    raise schema.UserError(
      f'{workdir} has no finished point; give the --workdir of a sweep'
    )
  found: dict[str, list[dict[str, Any]]] = {}
  for file in files:
    results = json.loads(file.read_text())
    found.setdefault(results['method'], []).append(results)
  if _REFERENCE not in found:
    raise schema.UserError(
      f'{workdir} has no {_REFERENCE}, only {", ".join(found)}'
    )
  return found


def tables(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
  """Returns the lines of a Markdown table for each set of phrasings."""
  first = found[_REFERENCE][0]
  held_out = first['held_out']
  values = (f'{n} {held_out[n]["before"]:.4g}' for n in held_out)
  lines = [f'Held out, before: {", ".join(values)}.']
  for asked, phrasings in _ASKED.items():
    if 'f1' in first['metrics_before'].get(asked, {}):
      lines += ['', f'Phrasings {phrasings}:', '']
      lines += _table(found, asked, held_out)
  return lines


def _table(found, asked: str, held_out: Mapping[str, Any]) -> list[str]:
  """Returns a row for each loss on the answers and each method."""
  before = found[_REFERENCE][0]['metrics_before'][asked]
  learned = {m: [_learned(r, asked) for r in rs] for m, rs in found.items()}
  lines = [
    '| loss on the answers | method | '
    + ' | '.join(f'{n}, {held_out[n]["metric"]}' for n in held_out)
    + ' |',
    '|---|---|' + '---:|' * len(held_out),
  ]
  for share in _SHARES:
    gain = share * max(learned[_REFERENCE])
    loss = f'{before["nll"]:.3f} to {before["nll"] - gain:.3f}'
    for method, results in found.items():
      cells = []
      for name in held_out:
        points = [
          (gained, r['held_out'][name]['relative_drop'])
          for gained, r in zip(learned[method], results, strict=True)
        ]
        lost = fronts.drop_at(fronts.front([(0.0, 0.0), *points]), gain)
        cells.append('not reached' if lost is None else f'{lost:+.2%}')
      lines.append(f'| {loss} | {method} | {" | ".join(cells)} |')
  lines.append('')
  for method, results in found.items():
    best = max(r['metrics_after'][asked]['f1'] for r in results)
    lines.append(
      f'{method}: {len(results)} points, lowest loss'
      f' {before["nll"] - max(learned[method]):.3f}, F1 {before["f1"]:.3f} to'
      f' {best:.3f} at best.'
    )
  return lines


def _learned(results: Mapping[str, Any], asked: str) -> float:
  """Returns by how much the loss on the answers fell, in nats per token."""
  return (
    results['metrics_before'][asked]['nll']
    - results['metrics_after'][asked]['nll']
  )


def main(arguments: Sequence[str]) -> None:
  """Prints the tables of one sweep."""
  if len(arguments) != 1:
    raise schema.UserError('usage: python -m benchmarks.equal_nll WORKDIR')
  print('\n'.join(tables(read(pathlib.Path(arguments[0])))))


if __name__ == '__main__':
  sys.exit(program.run(main))
