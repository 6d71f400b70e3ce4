"""Templates escape text and leave out what is empty."""

import os

import jinja2
import pytest

from smft_jax.report import page


def render(body, **context):
  source = f"{{% import 'macros.html' as parts %}}{body}"
  return page._environment().from_string(source).render(context).strip()


@pytest.mark.parametrize(
  'call',
  [
    'parts.tiles([(text, text)])',
    'parts.table([text], [[text]])',
    'parts.facts([(text, text)])',
    'parts.bars([(text, 1, text)])',
  ],
)
def test_text_is_escaped(call):
  shown = render(f'{{{{ {call} }}}}', text='<script>"')
  assert shown.count('&lt;script&gt;&#34;') == 2
  assert '<script>' not in shown


@pytest.mark.parametrize(
  'call',
  ['parts.tiles([])', 'parts.table(["a"], [])', 'parts.facts([])',
   'parts.bars([])', 'parts.figure(none)'],
)  # fmt: skip
def test_what_is_empty_leaves_nothing(call):
  shown = render(
    f"{{% call parts.details('title') %}}{{{{ {call} }}}}{{% endcall %}}"
  )
  assert shown == ''


def test_table_marks_its_own_row_and_leaves_none_empty():
  shown = render("{{ parts.table(['', 'lost'], rows, own=1) }}",
                 rows=[('LoRA', None), ('ours', '5%')])  # fmt: skip
  assert '<tr><td>LoRA</td><td></td></tr>' in shown
  assert '<tr class="own"><td>ours</td><td>5%</td></tr>' in shown


def test_a_path_of_another_encoding_can_be_written(monkeypatch):
  loader = jinja2.DictLoader({'a.html': 'Zo\xeb in {{ path }}'})
  environment = jinja2.Environment(loader=loader, autoescape=True)
  monkeypatch.setattr(page, '_environment', lambda: environment)
  html = page.render('a.html', path=os.fsdecode(b'caf\xe9'))
  assert html == 'Zo\xeb in caf\\udce9'


def test_a_missing_variable_is_an_error():
  with pytest.raises(jinja2.UndefinedError, match='headline'):
    page.render('base.html', title='t')
