"""Finds the special tokens of a tokenizer in the files of its folder.

What the files say is taken as `transformers` takes it: a name goes before an
id, and tokenizer_config.json before the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import itertools
import json
import pathlib
from typing import Any

import tokenizers

from smft_jax import schema


class Fault(schema.UserError):
  """The files of a folder name its special tokens wrongly."""


_KINDS = ('pad', 'bos', 'eos')
_CONFIGS = (
  'tokenizer_config.json',
  'special_tokens_map.json',
  'generation_config.json',
  'config.json',
)
# Goes before the template of tokenizer_config.json.
_TEMPLATE = 'chat_template.jinja'


def read_configs(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the files of a folder that name special tokens, for `find`.

  Raises:
    UserError: One holds something else.
    OSError: One cannot be read.
  """
  configs = []
  for path in map(folder.joinpath, _CONFIGS):
    try:
      found = json.loads(path.read_text('utf-8')) if path.exists() else {}
    except ValueError as error:
      raise schema.UserError(f'{path}: {schema.one_line(error)}') from None
    if not isinstance(found, dict):
      raise schema.UserError(f'{path} holds no object')
    configs.append(found)
  template = folder / _TEMPLATE
  if template.exists():
    configs.insert(0, {'chat_template': template.read_text('utf-8')})
  return configs


def find(
  inner: tokenizers.Tokenizer,
  post_processor: Mapping[str, Any] | None,
  configs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Returns the fields of a `tokenizers.Tokenizer`, but for `inner`.

  Without any name in the configs nothing is found: the defaults are right for
  our own tokenizers. A text begins with a token if `add_bos_token` says so.
  Where no config has that key, the post-processor decides.

  Args:
    inner: The tokenizer.
    post_processor: Its part of tokenizer.json.
    configs: The contents of tokenizer_config.json and of other files with
      special tokens. The first to name one decides, but every `eos_token_id`
      ends an answer.

  Raises:
    Fault: The configs contradict each other.
    UserError: The post-processor is not supported.
  """
  added = inner.get_added_tokens_decoder()
  names = {kind: _name(kind, configs, added) for kind in _KINDS}
  if not any(names.values()):
    return {}
  adds = _first(configs, 'add_bos_token')
  if adds is None:
    front = list(_front(post_processor or {}))
    if len(front) > 1:
      raise schema.UserError(
        f'texts begin with several special tokens: {front}'
      )
    adds = bool(front)
    names['bos'] = front[0] if front else names['bos']
  if names['eos'] is None:
    raise Fault('eos_token is missing')
  if adds and names['bos'] is None:
    raise Fault('add_bos_token is true, but bos_token is missing')
  eos_id = inner.token_to_id(names['eos'])
  ends = dict.fromkeys(_ids('eos', configs, added))
  return {
    'pad': names['pad'] or names['eos'],
    'bos': names['bos'],
    'eos': names['eos'],
    'adds_bos': bool(adds),
    'more_ends': tuple(i for i in ends if i != eos_id),
    'chat_template': _template(configs),
  }


def _name(kind: str, configs, added) -> str | None:
  """Returns the name of a special token: a string or an object's content."""
  name = _first(configs, f'{kind}_token')
  name = name.get('content') if isinstance(name, Mapping) else name
  if name is not None:
    return str(name)
  ids = [i for i in _ids(kind, configs, added) if i in added]
  return added[ids[0]].content if ids else None


def _ids(kind: str, configs, added) -> Iterator[int]:
  """Yields the ids of a kind, which may be lists.

  Models made by `transformers` without a tokenizer have ids of any token, which
  an ordinary word may have.
  """
  for config in configs:
    ids = config.get(f'{kind}_token_id')
    for i in ids if isinstance(ids, list) else [ids]:
      if isinstance(i, int) and i in added and added[i].special:
        yield i


def _front(processor: Mapping[str, Any]) -> Iterator[str]:
  """Yields the special tokens that a post-processor puts before a text."""
  for part in processor.get('processors', ()):
    yield from _front(part)
  pieces = processor.get('single', ())
  for piece in itertools.takewhile(lambda p: 'SpecialToken' in p, pieces):
    yield from processor['special_tokens'][piece['SpecialToken']['id']][
      'tokens'
    ]
  if 'cls' in processor:
    yield processor['cls'][0]


def _template(configs) -> str | None:
  """Returns the chat template; of several with names, the default one."""
  found = _first(configs, 'chat_template')
  if isinstance(found, list):
    named = [one for one in found if isinstance(one, Mapping)]
    found = {one.get('name'): one.get('template') for one in named}
  if isinstance(found, Mapping):
    found = found.get('default')
  return found if isinstance(found, str) else None


def _first(configs: Sequence[Mapping[str, Any]], key: str) -> Any:
  return next((c[key] for c in configs if c.get(key) is not None), None)
