"""Figures are legible, deterministic, and safe to put into a page."""

import itertools
import xml.etree.ElementTree as ElementTree

import matplotlib
from matplotlib import font_manager
import pytest

from smft_jax.report import figures

LABEL = '<&">\' $x$'


def series(*ys, label='a', color='blue'):
  points = tuple(enumerate(ys))
  return figures.Series(label=label, points=points, color=color, dashes=(6, 4))


def draw(*lines, **more):
  return figures.line_chart(lines, x_label='x', y_label='y', **more)


@pytest.mark.parametrize(
  'ys', [(0.0, 1.0), (3.0, 3.0, 3.0), (-0.2, 0.01), (0.0,), (1e6, 2e6)]
)
def test_drawing_stays_on_the_paper(ys):
  drawn = draw(series(*ys, label='a label'))
  drawn.draw_without_rendering()
  width, height = drawn.get_size_inches() * drawn.dpi
  box = drawn.get_tightbbox().padded(0)
  assert box.x0 >= 0
  assert box.y0 >= 0
  assert box.x1 * drawn.dpi <= width
  assert box.y1 * drawn.dpi <= height
  (plot,) = drawn.axes
  low, high = plot.get_ylim()
  assert low <= min(0, *ys)
  assert max(0, *ys) <= high


@pytest.mark.parametrize('to_file', [figures.svg, figures.png])
def test_the_same_figure_gives_the_same_file(to_file):
  first, second = (to_file(draw(series(1.0, 2.0))) for _ in range(2))
  assert first == second


def test_colours_are_variables_and_rules_stay_inside():
  svg = figures.svg(draw(series(1.0, 2.0, color='orange')))
  assert 'var(--orange, #c2500a)' in svg
  for text in ('<style', ' id="axes_1"', 'Matplotlib', '<?xml'):
    assert text not in svg
  assert 'prefers-color-scheme: dark' in figures.standalone(svg)


def test_drawing_changes_no_global_state():
  def settings():
    # Reading the backend chooses one.
    return {k: matplotlib.rcParams[k] for k in keys}

  keys = matplotlib.rcParams.keys() - {'backend'}
  before = settings()
  figures.svg(draw(series(1.0, 2.0)))
  assert settings() == before


def test_labels_are_escaped():
  svg = figures.svg(draw(series(1.0, 2.0, label=LABEL)), LABEL)
  assert '<&' not in svg
  texts = ElementTree.fromstring(svg).iter('{http://www.w3.org/2000/svg}text')
  assert LABEL in [text.text for text in texts]


def test_characters_without_a_font_are_told_in_one_line(caplog):
  drawn = draw(series(1.0, 2.0, label='\ue123 and \ue124, \ue123 again'))
  assert '\ue123' in figures.svg(drawn)  # text, for the reader's fonts
  assert not caplog.records
  assert figures.png(drawn)
  (record,) = caplog.records
  assert 'stand for 2 characters that no font here has' in record.getMessage()
  assert '\ue123 \ue124' in record.getMessage()


def test_fonts_of_other_scripts_are_taken_where_they_are(monkeypatch):
  names = ['DejaVu Sans', 'Arial Unicode MS', 'Noto Sans CJK JP', 'Wingdings']
  monkeypatch.setattr(font_manager, 'get_font_names', lambda: names)
  with figures.style():
    found = matplotlib.rcParams['font.family']
  assert found == ['DejaVu Sans', 'Noto Sans CJK JP', 'Arial Unicode MS']


def test_a_chart_needs_a_point():
  with pytest.raises(ValueError, match='at least one point'):
    draw(series())


def test_values_at_the_ends_do_not_overlap():
  lines = [series(0.0, y) for y in (0.5, 0.501, 0.502, 0.9)]
  (plot,) = draw(*lines, y_range=(0.0, 1.0)).axes
  texts = [text.get_text() for text in plot.texts]
  assert texts == ['0.5', '0.501', '0.502', '0.9']
  heights = sorted(text.xy[1] for text in plot.texts)
  assert all(b - a >= 0.08 for a, b in itertools.pairwise(heights))


def test_spread_keeps_order_and_centre():
  wanted = [50.0, 49.0, 51.0, 20.0, 64.5]
  placed = figures.spread(wanted, gap=14)
  order = sorted(range(5), key=lambda i: wanted[i])
  assert order == sorted(range(5), key=lambda i: placed[i])
  gaps = [placed[b] - placed[a] for a, b in itertools.pairwise(order)]
  assert all(gap >= 14 - 1e-9 for gap in gaps)
  assert sum(placed) == pytest.approx(sum(wanted))
