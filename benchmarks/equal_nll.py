"""Methods side by side at the same loss on the answers they were to learn.

  python -m smft_jax.sweep --config=configs/compare.py \
      --config.data.data_dir=DIR
  python -m benchmarks.equal_nll runs/compare

Each method is tried at several rates. Its held-out losses are read off, linear
between its points and the untouched model, where it has taken a quarter, half
and all of what sparse memory can off the loss on the answers; points that
another point of the method dominates do not count. A share is
`metrics.relative_drop`. Answers are asked for in phrasings that training
showed, and in some that it never showed.
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
  """The results of a sweep's finished points, by method.

  Raises:
    UserError: There are none, or none of sparse memory.
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
  if _REFERENCE not in found:
    raise schema.UserError(
      f'{workdir} has no {_REFERENCE}, only {", ".join(found)}'
    )
  return found


def tables(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
  """The lines of a table for each way of asking, in Markdown."""
  some = found[_REFERENCE][0]
  held_out = some['held_out']
  values = (f'{n} {held_out[n]["before"]:.4g}' for n in held_out)
  lines = [f'Held out, before: {", ".join(values)}.']
  for asked, phrasings in _ASKED.items():
    if 'f1' in some['metrics_before'].get(asked, {}):
      lines += ['', f'Answers asked for in phrasings {phrasings}:', '']
      lines += _table(found, asked, held_out)
  return lines


def _table(found, asked: str, held_out: Mapping[str, Any]) -> list[str]:
  """A row for each loss on the answers and each method."""
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
  """By how much the loss on the answers fell, in nats a token."""
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
