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


def test_the_file_tree_names_every_module_and_no_other():
  tree = next(block for block in blocks('') if 'product_keys.py' in block)
  named = set(re.findall(r'\w+\.py\b', tree))
  package = ROOT / 'smft_jax'
  there = {p.name for p in package.rglob('*.py')} - {'__init__.py'}
  there |= {p.name for p in (ROOT / 'configs').glob('*.py')}
  there |= {p.name for p in (ROOT / 'benchmarks').glob('*.py')} - {
    '__init__.py'
  }
  # methods/ is one line in the tree.
  there -= {p.name for p in (package / 'methods').glob('*.py')}
  assert named == there


def test_the_pictures_exist():
  for picture in re.findall(r'!\[.*?\]\((.*?)\)', README):
    assert (ROOT / picture).is_file()
