"""Exit codes and error lines of `program.run`."""

import errno

import pytest

from smft_jax import schema
from smft_jax.evaluation import health
from smft_jax.runtime import program


def raising(error):
  def main(argv):
    raise error

  return main


@pytest.mark.parametrize(
  'error',
  [
    schema.UserError('method.t\n  is wrong'),
    FileNotFoundError(errno.ENOENT, 'No such file', 'lost.txt'),
    OSError(errno.EIO, 'Input/output error'),
  ],
)
def test_a_mistake_is_one_line(error, capsys):
  assert program.run(raising(error), []) == 2
  out, err = capsys.readouterr()
  assert out == ''
  assert err.startswith('error: ')
  assert err.count('\n') == 1


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_and_code_1(number, capsys):
  assert program.run(raising(OSError(number, 'no room', 'disk')), []) == 1
  err = capsys.readouterr().err
  assert 'disk' in err
  assert 'the same command resumes' in err
  assert err.count('\n') == 1


def test_a_value_error_of_this_package_is_one_line(capsys):
  def main(argv):
    health.measure([0, 0])  # any function of ours that checks its arguments

  assert program.run(main, []) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: counts must be [N]')
  assert err.count('\n') == 1


@pytest.mark.parametrize('error', [ValueError('a bug'), TypeError('a bug')])
def test_a_bug_keeps_its_traceback(error):
  with pytest.raises(type(error), match='a bug'):
    program.run(raising(error), [])


def test_every_traceback_is_kept_on_request():
  seen = []

  def main(argv):
    seen.extend(argv)
    raise schema.UserError('wrong')

  with pytest.raises(schema.UserError):
    program.run(main, ['--traceback', '--workdir=x'])
  assert seen == ['--workdir=x']


def test_success_and_interruption(capsys):
  assert program.run(lambda argv: None, []) == 0
  assert program.run(raising(KeyboardInterrupt()), []) == 130
  assert 'resumes' in capsys.readouterr().err
