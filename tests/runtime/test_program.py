"""Exit codes and error lines of `program.run`."""

import errno
import io
import os
import subprocess
import sys

import pytest

from smft_jax import schema
from smft_jax.evaluation import health
from smft_jax.runtime import arguments
from smft_jax.runtime import program


def raising(error):
  def main(argv):
    raise error

  return main


@pytest.mark.parametrize(
  ('error', 'code', 'words'),
  [
    (schema.UserError('method.t\n  is wrong'), 2, ['method.t']),
    (FileNotFoundError(errno.ENOENT, 'No such file', 'lost'), 2, ['lost']),
    (OSError(errno.EIO, 'Input/output error'), 2, ['Input/output']),
    *(
      (OSError(number, 'no room', 'disk'), 1, ['disk', 'same command resumes'])
      for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    ),
  ],
)
def test_a_mistake_or_a_full_disk_is_one_line(error, code, words, capsys):
  assert program.run(raising(error), []) == code
  out, err = capsys.readouterr()
  assert out == ''
  assert err.startswith('error: ')
  assert err.count('\n') == 1
  assert all(word in err for word in words)


def test_a_message_that_repeats_a_file_is_cut_in_its_middle(capsys):
  long = schema.UserError(f'{"x" * 9000} is wrong; did you mean y?')
  assert program.run(raising(long), []) == 2
  err = capsys.readouterr().err
  assert len(err) < 1020
  assert err.startswith('error: xxx')
  assert err.endswith(' is wrong; did you mean y?\n')


# Less than a buffer keeps, and more.
@pytest.mark.parametrize('characters', [10, 10**6])
def test_a_reader_that_has_seen_enough_is_no_mistake(characters):
  main = f"""if True:
    import sys
    from smft_jax.runtime import program
    sys.exit(program.run(lambda argv: print('x' * {characters})))
  """
  reader, writer = os.pipe()
  os.close(reader)
  try:
    ran = subprocess.run(
      [sys.executable, '-c', main], stdout=writer, stderr=subprocess.PIPE
    )
  finally:
    os.close(writer)
  assert (ran.returncode, ran.stderr) == (141, b'')


def test_without_any_output_to_write_to_a_program_runs():
  main = 'from smft_jax.runtime import program; print(program.run(len, []))'
  script = f'exec {sys.executable} -c "{main}" >&-'
  assert subprocess.run(['sh', '-c', script], check=False).returncode == 0


def test_another_broken_pipe_is_told(capsys):
  broken = BrokenPipeError(errno.EPIPE, 'Broken pipe')
  assert program.run(raising(broken), []) == 2
  assert 'Broken pipe' in capsys.readouterr().err


def test_any_character_can_be_printed_and_any_byte_read(monkeypatch):
  shown = io.BytesIO()
  typed = io.TextIOWrapper(io.BytesIO(b'O\xf9?\n'), 'utf-8')
  monkeypatch.setattr('sys.stdin', typed)
  monkeypatch.setattr('sys.stdout', io.TextIOWrapper(shown, 'ascii'))
  assert program.run(lambda argv: print('Zo\xeb', input(), flush=True), []) == 0
  assert shown.getvalue() == b'Zo\\xeb O\\udcf9?\n'


def test_a_value_error_of_this_package_is_one_line(capsys):
  # Any function of ours that checks its arguments.
  assert program.run(lambda argv: health.measure([0, 0]), []) == 2
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


@pytest.mark.parametrize('word', ['-x?', '--lesson', '-40 C'])
def test_a_word_that_begins_with_a_dash_follows_two(word):
  parser = arguments.Parser(prog='ask')
  parser.add_argument('question', nargs='?')
  parser.add_argument('--workdir')
  found = parser.parse(['--workdir=runs', '--', word])
  assert (found.workdir, found.question) == ('runs', word)
  with pytest.raises(schema.UserError, match='unknown argument --lesson'):
    parser.parse(['--lesson', '--', word])
