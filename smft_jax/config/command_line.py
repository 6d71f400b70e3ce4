"""The command line of every program that takes a config.

    python -m smft_jax.train --config=FILE.py[:variant] [--workdir=DIR]
        [--config.section.key=value ...]

Like `ml_collections.config_flags`, with three differences: a mistake is one
line that names the nearest right thing, settings that the config file leaves at
their defaults can be overridden, and 1e3 is a whole number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import pathlib
import re
from typing import Any

from ml_collections import config_dict

from smft_jax import schema
from smft_jax.config import describe
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from smft_jax.store import paths


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
  """A flag of one program.

  Attributes:
    default: Value if the flag is not given. Its type, a string, number or bool,
      decides how the text is read.
    help: One line for `--help`.
  """

  default: Any
  help: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invocation:
  """A parsed command line.

  Attributes:
    config: The config file's config with overrides applied, not yet checked;
      see `config.experiment.from_config_dict`.
    config_file: The file and variant as given.
    workdir: Folder that the run writes into; named after the config and its
      overrides unless given.
    flags: Values of the program's own flags.
  """

  config: config_dict.ConfigDict
  config_file: str
  workdir: pathlib.Path
  flags: Mapping[str, Any]


PROCESSES = {
  'coordinator': Flag(
    default='',
    help='HOST:PORT of process 0, if the cluster does not provide it',
  ),
  'num_processes': Flag(default=0, help='number of processes'),
  'process_id': Flag(default=-1, help='index of this process, from 0'),
  'limit_s': Flag(default=300.0, help='seconds to wait for other processes'),
}
"""The flags of `processes.initialize`."""

_PRINT_CONFIG = Flag(
  default=False, help='print every setting with its meaning, and exit'
)


def parse(
  argv: Sequence[str],
  flags: Mapping[str, Flag] | None = None,
  about: str = '',
  note: str = '',
) -> Invocation:
  """Reads a command line and the config file that it names.

  Args:
    argv: The arguments, without the program's name.
    flags: The program's own flags by name.
    about: What the program does, the beginning of `--help`.
    note: A line for the end of `--help`.

  Raises:
    UserError: For anything that cannot be understood, in one line.
    SystemExit: After printing, for `--help` and `--print_config`.
  """
  flags = {**(flags or {}), 'print_config': _PRINT_CONFIG}
  given: dict[str, Any] = {name: flag.default for name, flag in flags.items()}
  overrides = []
  arguments = list(argv)
  while arguments:
    argument = arguments.pop(0)
    if argument in ('-h', '--help', '-help'):
      print('\n'.join(filter(None, (about, _usage(flags), note))))
      raise SystemExit(0)
    if not argument.startswith('-'):
      raise _stray(argument, flags)
    name, equals, text = argument.lstrip('-').partition('=')
    is_override = name.startswith('config.')
    if not is_override and name not in ('config', 'workdir', *flags):
      raise _unknown_flag(name, flags)
    if not equals:
      # Only a switch needs no value; others may have it as the next argument.
      is_switch = name in flags and isinstance(flags[name].default, bool)
      if not is_switch and arguments and not arguments[0].startswith('--'):
        text = arguments.pop(0)
      elif is_switch or is_override:
        text = 'true'
      else:
        raise schema.UserError(f'--{name} needs a value: --{name}=...')
    if is_override:
      overrides.append((name, text))
    elif name in flags:
      default = flags[name].default
      hint = str if default is None else type(default)
      given[name] = schema.coerce(
        config_file.read_text(text, hint), hint, f'--{name}'
      )
    else:
      given[name] = text
  named = given.pop('config', None)
  if named is None:
    known = config_file.known_files(pathlib.Path('configs'))
    raise schema.UserError(f'--config=FILE.py is missing{known}')
  config = config_file.load(named)
  # The method first: other settings of the method are meant for that one.
  overrides.sort(key=lambda override: override[0] != config_file.METHOD_NAME)
  for name, text in overrides:
    config_file.override(config, name, text)
  workdir = given.pop('workdir', None)
  if workdir is None:
    workdir = _default_workdir(named, overrides)
  elif not workdir:
    raise schema.UserError('--workdir is empty; leave it out for the default')
  if given.pop('print_config'):
    print(describe.describe(config_lib.from_config_dict(config)))
    raise SystemExit(0)
  return Invocation(
    config=config,
    config_file=named,
    workdir=paths.expand(workdir),
    flags=given,
  )


def _default_workdir(config_file: str, overrides: Sequence) -> str:
  """Returns a folder for each set of overrides: runs/docqa-squad,seed=1."""
  name, _, variant = config_file.partition('.py:')
  parts = [pathlib.Path(name).stem + (f'-{variant}' if variant else '')]
  parts += sorted(
    f'{key.removeprefix("config.")}={text}'
    for key, text in overrides
    if not key.startswith(config_lib.NOT_COMPARED)
  )
  folder = re.sub(r'[^\w.=,+-]', '_', ','.join(parts))
  if len(folder) > 120:  # file systems limit a name to 255 bytes
    digest = hashlib.sha256(folder.encode()).hexdigest()[:8]
    folder = f'{folder[:100]}-{digest}'
  return str(pathlib.Path('runs') / folder)


def _stray(argument: str, flags: Mapping[str, Flag]) -> schema.UserError:
  """Returns the error for an argument without dashes."""
  name = argument.partition('=')[0]
  if name in ('config', 'workdir', *flags) or name.startswith('config.'):
    return schema.UserError(
      f'{argument!r} lacks its dashes; did you mean --{argument}?'
    )
  if re.search(r'\.py(:|$)', argument):
    return schema.UserError(
      f'{argument!r} is no flag; did you mean --config={argument}?'
    )
  return schema.UserError(
    f'{schema.brief(argument)} is no flag; flags begin with two dashes, see'
    ' --help'
  )


def _unknown_flag(name: str, flags: Mapping[str, Flag]) -> schema.UserError:
  """Returns the error for an unknown flag, or a key without 'config.'."""
  keys = list(schema.keys(config_lib.Experiment, 'config'))
  for key in keys:
    if name in (key.removeprefix('config.'), key.rpartition('.')[2]):
      return schema.UserError(f'unknown flag --{name}; did you mean --{key}?')
  known = ['config', 'workdir', 'help', 'traceback', *flags]
  close = schema.nearest(name, [*known, *keys])
  hint = f'did you mean --{close}?' if close else 'see --help'
  return schema.UserError(f'unknown flag --{name}; {hint}')


def _usage(flags: Mapping[str, Flag]) -> str:
  """Returns the text of `--help`."""
  rows = [
    ('--config=FILE.py[:variant]', 'config file, required'),
    ('--config.section.key=value', 'override one setting; may be repeated'),
    ('--workdir=DIR', 'output folder; default runs/<config>,<overrides>'),
  ]
  for name, flag in flags.items():
    value = '' if flag.default is False else f'={flag.default}'
    rows.append((f'--{name}{value}', flag.help))
  rows.append(('--traceback', 'show where in the code an error arose'))
  width = max(len(left) for left, _ in rows)
  lines = [f'  {left:<{width}}  {right}' for left, right in rows]
  files = config_file.known_files(pathlib.Path('configs'))
  return '\n'.join(['usage:', *lines, *([files[2:]] if files else [])])
