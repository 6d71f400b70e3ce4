"""Describes a config: every setting with its value and its meaning."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from smft_jax import schema


def describe(section: Any, path: str = 'config') -> str:
  """Returns a line `path.key = value  # meaning` for every setting.

  Values are Python, so that lines can be pasted into a config file or, with two
  dashes in front, a command line. Sections follow the plain settings.

  Args:
    section: A frozen dataclass, such as an `Experiment`.
    path: Its name.
  """
  comments = meanings(type(section))
  lines, sections = [], []
  for field in dataclasses.fields(section):
    name, value = f'{path}.{field.name}', getattr(section, field.name)
    # The first sentence says what a setting is; the rest is for the docs.
    comment = re.split(r'(?<=\.) (?=[A-Z])', comments.get(field.name, ''))[0]
    if dataclasses.is_dataclass(value):
      sections.append(f'# {name}: {comment}\n{describe(value, name)}')
      continue
    default = schema.default_of(field)
    if default is not dataclasses.MISSING and default != value:
      comment += f' Default: {schema.brief(default)}.'
    lines.append(f'{name} = {value!r}  # {comment}')
  return '\n\n'.join(['\n'.join(lines), *sections])


def meanings(section: type) -> dict[str, str]:
  """Returns what each field means: the `Attributes:` of its dataclass.

  Args:
    section: A dataclass; those that it inherits from count too.
  """
  found: dict[str, str] = {}
  for cls in reversed(section.__mro__):
    doc = inspect.cleandoc(cls.__dict__.get('__doc__') or '')
    attributes = doc.partition('\nAttributes:\n')[2]
    attributes = re.split(r'\n(?=\S)', attributes)[0]
    for entry in re.split(r'^  (?=\w)', attributes, flags=re.M)[1:]:
      name, _, meaning = entry.partition(': ')
      found[name] = ' '.join(meaning.split())
  return found
