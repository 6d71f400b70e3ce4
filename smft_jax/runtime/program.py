"""The shell of every program: mistakes in one line, exit codes, log lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
import os
import pathlib
import sys
import traceback

from absl import logging as absl_logging

from smft_jax import schema
from smft_jax.runtime import disk
from smft_jax.runtime import divergence
from smft_jax.runtime import preemption
from smft_jax.runtime import processes

# The folder of the package, with which the files of its code begin.
_PACKAGE = str(pathlib.Path(__file__).parent.parent) + os.sep


def run(
  main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None
) -> int:
  """Calls `main` and turns a person's mistakes into one line on stderr.

  Use it as `sys.exit(program.run(main))`. A mistake is a `UserError`, a ValueError
  raised by this package, or a file that cannot be read or written. Anything
  else is a bug and keeps its traceback; `--traceback` keeps all of them.

  Args:
    main: the program; takes the arguments after its name, and may return an
      exit code.
    argv: those arguments; None takes them from the process.

  Returns:
    The exit code: 0, also when SIGTERM stopped it; 1 when it could not go on,
    for lack of room or of a finite loss; 2 for a mistake; 130 when interrupted.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  keep_traceback = '--traceback' in arguments
  if keep_traceback:
    arguments.remove('--traceback')
  _show_our_log_lines()
  with preemption.noticed():
    try:
      code = _run(main, arguments, keep_traceback)
    except Exception as error:
      if processes.count() == 1:
        raise
      code = 1
      if isinstance(error, processes.Disconnected) and not keep_traceback:
        print(
          f'{processes.prefix()}error: a step failed, as when another process'
          f' is gone: {schema.one_line(error)[:300]}; the same command resumes',
          file=sys.stderr,
        )
      else:
        traceback.print_exc()
    processes.leave(code)
  return code


def _run(main, arguments: list[str], keep_traceback: bool) -> int:
  """Calls `main`, says what went wrong, and returns the exit code."""
  try:
    return main(arguments) or 0
  except preemption.Preempted:
    if processes.is_main():
      print(
        '\nstopped by SIGTERM, and saved; the same command resumes',
        file=sys.stderr,
      )
    return 0
  except KeyboardInterrupt:
    print('\ninterrupted; the same command resumes', file=sys.stderr)
    return 130
  except (divergence.Diverged, processes.Lost) as error:
    print(
      f'{processes.prefix()}error: {schema.one_line(error)}', file=sys.stderr
    )
    return 1
  except (ValueError, OSError) as error:
    if keep_traceback or not _is_mistake(error):
      raise
    full = isinstance(error, OSError) and error.errno in disk.FULL
    hint = '; make room, and the same command resumes' if full else ''
    message = f'{schema.one_line(error)}{hint}'
    print(f'{processes.prefix()}error: {message}', file=sys.stderr)
    return 1 if full else 2


def _is_mistake(error: Exception) -> bool:
  """Whether an error is a person's to mend, and not a bug of ours."""
  if isinstance(error, OSError):
    return error.filename is not None or error.errno is not None
  if isinstance(error, schema.UserError):
    return True
  frames = traceback.extract_tb(error.__traceback__)
  return bool(frames) and frames[-1].filename.startswith(_PACKAGE)


def _show_our_log_lines() -> None:
  """Shows this package's info lines; of other packages, only warnings."""
  absl_logging.set_verbosity(absl_logging.INFO)

  def keep(record: logging.LogRecord) -> bool:
    if record.pathname.startswith(_PACKAGE):
      # All processes say the same, but for what goes wrong.
      return processes.is_main() or record.levelno >= logging.WARNING
    # Orbax logs the whole traceback of what it raises as well, and we tell.
    of_orbax = f'{os.sep}orbax{os.sep}' in record.pathname
    return record.levelno >= logging.WARNING and not of_orbax

  # Not absl's own handler: that warns that its flags were not parsed.
  handler = logging.StreamHandler()
  handler.addFilter(keep)
  logging.basicConfig(format='%(message)s', handlers=[handler], force=True)
