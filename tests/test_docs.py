"""The documentation tells the truth where that can be checked by running it."""

import ast
import contextlib
import importlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys

import jax
import pytest
import yaml

from smft_jax import ask
from smft_jax import background
from smft_jax import export
from smft_jax import methods as methods_lib
from smft_jax import train
from smft_jax.analyze import __main__ as analyze
from smft_jax.compile import __main__ as compile_lib
from smft_jax.compile import shapes
from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.data import augment
from smft_jax.lesson import __main__ as lesson_program
from smft_jax.lesson import file as lesson_file
from smft_jax.prepare import __main__ as prepare
from smft_jax.runs import saved_run
from smft_jax.sweep import __main__ as sweep
from tests.support import repository
from tests.support import tiny_run

ROOT = repository.ROOT
DOCS = ROOT / 'docs'
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob('*.md'))
pytestmark = pytest.mark.usefixtures('quick_compilation')


def text_of(page):
  """A page with the files that it includes."""
  return re.sub(
    r'^--8<-- "(launch/.*?)(?::\d+)?"$',
    lambda found: (ROOT / found[1]).read_text(),
    (DOCS / page).read_text(),
    flags=re.M,
  )


def blocks(page, language):
  """Code blocks of a page, each with the text block that comes next, if any."""
  return re.findall(
    rf'^ *```{language}\n(.*?)^ *```\n(?:\n```text\n(.*?)^```\n)?',
    text_of(page),
    re.M | re.S,
  )


@pytest.mark.parametrize(
  'page', [page for page in PAGES if blocks(page, 'python')]
)
def test_python_blocks_print_what_they_say(page, monkeypatch):
  monkeypatch.chdir(ROOT)
  scope = {}
  for code, output in blocks(page, 'python'):
    comments = re.findall(r'^ *print\(.*?  #\s*(\S.*)$', code, re.M)
    printed = io.StringIO()
    # As a user has it: optax's own AdamW does not pass strict promotion.
    with (
      contextlib.redirect_stdout(printed),
      jax.numpy_dtype_promotion('standard'),
      jax.numpy_rank_promotion('allow'),
    ):
      exec(compile(code, page, 'exec'), scope)
    assert comments or output
    assert printed.getvalue() == (
      '\n'.join(comments) + '\n' if comments else output
    )


def commands(page):
  """Our programs that a page runs, with their arguments."""
  for code, _ in blocks(page, 'bash'):
    for line in code.replace('\\\n', ' ').split('\n'):
      found = re.match(r' *(?:\w+=\S+ )*python -m (smft_jax[\w.]*)(.*)', line)
      if found:
        yield found[1], shlex.split(found[2])


def through(program):
  """Reads a program's command line, and stops before it looks for a run."""

  class Stopped(Exception):
    pass

  def stop(workdir):
    raise Stopped

  def read(arguments):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(lesson_file, 'read', lambda path: None)
      patch.setattr(background, '_read', stop)
      patch.setattr(background.base_lib, 'make_task', stop)
      patch.setattr(saved_run, 'load_experiment', stop)
      with pytest.raises(Stopped):
        program.main(arguments)

  return read


def with_config(program, check=config_lib.from_config_dict):
  return lambda arguments: check(
    command_line.parse(arguments, program._FLAGS).config
  )


UNDERSTOOD_BY = {
  'smft_jax.analyze': through(analyze),
  'smft_jax.ask': through(ask),
  'smft_jax.background': through(background),
  'smft_jax.compile': with_config(compile_lib, shapes.parse_experiment),
  'smft_jax.data.augment': augment._arguments,
  'smft_jax.export': through(export),
  'smft_jax.lesson': lesson_program._parse,
  'smft_jax.prepare': prepare.parse,
  'smft_jax.sweep': with_config(sweep),
  'smft_jax.train': with_config(train),
}


@pytest.mark.parametrize(
  ('page', 'program', 'arguments'),
  [(page, *command) for page in PAGES for command in commands(page)],
)
def test_commands_are_understood(page, program, arguments, monkeypatch):
  monkeypatch.chdir(ROOT)
  UNDERSTOOD_BY[program](arguments)


def test_the_commands_are_found():
  assert {program for program, _ in commands('tutorial.md')} == {
    f'smft_jax.{name}' for name in ('train', 'analyze', 'lesson', 'ask')
  }
  assert 'smft_jax.compile' in dict(commands('guides/pod.md'))


@pytest.mark.parametrize('page', PAGES)
def test_what_a_sentence_names_is_there(page):
  text = text_of(page)
  for module in re.findall(r'python -m ([\w.]+\w)', text):
    assert importlib.util.find_spec(module), module
  for name in re.findall(r'\b(?:configs|launch|docs)/[\w/]+\.\w+', text):
    assert (ROOT / name).is_file(), name


def test_contributing_names_files_that_are_there():
  text = (ROOT / 'CONTRIBUTING.md').read_text()
  names = re.findall(r'`((?:smft_jax|tests|configs|docs)/[\w/.]*)`', text)
  assert len(names) > 10
  for name in names:
    assert (ROOT / name).exists(), name
  named = re.findall(r'`(\w+)` (?:there|in)\s+`(smft_jax/\S+\.py)`', text)
  assert named
  for name, path in named:
    assert name in (ROOT / path).read_text(), name


def test_complaints_name_tests_that_are_there():
  names = re.findall(r'`((?:\w+/)+\w+\.py)`', text_of('complaints.md'))
  assert len(names) > 20
  for name in names:
    assert (ROOT / 'tests' / name).is_file(), name


def ids_of(page):
  """Targets of links into a page: its headings and its modules' members."""
  text = (DOCS / page).read_text()
  headings = re.findall(r'^#+ (.*)$', text, re.M)
  return {
    re.sub(r'[\s-]+', '-', re.sub(r'[^\w\s-]', '', heading).lower())
    for heading in headings
  } | {
    name if member is None else f'{name}.{member}'
    for name in modules_in(page)
    for member in (None, *vars(importlib.import_module(name)))
  }


def modules_in(page):
  return re.findall(r'^::: (\S+)$', (DOCS / page).read_text(), re.M)


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
  for link in re.findall(r'\]\((?!https?:)(.*?)\)', text_of(page), re.S):
    target, _, fragment = link.partition('#')
    path = (DOCS / page).parent / target if target else DOCS / page
    assert path.is_file(), link
    if fragment:
      assert fragment in ids_of(path.resolve().relative_to(DOCS)), link


def test_contributing_and_readme_have_the_layers_that_are_tested():
  tree = ast.parse((ROOT / 'tests' / 'test_imports.py').read_text())
  (layers,) = [
    ast.literal_eval(node.value)
    for node in tree.body
    if isinstance(node, ast.Assign) and node.targets[0].id == 'LAYERS'
  ]
  rows = re.findall(
    r'^\| (\d+) \| (.*) \|$', (ROOT / 'CONTRIBUTING.md').read_text(), re.M
  )
  assert [(int(number), row.split()) for number, row in rows] == [
    (i + 1, [f'`{room}`' for room in layer]) for i, layer in enumerate(layers)
  ]
  # The README's map goes from the lowest layer to the highest.
  heights = {room: i for i, layer in enumerate(layers) for room in layer}
  rooms = re.findall(
    r'^  (\w+)(?:/|\.py) ', (ROOT / 'README.md').read_text(), re.M
  )
  assert sorted(rooms, key=heights.__getitem__) == rooms


def leaves(nav):
  for entry in nav:
    (value,) = entry.values()
    yield from [value] if isinstance(value, str) else leaves(value)


def test_the_menu_names_every_page_once():
  settings = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())
  assert sorted(leaves(settings['nav'])) == PAGES


def test_the_reference_has_what_users_call_once():
  named = [module for page in PAGES for module in modules_in(page)]
  assert len(named) == len(set(named))
  for module in named:
    assert importlib.util.find_spec(module), module
  package = ROOT / 'smft_jax'
  # The parts, and what can be chosen by name; of other rooms not every file.
  parts = {f'smft_jax.{path.stem}' for path in package.glob('[a-z]*.py')}
  methods = {f'smft_jax.methods.{name}' for name in methods_lib.METHODS}
  assert parts | methods <= set(named)


@pytest.mark.slow
def test_the_tutorial_works_from_its_first_command_to_its_last(tmp_path):
  """As written, except for the config: a world and a model of seconds."""
  (tmp_path / 'configs').mkdir()
  config = tiny_run.write_config(tmp_path / 'configs')
  config.rename(config.with_name('docqa.py'))
  script = ''.join(
    code
    for code, _ in blocks('tutorial.md', 'bash')
    if 'pip install' not in code
  )
  script = re.sub(r'BASE=.*', 'BASE=$(echo configs/cache/base-*)', script)
  script = re.sub(r'^python\b', shlex.quote(sys.executable), script, flags=re.M)
  done = subprocess.run(
    ['bash', '-e', '-c', script],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert 'back: as if never taught' in done.stdout
  assert 'taught: one array differs, the table' in done.stdout
  assert (tmp_path / 'runs' / 'docqa' / 'report.html').is_file()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_for_no_other(tmp_path):
  pytest.importorskip('zensical')
  pytest.importorskip('mkdocstrings')
  for name in ('docs', 'launch', 'smft_jax'):
    shutil.copytree(ROOT / name, tmp_path / name)
  for name in ('mkdocs.yml', 'README.md'):
    shutil.copy(ROOT / name, tmp_path)
  done = subprocess.run(
    [sys.executable, '-m', 'zensical', 'build', '--strict'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  pages = list((tmp_path / 'site').rglob('*.html'))
  assert len(pages) > len(PAGES)
  for page in pages:
    loaded = re.findall(
      r'(?:src|<link[^>]* href)="((?:https?:)?//.*?)"', page.read_text()
    )
    assert not loaded, page
