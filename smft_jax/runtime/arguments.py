"""Command lines of programs that take no config file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import itertools
from typing import NoReturn

from smft_jax import schema


class Parser(argparse.ArgumentParser):
  """An `ArgumentParser` that raises a one-line UserError.

  Example:
    >>> parser = Parser(prog='show')
    >>> _ = parser.add_argument('--out', required=True)
    >>> try:
    ...   parser.parse(['--uot=x'])
    ... except schema.UserError as error:
    ...   print(error)
    unknown argument --uot=x; did you mean '--out'?
  """

  def __init__(self, **settings):
    super().__init__(allow_abbrev=False, **settings)

  def error(self, message: str) -> NoReturn:
    """Raises a UserError; argparse calls it."""
    raise schema.UserError(message)

  def parse(self, argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line.

    Raises:
      UserError: For any mistake.
      SystemExit: For `--help`, after printing the usage.
    """
    # First, so that a misspelt flag is not reported as missing.
    flags = self._flags()
    for word in itertools.takewhile('--'.__ne__, argv):  # then no flag follows
      name = word.partition('=')[0]
      if name.startswith('--') and name not in flags:
        close = schema.nearest(name, flags)
        hint = f'did you mean {close!r}?' if close else 'see --help'
        raise schema.UserError(f'unknown argument {word}; {hint}')
    arguments, unknown = self.parse_known_args(argv)
    if unknown:
      raise schema.UserError(f'unknown argument {unknown[0]}; see --help')
    return arguments

  def _flags(self) -> list[str]:
    """Returns all flags, those of subcommands included."""
    flags = [flag for action in self._actions for flag in action.option_strings]
    for action in self._actions:
      if isinstance(action, argparse._SubParsersAction):
        for parser in action.choices.values():
          flags += parser._flags()
    return flags
