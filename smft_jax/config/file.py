"""Runs config files and overrides their settings.

A config file defines `get_config()` or `get_config(variant)`, which returns a
ConfigDict. It may list its `VARIANTS`, so that a mistyped one is recognized,
and define `sweep(add)` or `sweep(add, variant)`, see `sweep.plan`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
import inspect
import pathlib
import traceback
from typing import Any

from ml_collections import config_dict

from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.store import paths

METHOD_NAME = 'config.method.name'


def load(config_file: str) -> config_dict.ConfigDict:
  """Runs `get_config` of a config file.

  Args:
    config_file: 'FILE.py' or 'FILE.py:variant'; the variant is passed to
      `get_config`. A file that lists its `VARIANTS` has it checked.

  Raises:
    UserError: If the file, its `get_config` or the variant does not exist.
  """
  path, variant, scope = _read(config_file)
  get_config = scope.get('get_config')
  if not callable(get_config):
    raise schema.UserError(
      f'config file {path} has no get_config(); it must return a ConfigDict'
    )
  arguments = () if variant is None else (variant,)
  if not _takes(get_config, arguments):
    raise schema.UserError(
      f'{path} needs a variant: --config={path}:VARIANT'
      if variant is None
      else f'{path} has no variants, so leave {":" + variant!r} out'
    )
  config = _call(path, 'get_config', get_config, arguments)
  if not isinstance(config, config_dict.ConfigDict):
    raise schema.UserError(
      f'get_config of {path} must return a ConfigDict, not a'
      f' {type(config).__name__}'
    )
  return config


def sweep(config_file: str, add: Callable[..., None]) -> dict[str, Any]:
  """Runs `sweep` of a config file, which calls `add` for every point.

  Args:
    config_file: As in `load`; a `sweep` of two parameters gets the variant.
    add: Function that takes a point, see `sweep.plan.expand`.

  Returns:
    The config file's REPORT, settings of its report; {} without one.

  Raises:
    UserError: If the file has no `sweep`, or it fails.
  """
  path, variant, scope = _read(config_file)
  function = scope.get('sweep')
  if not callable(function):
    raise schema.UserError(
      f'config file {path} has no sweep(add), so there are no points to run;'
      ' use smft_jax.train for a single run'
    )
  arguments = (add,) if variant is None else (add, variant)
  if not _takes(function, arguments):
    arguments = (add,)  # the same points in all variants
  if not _takes(function, arguments):
    raise schema.UserError(
      f'{path} needs a variant: --config={path}:VARIANT'
      if variant is None
      else f'sweep of {path} must take (add) or (add, variant)'
    )
  _call(path, 'sweep', function, arguments)
  report = scope.get('REPORT', {})
  if not isinstance(report, Mapping):
    raise schema.UserError(
      f'REPORT of {path} must be a dict, not a {type(report).__name__}'
    )
  return dict(report)


def override(config: config_dict.ConfigDict, name: str, text: str) -> None:
  """Calls `set_value` with a value typed on the command line."""
  hint = _hint(config, name)
  set_value(config, name, read_text(text, hint))


def set_value(config: config_dict.ConfigDict, name: str, value: Any) -> None:
  """Sets one key of a config, in place.

  References to the key (`get_ref`) follow. Keys and sections that the config
  file leaves at their defaults can be set too. Another method starts from its
  own defaults, as one method's rates mean nothing to another.

  Args:
    config: The config file's config.
    name: The key in full, 'config.method.t'.
    value: Its new value.

  Raises:
    UserError: For an unknown key or a value of the wrong type.
  """
  value = schema.coerce(value, _hint(config, name), name)
  path = name.split('.')[1:]
  with config.unlocked(), config.ignore_type():
    method = config.get('method') or {}
    if name == METHOD_NAME and value != method.get('name', 'sparse_memory'):
      config.method = config_dict.ConfigDict()
    section = config
    for key in path[:-1]:
      if section.get(key) is None:
        section[key] = config_dict.ConfigDict()
      section = section[key]
    section[path[-1]] = value


def read_text(text: str, hint: Any) -> Any:
  """Reads a value typed on a command line; strings need no quotes.

  Example:
    >>> read_text('1e3', int), read_text('sgd', str), read_text('1,2', tuple)
    (1000.0, 'sgd', (1, 2))
  """
  if hint is str or hint is Any:
    return text
  words = {'true': True, 'false': False, 'none': None}
  if text.lower() in words:
    return words[text.lower()]
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def known_files(folder: pathlib.Path) -> str:
  """Lists the config files of a folder, for the end of an error line."""
  files = sorted(str(f) for f in folder.glob('*.py') if f.stem != '__init__')
  return f'; config files: {", ".join(files)}' if files else ''


def _read(config_file: str) -> tuple[pathlib.Path, str | None, dict[str, Any]]:
  """Runs a config file; returns its path, the variant and its globals."""
  name, colon, variant = config_file.partition('.py:')
  path = paths.expand(name + '.py' if colon else name)
  if not path.is_file():
    raise _missing(path)
  # Not imported, so that stale bytecode cannot replace an edited file.
  scope: dict[str, Any] = {'__name__': path.stem, '__file__': str(path)}
  try:
    exec(compile(path.read_bytes(), str(path), 'exec'), scope)
  except Exception as error:
    raise schema.UserError(
      f'config file {path} does not run: {type(error).__name__}:'
      f' {schema.one_line(error)}{_line_number(path, error)}'
    ) from error
  variants = scope.get('VARIANTS')
  if colon and variants is not None:
    schema.one_of(f'the variant of {path}', variant, variants)
  return path, variant if colon else None, scope


def _takes(function: Callable, arguments: Sequence) -> bool:
  """Whether a function can be called with these arguments."""
  try:
    inspect.signature(function).bind(*arguments)
  except TypeError:
    return False
  return True


def _call(
  path: pathlib.Path, name: str, function: Callable, arguments: Sequence
) -> Any:
  """Calls a config file's function; its errors become one line."""
  try:
    return function(*arguments)
  except schema.UserError:
    raise
  except Exception as error:
    raise schema.UserError(
      f'{name} of {path} failed: {type(error).__name__}:'
      f' {schema.one_line(error)}{_line_number(path, error)}'
    ) from error


def _hint(config: config_dict.ConfigDict, name: str) -> Any:
  """Returns the type of a key.

  Raises:
    UserError: If the key does not exist.
  """
  values = config_lib.to_plain(config)
  known = schema.keys(config_lib.Experiment, 'config', values)
  if name not in known:
    section = name.rpartition('.')[0]
    siblings = [
      key.rpartition('.')[2]
      for key in known
      if key.rpartition('.')[0] == section
    ]
    raise schema.unknown_key(name, siblings, known)
  return known[name]


def _missing(path: pathlib.Path) -> schema.UserError:
  """Returns the error for a missing config file, with the nearest one."""
  folder = path.parent
  if path.is_dir():
    return schema.UserError(f'{path} is a folder{known_files(path)}')
  if not folder.is_dir():
    parent = folder.parent if folder.parent.is_dir() else pathlib.Path()
    folders = [f.name for f in parent.iterdir() if f.is_dir()]
    close = schema.nearest(folder.name, folders)
    hint = f'; did you mean {parent / close}?' if close else ''
    return schema.UserError(f'config folder {folder} does not exist{hint}')
  close = schema.nearest(path.name, [f.name for f in folder.glob('*.py')])
  hint = f'; did you mean {folder / close}?' if close else known_files(folder)
  return schema.UserError(f'config file {path} does not exist{hint}')


def _line_number(path: pathlib.Path, error: Exception) -> str:
  """Returns the line of the config file in which an error arose."""
  if isinstance(error, SyntaxError):
    return ''  # its message names the line
  frames = traceback.extract_tb(error.__traceback__)
  lines = [f.lineno for f in frames if pathlib.Path(f.filename) == path]
  return f' (line {lines[-1]})' if lines else ''
