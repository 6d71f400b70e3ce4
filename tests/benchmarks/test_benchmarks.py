"""What the benchmarks share times, judges and draws as it says."""

import itertools
import json
import math
import re
import time
import xml.etree.ElementTree as ElementTree

import jax
import numpy as np
import pytest

from benchmarks import harness
from benchmarks import input_pipeline
from benchmarks import plot
from benchmarks import prepared
from benchmarks import scaling
from smft_jax.config import experiment as config_lib
from smft_jax.runs import base
from smft_jax.runtime import program
from tests.support import tiny_run


def bars(**values):
  return plot.Bars(title='a title', unit='ms', values=values)


def lines(series):
  return plot.Lines(
    title='a title', x_label='slots', y_label='ms', series=series
  )


def axes(drawing):
  (found,) = plot.to_figure(drawing).axes
  return found


def texts(svg):
  found = ElementTree.fromstring(svg).iter('{http://www.w3.org/2000/svg}text')
  return [text.text for text in found]


def test_a_bar_for_each_value_as_long_as_it_is():
  drawing = bars(rows=20.0, dense=60.0, none=0.0)
  assert [bar.get_width() for bar in axes(drawing).patches] == [20, 60, 0]
  shown = texts(plot.draw(drawing))
  expected = {'a title', 'rows', 'dense', '20 ms', '60 ms', '0 ms', 'ms'}
  assert expected <= set(shown)


def test_bars_far_apart_are_on_a_logarithmic_scale():
  drawn = axes(bars(a=10.0, b=100.0, c=1000.0))
  assert drawn.get_xscale() == 'log'
  assert drawn.get_xlim()[0] < 10
  assert drawn.get_xlabel() == 'ms, logarithmic scale'
  assert [text.get_text() for text in drawn.texts][2] == '1,000 ms'
  near = axes(bars(a=20.0, b=1000.0))
  assert (near.get_xscale(), near.get_xlabel()) == ('linear', 'ms')


def test_lines_go_through_their_points():
  rows = {2**20: 31.0, 2**14: 17.0, 2**18: 32.0}
  drawn = axes(lines({'rows': rows, 'dense': {2**14: 74.0, 2**18: 210.0}}))
  first, second = drawn.lines
  assert list(first.get_xdata()) == [2**14, 2**18, 2**20]
  assert list(first.get_ydata()) == [17.0, 32.0, 31.0]
  assert list(second.get_ydata()) == [74.0, 210.0]
  assert first.get_color() != second.get_color()
  assert first.get_linestyle() != second.get_linestyle()
  assert (drawn.get_xscale(), drawn.get_yscale()) == ('log', 'linear')
  assert drawn.get_ylim()[0] == 0
  shown = [text.get_text() for text in drawn.get_xticklabels()]
  assert shown == ['16k', '262k', '1M']
  assert [text.get_text() for text in drawn.texts] == ['rows: 31', 'dense: 210']


def test_drawing_stays_on_the_paper_and_has_its_own_style():
  name = 'a name of considerable length'
  for drawing in (
    bars(**{name: 2.0, 'b': 123456.0}),
    lines({name: {1: 1.0, 9: 100.0}, 'b': {1: 1.0}}),
  ):
    drawn = plot.to_figure(drawing)
    drawn.draw_without_rendering()
    box = drawn.get_tightbbox()
    assert min(box.x0, box.y0) >= 0
    assert all(box.max <= drawn.get_size_inches())
    assert '--blue' in plot.draw(drawing)


def test_labels_are_escaped():
  label = '<&">\''
  series, axes = {label: {1: 1.0}}, {'x_label': label, 'y_label': label}
  for drawing in (
    plot.Bars(title=label, unit=label, values={label: 1.0}),
    plot.Lines(title=label, series=series, **axes),
  ):
    svg = plot.draw(drawing)
    assert '<&' not in svg
    assert label in texts(svg)


@pytest.mark.parametrize(
  ('drawing', 'complaint'),
  [
    (bars(), 'a title: there is nothing to draw'),
    *((bars(a=x), 'finite and not negative') for x in (-1, math.nan, math.inf)),
    (lines({}), 'nothing to draw'),
    (lines({'a': {1: 2.0}, 'b': {}}), 'every line needs points'),
    (lines({'a': {0: 2.0}}), 'x above 0'),
  ],
)
def test_what_cannot_be_drawn_is_refused(drawing, complaint):
  with pytest.raises(ValueError, match=complaint):
    plot.draw(drawing)


@pytest.mark.parametrize(
  ('measured', 'at_most', 'holds'),
  [
    (2.0, True, True),
    (2.1, True, False),
    (2.0, False, True),
    (1, False, False),
  ],
)
def test_claims(measured, at_most, holds):
  claim = harness.Claim(text='a', measured=measured, goal=2, at_most=at_most)
  assert claim.holds == holds


def test_forms_are_timed_in_turn(monkeypatch):
  monkeypatch.setattr(harness, '_WARM_UP_S', 0)
  monkeypatch.setattr(harness, '_TURN_S', 0.01)
  calls = []

  forms = {
    'a': lambda: calls.append('a'),
    'b': lambda: (calls.append('b'), time.sleep(0.02)),
  }
  seconds = harness.interleave(forms, repeats=3)
  turns = [(name, len(list(run))) for name, run in itertools.groupby(calls)]
  # The first call of a turn is not timed, and a slow form is timed once.
  assert turns == [('a', 1 + harness._CALLS), ('b', 1 + 1)] * 3
  assert list(seconds) == ['a', 'b']
  assert 0 <= seconds['a'] < 0.02 <= seconds['b'] < 1


@pytest.mark.parametrize(
  ('argv', 'complaint'),
  [
    (['--out=x.txt'], 'x.txt must end in .json'),
    (['--out=no/such/x.json'], 'there is no folder no/such'),
    (['--repeats=0'], '0 is not a whole number of at least 1'),
    (['--repeats=x'], 'x is not a whole number of at least 1'),
  ],
)
def test_bad_options_end_with_code_2(argv, complaint, capsys):
  with pytest.raises(SystemExit) as caught:
    harness.parse('measures', argv)
  assert caught.value.code == 2
  assert complaint in capsys.readouterr().err


def test_finish_writes_numbers_and_a_plot(tmp_path, capsys):
  out = tmp_path / 'update.json'
  claims = [
    harness.Claim(text='a / b', measured=1.5, goal=2),
    harness.Claim(text='memory', measured=3, goal=4, at_most=False, unit=' MB'),
  ]
  harness.finish('update', {'a': 0.5}, claims, bars(a=0.5), out)
  record = json.loads(out.read_text())
  assert record['results'] == {'a': 0.5}
  assert [claim['holds'] for claim in record['claims']] == [True, False]
  assert record['machine']['versions']['jax'] == jax.__version__
  ElementTree.parse(tmp_path / 'update.svg')
  said = capsys.readouterr().out
  assert re.search(r'a / b: 1.5x \(goal <= 2x\): holds', said)
  assert re.search(r'memory: 3 MB \(goal >= 4 MB\): DOES NOT HOLD', said)


def test_batches_of_the_input_pipeline_are_those_of_a_run(tmp_path):
  experiment = config_lib.from_config_dict(tiny_run.make())
  task = base.make_task(experiment)
  tokenizer = input_pipeline.make_tokenizer(experiment, task)
  rows, made_s, read_s = input_pipeline.encode(task.pretraining, tokenizer, 29)
  assert made_s > 0
  assert read_s > 0
  cases = input_pipeline.cases(experiment, task, tokenizer, rows, tmp_path)
  padded, packed, shards, stream = cases
  assert padded.tokens() < packed.tokens()
  for one, other in zip(padded.make(3)[:3], shards.make(3)[:3], strict=True):
    np.testing.assert_array_equal(one, other)
  for case, size in ((padded, 7), (packed, 7), (shards, 7), (stream, 5)):
    make = case.maker()
    batches = [make() for _ in range(7)]
    assert {len(batch.tokens) for batch in batches} == {size}
    assert len({batch.tokens.tobytes() for batch in batches}) > 1
    assert (batches[0].segments is not None) == (case is packed)


def test_a_generated_corpus_has_its_size_and_texts_of_many_lengths(tmp_path):
  prepared.write_corpus(tmp_path / 'c.jsonl', 10**6)
  lines = (tmp_path / 'c.jsonl').read_text().splitlines()
  texts = [json.loads(line)['text'] for line in lines]
  assert 10**6 <= (tmp_path / 'c.jsonl').stat().st_size < 1.02 * 10**6
  words = [len(text.split()) for text in texts]
  assert 20 <= min(words) < 60
  assert 700 < max(words) < 800
  assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
  ('module', 'arguments', 'said'),
  [
    (input_pipeline, ['--data-dir=/nowhere'], "data_dir = '/nowhere'"),
    (prepared, ['--sizes=10XB'], "'10XB' is no size, such as 10MB or 1GB"),
    (scaling, ['--chips=4'], "'--chips=4': this benchmark takes no arguments"),
  ],
)
def test_a_mistake_is_one_line(module, arguments, said, capsys):
  assert program.run(module.main, arguments) == 2
  error = capsys.readouterr().err
  assert said in error
  assert error.count('\n') == 1
