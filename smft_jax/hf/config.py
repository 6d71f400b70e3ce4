"""Converts a Hugging Face checkpoint's config.json to a decoder's sizes.

Supports Llama 2 and 3.x (and models of that layout, such as SmolLM2), Qwen2,
Qwen2.5 and Qwen3. A setting that the decoder cannot compute is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from smft_jax import schema
from smft_jax.hf import gguf as hf_gguf
from smft_jax.models import layers
from smft_jax.models import rotary


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Family:
  """What a `model_type` implies.

  Attributes:
    architecture: Its class in `transformers`.
    qkv_bias: As in `DecoderSizes`.
    qk_norm: As in `DecoderSizes`.
    head_dim: Default of config.json; None divides the model dim by heads.
    kv_heads: Default of config.json; None takes the number of query heads.
  """

  architecture: str
  qkv_bias: bool = False
  qk_norm: bool = False
  head_dim: int | None = None
  kv_heads: int | None = None


_FAMILIES = {
  'llama': _Family(architecture='LlamaForCausalLM'),
  'qwen2': _Family(architecture='Qwen2ForCausalLM', qkv_bias=True, kv_heads=32),
  'qwen3': _Family(
    architecture='Qwen3ForCausalLM', qk_norm=True, head_dim=128, kv_heads=32
  ),
}

# Names in config.json of the sizes of a `TransformerConfig`.
_SIZES = {
  'vocab_size': 'vocab_size',
  'num_layers': 'num_hidden_layers',
  'model_dim': 'hidden_size',
  'num_heads': 'num_attention_heads',
  'num_kv_heads': 'num_key_value_heads',
  'head_dim': 'head_dim',
  'ffn_dim': 'intermediate_size',
}
# Settings that must have this value, or be absent.
_ONLY = {
  'hidden_act': 'silu',
  'mlp_bias': False,
  'partial_rotary_factor': 1.0,
  'quantization_config': None,
  'rope_interleaved': False,
}
_ROPE_TYPES = ('default', 'llama3')
_SCALING = tuple(f.name for f in dataclasses.fields(rotary.RopeScaling))
_ROPE_KEYS = ('rope_type', 'type', 'rope_theta', 'partial_rotary_factor')


def read(
  folder: pathlib.Path, dtype: jax.typing.DTypeLike = jnp.float32
) -> layers.TransformerConfig:
  """Reads the decoder's sizes from a checkpoint's settings; see `parse`."""
  return parse(read_settings(folder), dtype, str(settings_file(folder)))


def settings_file(path: pathlib.Path) -> pathlib.Path:
  """Returns the file of a checkpoint, a folder or a GGUF, with its settings."""
  return path if hf_gguf.is_gguf(path) else path / 'config.json'


def read_settings(folder: pathlib.Path) -> dict[str, Any]:
  """Reads a checkpoint's config.json, or what a GGUF has in its place.

  Raises:
    UserError: If it is missing or damaged.
  """
  if hf_gguf.is_gguf(folder):
    return hf_gguf.read_settings(folder)
  file = settings_file(folder)
  if not folder.is_dir():
    parent = folder.parent
    names = [f.name for f in parent.iterdir()] if parent.is_dir() else []
    close = schema.nearest(folder.name, names)
    hint = f'; did you mean {parent / close}?' if close else ''
    raise schema.UserError(f'checkpoint folder {folder} does not exist{hint}')
  try:
    settings = json.loads(file.read_text(encoding='utf-8'))
  except FileNotFoundError:
    hint = ''.join(f'; did you mean {f}?' for f in [*folder.glob('*.gguf')][:1])
    if (folder / 'adapter_config.json').exists():
      hint = ', but an adapter of PEFT: merge it into its model and save that'
    raise schema.UserError(
      f'{file} is missing, so {folder} is no Hugging Face checkpoint{hint}'
    ) from None
  except ValueError as error:
    raise schema.UserError(
      f'{file} is no JSON: {schema.one_line(error)}'
    ) from None
  if not isinstance(settings, dict):
    raise schema.UserError(f'{file} must hold an object of settings')
  return settings


def parse(
  settings: Mapping[str, Any], dtype: jax.typing.DTypeLike, file: str
) -> layers.TransformerConfig:
  """Converts the settings of config.json to a decoder's sizes.

  Args:
    settings: The settings, of any version of `transformers`.
    dtype: Dtype of computation and parameters, whatever the settings say.
    file: Name of the file in messages.

  Returns:
    Sizes and options, without memory.

  Raises:
    UserError: If something is missing or not supported.

  Example:
    >>> settings = dict(model_type='llama', vocab_size=61, hidden_size=8,
    ...                 num_hidden_layers=2, num_attention_heads=2,
    ...                 intermediate_size=16, rope_theta=500.0)
    >>> config = parse(settings, jnp.float32, 'config.json')
    >>> config.head_dim, config.rope_theta, config.tie_embeddings
    (4, 500.0, False)
    >>> try:
    ...   parse(settings | {'hidden_act': 'gelu'}, jnp.float32, 'config.json')
    ... except schema.UserError as error:
    ...   print(error)
    config.json: hidden_act = 'gelu' is not supported; expected 'silu'
  """
  family = _check_supported(settings, file)

  def get(name, hint=int, default=None):
    value = settings.get(name)
    value = default if value is None else value
    if value is None:
      raise schema.UserError(f'{file}: {name} is missing')
    return schema.coerce(value, hint, f'{file}: {name}')

  heads = get('num_attention_heads')
  defaults = {
    'num_kv_heads': family.kv_heads or heads,
    'head_dim': family.head_dim or get('hidden_size') // max(heads, 1),
  }
  theta, scaling = _rope(settings, file)
  sizes = {
    ours: get(theirs, int, defaults.get(ours))
    for ours, theirs in _SIZES.items()
  }
  norm_eps = get('rms_norm_eps', float, 1e-6)
  tie_embeddings = get('tie_word_embeddings', bool, False)
  try:
    return layers.TransformerConfig(
      **sizes,
      rope_theta=theta,
      rope_scaling=scaling,
      norm_eps=norm_eps,
      qkv_bias=family.qkv_bias,
      qk_norm=family.qk_norm,
      tie_embeddings=tie_embeddings,
      dtype=dtype,
      param_dtype=dtype,
    )
  except ValueError as error:
    raise schema.UserError(f'{file}: {error}') from None


def to_settings(config: layers.TransformerConfig) -> dict[str, Any]:
  """Inverts `parse`, in names that `transformers` 4 and 5 understand.

  Raises:
    UserError: If no family has these options.
  """
  options = config.qkv_bias, config.qk_norm
  families = {(f.qkv_bias, f.qk_norm): m for m, f in _FAMILIES.items()}
  if options not in families:
    raise schema.UserError(
      'qkv_bias and qk_norm are both on, which no supported Hugging Face model'
      ' has; qwen2 has the first, qwen3 the second'
    )
  model_type, scaling = families[options], None
  if config.rope_scaling is not None:
    values = dataclasses.asdict(config.rope_scaling)
    scaling = {'rope_type': 'llama3', **values}
  return {
    'architectures': [_FAMILIES[model_type].architecture],
    'model_type': model_type,
    **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
    'hidden_act': _ONLY['hidden_act'],
    'rope_theta': config.rope_theta,
    'rope_scaling': scaling,
    'rms_norm_eps': config.norm_eps,
    'tie_word_embeddings': config.tie_embeddings,
    'torch_dtype': config.param_dtype,
  }


def _check_supported(settings: Mapping[str, Any], file: str) -> _Family:
  """Returns the family, if the decoder can compute all that is set."""
  for name, value in settings.items():
    if 'expert' in name and value:
      raise _unsupported(file, name, value, 'no experts')
  model_type = settings.get('model_type')
  if not isinstance(model_type, str) or model_type not in _FAMILIES:
    raise _unsupported(
      file, 'model_type', model_type, ' or '.join(map(repr, _FAMILIES))
    )
  family = _FAMILIES[model_type]
  only = _ONLY if family.qkv_bias else _ONLY | {'attention_bias': False}
  for name, wanted in only.items():
    value = settings.get(name)
    if value is not None and value != wanted:
      raise _unsupported(file, name, value, repr(wanted))
  kinds = settings.get('layer_types') or ()
  kinds = schema.coerce(kinds, tuple[Any, ...], f'{file}: layer_types')
  for kind in kinds:
    if kind != 'full_attention':
      raise _unsupported(file, 'layer_types', kind, "'full_attention'")
  if not kinds and _has_window(settings, model_type, file):
    window = settings.get('sliding_window')
    raise _unsupported(file, 'sliding_window', window, 'none in use')
  return family


def _has_window(
  settings: Mapping[str, Any], model_type: str, file: str
) -> bool:
  """Whether any layer attends to the last tokens only."""

  def number(name: str, default: int) -> int:
    value = settings.get(name)
    value = default if value is None else value
    return schema.coerce(value, int, f'{file}: {name}')

  if model_type == 'llama':
    return bool(settings.get('sliding_window'))
  # Qwen's files give a window even if no layer uses it.
  return (
    bool(settings.get('use_sliding_window', False))
    and settings.get('sliding_window', True) is not None
    and number('max_window_layers', 28) < number('num_hidden_layers', 0)
  )


def _rope(
  settings: Mapping[str, Any], file: str
) -> tuple[float, rotary.RopeScaling | None]:
  """Returns base and scaling of the rotary frequencies, by old or new names."""
  section = (
    'rope_scaling' if settings.get('rope_scaling') else 'rope_parameters'
  )
  rope = settings.get(section) or {}
  path = f'{file}: {section}'
  if not isinstance(rope, Mapping):
    raise schema.UserError(f'{path} must be a section, not {rope!r}')
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind not in _ROPE_TYPES:
    raise _unsupported(
      file, f'{section}.rope_type', kind, ' or '.join(map(repr, _ROPE_TYPES))
    )
  scaled = kind == 'llama3'
  for name, value in rope.items():
    if not scaled and name == 'factor' and value == 1.0:
      continue  # of frequencies, which it leaves as they are
    if name not in (*_ROPE_KEYS, *(_SCALING if scaled else ())):
      raise schema.UserError(
        f'{path}.{name} is not supported with rope_type = {kind!r}'
      )
    if name in _ONLY and value != _ONLY[name]:
      raise _unsupported(file, f'{section}.{name}', value, repr(_ONLY[name]))
  theta = rope.get('rope_theta', settings.get('rope_theta', 10_000.0))
  theta = schema.coerce(theta, float, f'{file}: rope_theta')
  if not scaled:
    return theta, None
  given = {name: rope[name] for name in rope if name in _SCALING}
  return theta, schema.build(given, rotary.RopeScaling, path)


def _unsupported(
  file: str, name: str, value: Any, wanted: str
) -> schema.UserError:
  return schema.UserError(
    f'{file}: {name} = {schema.brief(value)} is not supported; expected'
    f' {wanted}'
  )
