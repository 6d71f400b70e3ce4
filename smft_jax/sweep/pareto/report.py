"""One page about a comparison, for a reader who did not write it.

The page is a single file: pictures lie in it as data, and nothing is loaded.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import json
import pathlib
import shlex
from typing import Any

from smft_jax.report import old_page as page
from smft_jax.store import atomic
from smft_jax.sweep.pareto import report_tables as tables
from smft_jax.sweep.pareto import words as pareto_words

_MEANING = {
  'recall': (
    'Share of the questions on the new documents that are answered after the'
    ' whole stream, asked in phrasings that training never showed.'
  ),
  'lost, drop': (
    'Share of what the base model knew before the stream, and no longer does'
    ' after it: (before - after) / before, on facts that no document mentions.'
    ' Below zero where it gained.'
  ),
  'front': (
    'The points of a method and the untouched model (which has lost nothing)'
    ' that no other point beats, having more recall and no more lost, or less'
    ' lost and no less recall.'
  ),
  'equal learning': (
    'What is lost at one recall for all, linear between neighbours on the'
    ' front of each seed. The recall is the highest that our method and its'
    ' headline rivals all reach with every seed.'
  ),
  '±': (
    'Sample standard deviation over seeds, in percentage points. A seed is'
    ' a run of its own from beginning to end.'
  ),
  'dominated area': (
    'The part of the plane of recall and what is kept that a front beats, from'
    ' 0 to 1. More is better; it can only grow with the number of points.'
  ),
  'earlier lessons kept': (
    'Of what earlier documents of the stream taught, how much is still there'
    ' at its end. No background corpus protects it.'
  ),
  'locality': (
    'Share of the answers on known facts that are the same as before the'
    ' stream, right or wrong.'
  ),
  'validation points': (
    'Points on a validation stream of another seed from which the settings'
    ' were chosen.'
  ),
}


def write_report(
  analysis: Mapping[str, Any],
  workdir: str | pathlib.Path,
  report: Mapping[str, Any],
  pictures: Mapping[str, str],
) -> None:
  """Writes report.html.

  Args:
    analysis: as `analysis.analyse` gives it, with `failed`, the names of points
      that have no results.
    workdir: where to, and where the pictures and, if there is one, sweep.json
      lie; that one tells the command line.
    report: REPORT of the sweep's config; `title`, `text` and `command`.
    pictures: file names by picture (`figures.write_figures`).
  """
  workdir = pathlib.Path(workdir)
  title = report.get('title') or 'Learning against forgetting'
  table = analysis['equal_learning']
  further = analysis['equal_learning_at_own_reach']
  own = analysis['labels'][analysis['own']]

  def picture(name: str, says: str) -> str:
    return _picture(workdir, pictures.get(name), says)

  body = [
    page.tiles(_numbers(analysis)),
    page.paragraphs(report.get('text', '')),
    '<h2>What was found</h2>',
    _verdicts(analysis['verdicts'], analysis['headline']),
    _failed(analysis['failed']),
    '<h2>Learning against forgetting</h2>',
    '<p class="soft">A point is the mean over seeds of one setting, its bars'
    ' the standard deviation; seeds are faint. Lines join the points that no'
    ' other point of the method beats, from the untouched model on.</p>',
    picture('pareto', 'Known facts lost over new facts recalled, by method'),
    '<h2>At equal learning</h2>',
    picture('equal_learning', 'Known facts lost at equal learning'),
    tables.equal_learning(analysis, table),
  ]
  if further:
    share = pareto_words.share(further['target'])
    body.append(
      page.details(
        f'At a recall of {share}, as far as {own} comes with every seed',
        tables.equal_learning(analysis, further),
      )
    )
  body += [
    '<h2>What it costs</h2>',
    tables.costs(analysis),
    '<h2>Whole fronts</h2>',
    tables.fronts(analysis),
    '<h2>Ablations</h2>' if analysis['panels'] else '',
    *(
      _panel(panel, picture(f'panel {name}', panel['title']), name, analysis)
      for name, panel in analysis['panels'].items()
    ),
    '<h2>What the words mean</h2>',
    page.facts(_MEANING.items()),
    page.details('All points of the comparison', tables.points(analysis)),
    '<h2>Run it again</h2>',
    _command(workdir, report),
  ]
  text = page.document(title, _headline(analysis), body)
  atomic.write_text(workdir / 'report.html', text)


def _headline(analysis: Mapping[str, Any]) -> str:
  """The result in a sentence, whichever way it came out."""
  methods = analysis['equal_learning']['methods']
  told = [
    f'{analysis["labels"][name]}'
    f' {pareto_words.share(methods[name]["drop_mean"])}'
    for name in [analysis['own'], *analysis['headline']]
    if name in methods and methods[name]['drop_mean'] is not None
  ]
  if not told:
    return 'None of the methods to be compared has a finished point.'
  share = pareto_words.share(analysis['equal_learning']['target'])
  *first, last = told
  lost = f'{", ".join(first)} and {last}' if first else last
  return f'Known facts lost, with {share} of the new ones learned: {lost}.'


def _numbers(analysis: Mapping[str, Any]) -> list[tuple[str, str]]:
  """What our method loses, and how much more its headline rivals do."""
  methods = analysis['equal_learning']['methods']
  own = methods.get(analysis['own'])
  numbers = []
  if own and own['drop_mean'] is not None:
    numbers.append(
      (
        pareto_words.share(own['drop_mean']),
        f'of known facts lost by {analysis["labels"][analysis["own"]]}',
      )
    )
  for rival in analysis['headline']:
    ratio = (methods.get(rival) or {}).get('ratio')
    if ratio is not None:
      name = analysis['labels'][rival]
      numbers.append(
        (f'{pareto_words.times(ratio)} ×', f'as much lost by {name}')
      )
  return numbers


def _verdicts(
  verdicts: Sequence[Mapping[str, Any]], headline: Sequence[str]
) -> str:
  """Those on rivals of the headline and on no rival; the others folded."""
  first: list[Mapping[str, Any]] = []
  rest: list[Mapping[str, Any]] = []
  for verdict in verdicts:
    rival = verdict.get('rival')
    if verdict['kind'] == 'sweep':
      continue  # stands at its picture
    (first if rival is None or rival in headline else rest).append(verdict)
  return _verdict_list(first) + page.details(
    'Against every other method', _verdict_list(rest)
  )


def _verdict_list(verdicts: Sequence[Mapping[str, Any]]) -> str:
  words = {True: ('yes', '✓ holds'), False: ('no', '✗ missed')}
  lines = []
  for verdict in verdicts:
    other = '· open' if verdict['kind'] != 'sweep' else '· seen'
    kind, mark = words.get(verdict['met'], ('open', other))
    lines.append(
      f'<li><b class="{kind}">{mark}</b>'
      f'<span>{page.safe(verdict["sentence"])}</span></li>'
    )
  return f'<ul class="verdicts">{"".join(lines)}</ul>' if lines else ''


def _failed(names: Sequence[str]) -> str:
  if not names:
    return ''
  points = '1 point has' if len(names) == 1 else f'{len(names)} points have'
  return (
    f'<p class="soft">{points} failed or not run, and nothing above counts'
    f' them: {page.safe(", ".join(names))}.</p>'
  )


def _panel(
  panel: Mapping[str, Any],
  picture: str,
  name: str,
  analysis: Mapping[str, Any],
) -> str:
  """An ablation: what was asked, the picture, the numbers, the verdict."""
  parts = [f'<h3>{page.safe(panel["title"])}</h3>']
  parts.append(page.paragraphs(panel['text']))
  if not picture:
    return ''.join([*parts, '<p class="soft">No point of it has finished.</p>'])
  parts.append(picture)
  verdicts = [v for v in analysis['verdicts'] if v.get('panel') == name]
  parts.append(_verdict_list(verdicts))
  parts.append(page.details('In numbers', tables.ablation(panel)))
  return ''.join(parts)


def _picture(workdir: pathlib.Path, file: str | None, says: str) -> str:
  if file is None:
    return ''
  data = base64.b64encode((workdir / file).read_bytes()).decode()
  return f'<img alt="{page.safe(says)}" src="data:image/png;base64,{data}">'


def _command(workdir: pathlib.Path, report: Mapping[str, Any]) -> str:
  """The command line, and what else lies in the folder."""
  command = report.get('command')
  plan = workdir / 'sweep.json'
  if command is None and plan.exists():
    file = json.loads(plan.read_text()).get('config_file')
    if file:
      command = shlex.join(
        ['python', '-m', 'smft_jax.sweep', f'--config={file}']
      )
  code = f'<pre>{page.safe(command)}</pre>' if command else ''
  return (
    f'{code}<p class="soft">A point that is done is not run again. All numbers'
    ' of this page are in pareto.json, those of every point in table.csv, and'
    ' how a point was run in points/NAME/config.json.</p>'
  )
