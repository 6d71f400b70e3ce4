"""The README tells the truth where that can be checked by running it."""

import contextlib
import io
import re

import jax
import pytest

from tests.support import repository

ROOT = repository.ROOT
README = (ROOT / 'README.md').read_text()


def blocks(language):
  fenced = re.findall(r'^```(\w*)\n(.*?)^```\n', README, re.M | re.S)
  return [code for name, code in fenced if name == language]


@pytest.mark.parametrize('code', blocks('python'))
def test_python_blocks_print_what_they_say(code):
  promised = re.findall(r'^print\(.*?#\s*(\S.*?)(?::.*)?$', code, re.M)
  printed = io.StringIO()
  # As a user has it: optax's own AdamW does not pass strict promotion.
  with (
    contextlib.redirect_stdout(printed),
    jax.numpy_dtype_promotion('standard'),
  ):
    exec(compile(code, 'README.md', 'exec'), {})
  assert promised
  assert printed.getvalue().split('\n')[:-1] == promised


def test_the_map_names_every_room_and_no_other():
  (tree,) = [block for block in blocks('') if block.startswith('smft_jax/\n')]
  named = re.findall(r'^  (\S+)  ', tree, re.M)
  rooms = {
    f'{path.name}/' if path.is_dir() else path.name
    for path in (ROOT / 'smft_jax').iterdir()
    if path.name not in ('__init__.py', '__pycache__')
  }
  assert len(named) == len(set(named))
  assert set(named) == rooms
  for folder in re.findall(r'^(\w+)/', tree, re.M):
    assert (ROOT / folder).is_dir(), folder


def test_it_is_read_in_two_minutes():
  assert len(README.splitlines()) <= 170


def test_links_and_pictures_exist():
  links = re.findall(r'\]\((?!https?:)(.*?)(?:#.*?)?\)', README)
  assert 'docs/numbers.md' in links
  for link in links:
    assert (ROOT / link).exists(), link


def test_its_numbers_on_rivals_are_those_of_the_table():
  pattern = r'by full finetuning changes .*?LoRA\s.*?%, by sparse memory none'
  (sentence,) = re.findall(pattern, README, re.S)
  numbers = (ROOT / 'docs' / 'numbers.md').read_text()
  shares = [*re.findall(r'[\d.]+%', sentence), r'\*\*0.0%\*\*']
  methods = ('full finetuning, 3e-5', 'LoRA, 1e-4', r'\*\*sparse memory\*\*')
  for method, share in zip(methods, shares, strict=True):
    changed = rf'^\| {method} \| [^|]* \| [^|]* \| {share} \|'
    assert len(re.findall(changed, numbers, re.M)) == 1, method
