"""Runs the main function of a program: errors, exit codes, log lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import io
import logging
import os
import pathlib
import select
import signal
import sys
import traceback

from absl import logging as absl_logging

from smft_jax import schema
from smft_jax.runtime import allocator
from smft_jax.runtime import disk
from smft_jax.runtime import divergence
from smft_jax.runtime import interrupt
from smft_jax.runtime import preemption
from smft_jax.runtime import processes

# Prefix of the paths of the package's own files.
_PACKAGE = str(pathlib.Path(__file__).parent.parent) + os.sep


def run(
  main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None
) -> int:
  """Calls `main`, and prints a mistake of the user as one line on stderr.

  Use it as `sys.exit(program.run(main))`. A mistake is a `UserError`, a
  ValueError raised by this package, or an OSError. Anything else is a bug and
  keeps its traceback; `--traceback` keeps all tracebacks.

  Args:
    main: Takes the command-line arguments; may return an exit code.
    argv: Those arguments; None takes them from the process.

  Returns:
    The exit code: 0 on success and after SIGTERM; 1 if the run cannot continue
    (disk full, diverged, another process lost); 2 for a mistake; 130 after
    Ctrl-C; 141, as shells report it, if nobody reads the output any more.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  keep_traceback = '--traceback' in arguments
  if keep_traceback:
    arguments.remove('--traceback')
  _show_our_log_lines()
  _accept_any_character()
  allocator.keep_freed_memory()
  is_alone = argv is None  # not called by another program, such as a test
  with preemption.handle_sigterm(), _watched(is_alone):
    try:
      code = _run(main, arguments, keep_traceback)
    except Exception as error:
      if processes.count() == 1:
        raise
      code = 1
      if isinstance(error, processes.Disconnected) and not keep_traceback:
        print(
          f'{processes.prefix()}error: a step failed, perhaps because another'
          f' process is gone: {schema.one_line(error)[:300]}; the same command'
          ' resumes',
          file=sys.stderr,
        )
      else:
        traceback.print_exc()
    processes.leave(code)
    if is_alone and code == interrupt.CODE:
      interrupt.leave(code)
  return code


def _watched(is_alone: bool) -> contextlib.AbstractContextManager[None]:
  return interrupt.watched() if is_alone else contextlib.nullcontext()


def _run(main, arguments: list[str], keep_traceback: bool) -> int:
  """Calls `main`, prints what went wrong, and returns the exit code."""
  try:
    code = main(arguments) or 0
    print(end='', flush=True)
    return code
  except preemption.Preempted:
    if processes.is_main():
      print(
        '\nstopped by SIGTERM and saved; the same command resumes',
        file=sys.stderr,
      )
    return 0
  except KeyboardInterrupt:
    interrupt.say()
    return interrupt.CODE
  except (divergence.Diverged, processes.Lost) as error:
    print(
      f'{processes.prefix()}error: {schema.one_line(error)}', file=sys.stderr
    )
    return 1
  except (ValueError, OSError) as error:
    if isinstance(error, BrokenPipeError) and _is_unread():
      return 128 + signal.SIGPIPE
    if keep_traceback or not _is_mistake(error):
      raise
    full = isinstance(error, OSError) and error.errno in disk.FULL
    hint = '; free some space, then the same command resumes' if full else ''
    message = f'{schema.one_line(error)}{hint}'
    print(f'{processes.prefix()}error: {message}', file=sys.stderr)
    return 1 if full else 2


def _is_unread() -> bool:
  """Returns whether nobody reads the output, such as after `| head`.

  What is left of it then goes nowhere, or the interpreter would complain.
  """
  try:
    output = sys.stdout.fileno()
  except (AttributeError, OSError):  # closed, or not a file
    return False
  watched = select.poll()
  watched.register(output, 0)
  # Else another pipe broke, such as that to a worker.
  is_unread = any(event & select.POLLERR for _, event in watched.poll(0))
  if is_unread:
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
  return is_unread


def _is_mistake(error: Exception) -> bool:
  """Returns whether an error is a mistake of the user, not a bug."""
  if isinstance(error, OSError):
    return error.filename is not None or error.errno is not None
  if isinstance(error, schema.UserError):
    return True
  frames = traceback.extract_tb(error.__traceback__)
  return bool(frames) and frames[-1].filename.startswith(_PACKAGE)


def _accept_any_character() -> None:
  """Prints what a terminal's encoding lacks as escapes; reads any bytes.

  Without it an answer is lost to a terminal in ASCII. Bytes of another encoding
  become surrogates, as Python makes them in arguments.
  """
  errors = {sys.stdin: 'surrogateescape', sys.stdout: 'backslashreplace'}
  for stream, handling in errors.items():
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors=handling)


def _show_our_log_lines() -> None:
  """Shows info lines of this package, and only warnings of others."""
  absl_logging.set_verbosity(absl_logging.INFO)

  def keep(record: logging.LogRecord) -> bool:
    if record.pathname.startswith(_PACKAGE):
      # Other processes log the same, except when something goes wrong.
      return processes.is_main() or record.levelno >= logging.WARNING
    # Orbax also logs the traceback of what it raises.
    is_orbax = f'{os.sep}orbax{os.sep}' in record.pathname
    return record.levelno >= logging.WARNING and not is_orbax

  # absl's own handler would warn that its flags were not parsed.
  handler = logging.StreamHandler()
  handler.addFilter(keep)
  logging.basicConfig(format='%(message)s', handlers=[handler], force=True)
