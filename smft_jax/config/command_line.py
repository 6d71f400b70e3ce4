"""The command line of every program: config file, overrides, workdir, errors.

    python -m smft_jax.train --config=FILE.py[:variant] [--workdir=DIR]
        [--config.section.key=value ...]

It reads like `ml_collections.config_flags`, with three differences. A mistake
is one line that names the nearest right thing. A setting that the config file
leaves at its default can be overridden too. And 1e3 is a whole number.
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
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
  """A flag of one program, beside the ones all share.

  Attributes:
    default: its value when not given; a string unless it is a number or a
      bool, which also decides how the text is read.
    help: one line for `--help`.
  """

  default: Any
  help: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invocation:
  """A parsed command line.

  Attributes:
    config: what the config file built, overrides applied; not checked yet
      (`config.from_config_dict` does that).
    config_file: the file and variant as given.
    workdir: where the run writes; named after the config and its overrides
      unless given.
    argv: the command line, without the program's name.
    flags: values of the program's own flags.
  """

  config: config_dict.ConfigDict
  config_file: str
  workdir: pathlib.Path
  argv: tuple[str, ...]
  flags: Mapping[str, Any]


def parse(
  argv: Sequence[str],
  flags: Mapping[str, Flag] | None = None,
  note: str = '',
) -> Invocation:
  """Reads a command line and the config file it names.

  Args:
    argv: the arguments, without the program's name.
    flags: the program's own flags by name, beside `config` and `workdir`.
    note: a line that ends what `--help` prints.

  Raises:
    UserError: for anything that cannot be understood, in one line.
    SystemExit: after printing the usage, if `--help` is among the arguments.
  """
  flags = dict(flags or {})
  given, overrides = {}, []
  arguments = list(argv)
  while arguments:
    argument = arguments.pop(0)
    if argument in ('-h', '--help', '-help'):
      print('\n'.join(filter(None, (_usage(flags), note))))
      raise SystemExit(0)
    if not argument.startswith('-'):
      raise _stray(argument, flags)
    name, equals, text = argument.lstrip('-').partition('=')
    is_override = name.startswith('config.')
    if not is_override and name not in ('config', 'workdir', *flags):
      raise _unknown_flag(name, flags)
    if not equals:
      # A switch needs no value; all else may have it as the next argument.
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
  if 'config' not in given:
    there = config_file.at_hand(pathlib.Path('configs'))
    raise schema.UserError(f'--config=FILE.py is missing{there}')
  named = given.pop('config')
  config = config_file.load(named)
  # The method first: what else is said of it is meant for that one.
  overrides.sort(key=lambda override: override[0] != config_file.METHOD_NAME)
  for name, text in overrides:
    config_file.override(config, name, text)
  workdir = given.pop('workdir', None)
  if workdir is None:
    workdir = _default_workdir(named, overrides)
  elif not workdir:
    raise schema.UserError('--workdir is empty; leave it out for the default')
  return Invocation(
    config=config,
    config_file=named,
    workdir=pathlib.Path(workdir).expanduser(),
    argv=tuple(argv),
    flags={name: flag.default for name, flag in flags.items()} | given,
  )


def _default_workdir(config_file: str, overrides: Sequence) -> str:
  """runs/docqa-squad,seed=1: a run of its own for each set of overrides."""
  name, _, variant = config_file.partition('.py:')
  parts = [pathlib.Path(name).stem + (f'-{variant}' if variant else '')]
  parts += sorted(
    f'{key.removeprefix("config.")}={text}'
    for key, text in overrides
    if not key.startswith(config_lib.NOT_COMPARED)
  )
  folder = re.sub(r'[^\w.=,+-]', '_', ','.join(parts))
  if len(folder) > 120:  # file systems end a name at 255 bytes
    digest = hashlib.sha256(folder.encode()).hexdigest()[:8]
    folder = f'{folder[:100]}-{digest}'
  return str(pathlib.Path('runs') / folder)


def _stray(argument: str, flags: Mapping[str, Flag]) -> schema.UserError:
  """The error for an argument without dashes."""
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
    f'{argument!r} is no flag; flags begin with two dashes, see --help'
  )


def _unknown_flag(name: str, flags: Mapping[str, Flag]) -> schema.UserError:
  """The error for a flag nobody declared, or a config key without 'config.'."""
  keys = list(schema.keys(config_lib.Experiment, 'config'))
  for key in keys:
    if name in (key.removeprefix('config.'), key.rpartition('.')[2]):
      return schema.UserError(f'unknown flag --{name}; did you mean --{key}?')
  known = ['config', 'workdir', 'help', 'traceback', *flags]
  close = schema.nearest(name, [*known, *keys])
  hint = f'did you mean --{close}?' if close else 'see --help'
  return schema.UserError(f'unknown flag --{name}; {hint}')


def _usage(flags: Mapping[str, Flag]) -> str:
  """What `--help` prints."""
  rows = [
    ('--config=FILE.py[:variant]', 'the config file, required'),
    ('--config.section.key=value', 'override one setting; may be repeated'),
    ('--workdir=DIR', 'where to write; default runs/<config>,<overrides>'),
    *((f'--{name}={f.default}', f.help) for name, f in flags.items()),
    ('--traceback', 'show where in the code an error arose'),
  ]
  width = max(len(left) for left, _ in rows)
  lines = [f'  {left:<{width}}  {right}' for left, right in rows]
  files = config_file.at_hand(pathlib.Path('configs'))
  return '\n'.join(['usage:', *lines, *([files[2:]] if files else [])])
