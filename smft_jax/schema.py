"""Checks nested settings against frozen dataclasses.

A dataclass is the only description of a section: names, types and defaults come
from its fields, meanings from the `Attributes:` of its docstring. A mistake is
one line that names the key in full and the closest valid name.

A field's metadata may hold `type`, the type that a config may give it, and
`choose_section`, which returns the field's dataclass from the values around it
and the field's name. `choose_by` then names the key that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import difflib
import functools
import math
import numbers
import sys
import types
import typing
from typing import Any, Literal


class UserError(ValueError):
  """A mistake in a config, flag or file, described in one line.

  Programs print the line and exit with code 2 (`runtime.program`).
  """


class _Required:
  def __repr__(self) -> str:
    return 'a value that must be given'


# A value that a config file leaves to the command line.
REQUIRED = _Required()


def one_line(error: BaseException) -> str:
  """Returns an error's message without line breaks, or its type if empty.

  A message beyond 1000 characters, which repeats what is in a file, loses its
  middle: what is wrong stands at its start, what would be right at its end.
  """
  line = ' '.join(str(error).split()) or type(error).__name__
  return line if len(line) <= 1000 else f'{line[:700]} ... {line[-295:]}'


def nearest(name: str, choices: Iterable[str]) -> str | None:
  """Returns the choice that was most likely meant, or None if none is close.

  Example:
    >>> nearest('tfidf', ['tf', 'tf_idf', 'kl'])
    'tf_idf'
  """
  folded = {choice.lower(): choice for choice in choices}
  close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
  return folded[close[0]] if close else None


def one_of(name: str, value: Any, choices: Iterable[str]) -> str:
  """Returns `value` if it is one of `choices`.

  Args:
    name: What the message calls the setting.
    value: The value to check.
    choices: The known values.

  Raises:
    UserError: If it is not; the line names the nearest choice, or all of them.

  Example:
    >>> try:
    ...   one_of('ranking', 'tfidf', ['tf', 'tf_idf', 'kl'])
    ... except UserError as error:
    ...   print(error)
    ranking = 'tfidf' is not known; did you mean 'tf_idf'?
  """
  choices = list(choices)
  if value in choices:
    return value
  close = nearest(value, choices) if isinstance(value, str) else None
  hint = (
    f'did you mean {close!r}?'
    if close
    else f'it can be {", ".join(map(repr, choices))}'
  )
  raise UserError(f'{name} = {brief(value)} is not known; {hint}')


def coerce(value: Any, hint: Any, name: str) -> Any:
  """Converts a value to the type `hint`.

  Args:
    value: A value from a config or the command line.
    hint: int, float, bool, str, a Literal, a tuple[x, ...], or one of these
      or None.
    name: The key in full, for the message.

  Raises:
    UserError: If the value has another type.

  Example:
    >>> coerce(1e3, int, 'config.base.steps')
    1000
  """
  if hint is Any:
    return value
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in arguments:
      return None
    hint = next(a for a in arguments if a is not type(None))
    return coerce(value, hint, name)
  if origin is Literal:
    return one_of(name, value, arguments)
  if origin is tuple:
    if isinstance(value, (str, Mapping)):
      wanted = f', such as ({value!r},)' if isinstance(value, str) else ''
      raise _wrong_type(name, value, f'a list{wanted}')
    items = list(value) if isinstance(value, Sequence) else [value]
    return tuple(coerce(item, arguments[0], name) for item in items)
  # bool is a subclass of int, but True is not a count.
  is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  if isinstance(value, int) and abs(value) > sys.float_info.max:
    raise _wrong_type(name, value, 'a number that a float can hold')
  if hint is int:
    if not is_number or not math.isfinite(value) or value != int(value):
      raise _wrong_type(name, value, 'a whole number')
    return int(value)
  if hint is float:
    if not is_number or math.isnan(value):
      raise _wrong_type(name, value, 'a number')
    return float(value)
  if dataclasses.is_dataclass(hint):
    raise _not_a_section(name, hint)
  if not isinstance(value, hint):
    wanted = {bool: 'True or False', str: 'text'}.get(hint, hint.__name__)
    raise _wrong_type(name, value, wanted)
  return value


def build(
  values: Any,
  section: type,
  path: str,
  known: Iterable[str] = (),
) -> Any:
  """Builds the dataclass `section` from nested mappings.

  Args:
    values: A mapping; its sections are mappings themselves.
    section: A dataclass; fields that are dataclasses are its sections.
    path: The section's name in messages.
    known: All keys in full, for "did you mean"; found if empty.

  Raises:
    UserError: For a key that is unknown, missing, of the wrong type or has an
      impossible value. A ValueError of the dataclass itself gets the path in
      front of its message.
  """
  if not isinstance(values, Mapping):
    raise _not_a_section(path, section)
  known = known or keys(section, path, values)
  fields = {field.name: field for field in dataclasses.fields(section)}
  hints = _types(section)
  given = {}
  for key, value in values.items():
    name = f'{path}.{key}'
    if key not in fields:
      raise unknown_key(name, fields, known)
    if value is REQUIRED:
      raise UserError(f'{name} must be given: --{name}=...')
    inner = None
    if value is not None or type(None) not in typing.get_args(hints[key]):
      inner = _chosen(fields[key], values, name)
      inner = inner or next(iter(_sections(hints[key])), None)
    if inner is None:
      given[key] = coerce(value, hints[key], name)
    else:
      given[key] = build(value, inner, name, known)
  for key, field in fields.items():
    missing = default_of(field) is dataclasses.MISSING
    if missing and key not in given:
      raise UserError(f'{path}.{key} is missing')
  try:
    return section(**given)
  except ValueError as error:
    message = str(error)
    if not message.startswith(f'{path.split(".")[0]}.'):
      is_field = message.split(' ', 1)[0] in fields
      message = f'{path}{"." if is_field else ": "}{message}'
    raise UserError(message) from None


def keys(section: type, path: str, values: Any = None) -> dict[str, Any]:
  """Returns the type of every key that a config may hold, by its full name.

  Args:
    section: The dataclass of the whole config.
    path: Its name, 'config'.
    values: The config so far; it decides which sections there are.
  """
  found = {}
  values = values if isinstance(values, Mapping) else {}
  hints = _types(section)
  for field in dataclasses.fields(section):
    name, hint = f'{path}.{field.name}', hints[field.name]
    found[name] = hint
    value = values.get(field.name)
    if field.metadata.get('choose_by') == 'kind' and value is None:
      continue  # no kind is the default
    chosen = _chosen(field, values, name)
    for inner in (*_sections(hint), *([chosen] if chosen else [])):
      found |= keys(inner, name, value)
    if 'choose_by' in field.metadata:
      # The chosen section's own type allows only the choice made.
      found[f'{name}.{field.metadata["choose_by"]}'] = str
  return found


def default_of(field: dataclasses.Field) -> Any:
  """Returns a field's default, or dataclasses.MISSING."""
  if field.default_factory is not dataclasses.MISSING:
    return field.default_factory()
  return field.default


def unknown_key(
  name: str, siblings: Iterable[str], known: Iterable[str]
) -> UserError:
  """Returns the error for an unknown key, with the key that was meant.

  Args:
    name: The unknown key in full.
    siblings: The keys of its section.
    known: All keys in full.
  """
  section, _, key = name.rpartition('.')
  # The right key in the wrong section is likelier than a bad typo.
  for other in known:
    if other.rpartition('.')[2] == key:
      return UserError(f'unknown key {name}; did you mean {other}?')
  siblings = list(siblings)
  close = nearest(key, siblings)
  if close:
    return UserError(f'unknown key {name}; did you mean {section}.{close}?')
  return UserError(f'unknown key {name}; {section} has {", ".join(siblings)}')


def differences(
  theirs: Mapping[str, Any], ours: Mapping[str, Any], path: str = 'config'
) -> list[str]:
  """Names the settings in which two resolved configs differ.

  Example:
    >>> differences({'seed': 0, 'method': {'t': 7}}, {'method': {'t': 9}})
    ['config.method.t = 7, not 9', 'config.seed = 0, not None']
  """
  found = []
  for key in sorted(theirs.keys() | ours.keys()):
    name = f'{path}.{key}'
    a, b = theirs.get(key), ours.get(key)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
      found += differences(a, b, name)
    elif a != b:
      found.append(f'{name} = {brief(a)}, not {brief(b)}')
  return found


def at_least(lowest: int, section: Any, *names: str) -> None:
  """Raises a UserError unless these fields are `lowest` or more, or None."""
  for name in names:
    value = getattr(section, name)
    if value is not None and not lowest <= value < math.inf:
      raise UserError(f'{name} must be at least {lowest}, not {value}')


def positive(section: Any, *names: str) -> None:
  """Raises a UserError unless these fields are above 0 and finite."""
  for name in names:
    value = getattr(section, name)
    if not 0 < value < math.inf:
      raise UserError(f'{name} must be above 0 and finite, not {value}')


def brief(value: Any) -> str:
  """Returns a value's repr on one line, cut at 60 characters."""
  text = ' '.join(repr(value).split())
  return text if len(text) <= 60 else f'{text[:57]}...'


@functools.cache
def _types(section: type) -> dict[str, Any]:
  """Returns the type that a config may give each field."""
  hints = typing.get_type_hints(section)
  return {
    field.name: field.metadata.get('type', hints[field.name])
    for field in dataclasses.fields(section)
  }


def _sections(hint: Any) -> list[type]:
  """Returns the dataclasses among a type and the members of a union."""
  return [
    candidate
    for candidate in (hint, *typing.get_args(hint))
    if isinstance(candidate, type) and dataclasses.is_dataclass(candidate)
  ]


def _chosen(
  field: dataclasses.Field, values: Mapping[str, Any], name: str
) -> type | None:
  """Returns the dataclass that the values around a field choose, if any."""
  choose = field.metadata.get('choose_section')
  return choose(values, name) if choose else None


def _wrong_type(name: str, value: Any, wanted: str) -> UserError:
  return UserError(f'{name} must be {wanted}, not {brief(value)}')


def _not_a_section(name: str, section: Any) -> UserError:
  example = dataclasses.fields(section)[0].name
  return UserError(
    f'{name} is a section: set the keys in it, such as {name}.{example}'
  )
