"""Bad rows: refused in one line, or skipped, counted and logged."""

from absl import logging
import pytest

from smft_jax import schema
from smft_jax.data.sources import problems as problems_lib

_EMPTY = problems_lib.Fault('empty', 'no text')


def test_policies():
  problems = problems_lib.Problems('refuse')
  with pytest.raises(schema.UserError, match=r'^a\.jsonl:3: no text$'):
    problems.report(_EMPTY, 'a.jsonl:3')
  assert problems.counts == {}
  problems = problems_lib.Problems('skip')
  for kind in ('empty', 'not_json', 'empty'):
    problems.report(problems_lib.Fault(kind, 'no text'), 'a.jsonl:3')
  assert problems.counts == {'empty': 2, 'not_json': 1}
  assert problems.total() == 3
  with pytest.raises(schema.UserError, match="did you mean 'skip'"):
    problems_lib.Problems('skp')


def test_the_first_ten_are_logged_in_full(monkeypatch):
  logged = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *values: logged.append(text % values)
  )
  problems = problems_lib.Problems('skip')
  for line in range(13):
    problems.report(_EMPTY, f'a.jsonl:{line}')
  assert logged[9] == 'skipped a.jsonl:9: no text'
  assert len(logged) == 11
  assert 'counted' in logged[10]
  problems.report(problems_lib.Fault('bad_utf8', 'é'), 'a.jsonl:14')
  problems.log_counts()
  assert logged[11:] == ['skipped so far: 1 bad_utf8, 13 empty']


def test_messages_are_short_and_of_one_line():
  assert problems_lib.shortened(ValueError('a\n b')) == 'a b'
  assert len(problems_lib.shortened(ValueError('x' * 500))) == 160
  assert problems_lib.or_else('a', []) == 'there is nothing'
