"""Words and numbers of a comparison, as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LABELS = {
  'sparse_memory': 'sparse memory',
  'full': 'full finetuning',
  'lora': 'LoRA',
  'lora_attention': 'LoRA, attention only',
  'adapter': 'adapters',
  'ewc': 'elastic weight consolidation',
  'values_only': 'values only',
  'experts': 'new experts',
  'in_context': 'in-context reading',
  'tf_idf': 'TF-IDF',
  'tf': 'TF only',
  'tf_idf_cubed': 'TF-IDF cubed',
  'all_accessed': 'all accessed',
  'kl': 'KL to background',
  'None': 'default',
}


def label(method: str, report: Mapping[str, Any]) -> str:
  """What a person calls a method: REPORT's word, a known one, or the key's.

  Example:
    >>> label('lora', {}), label('lora', {'labels': {'lora': 'LoRA, rank 8'}})
    ('LoRA', 'LoRA, rank 8')
    >>> label('sparse_memory_tf', {})
    'sparse memory, TF only'
  """
  given = (report.get('labels') or {}).get(method)
  if given or method in _LABELS:
    return given or _LABELS[method]
  head, rest = 'sparse_memory', method.removeprefix('sparse_memory_')
  if rest != method:
    return f'{label(head, report)}, {label(rest, {})}'
  return method.replace('_', ' ')


def capital(text: str) -> str:
  """The text with its first letter large, the others as they are."""
  return text[:1].upper() + text[1:]


def share(value: float | None, sign: str = '') -> str:
  """A share in percent: one digit after the point, two below 1%.

  Example:
    >>> share(0.0187), share(0.4123), share(0.0034), share(None), share(-1e-9)
    ('1.9%', '41.2%', '0.34%', 'unknown', '0.00%')
  """
  if value is None:
    return 'unknown'
  digits = 2 if abs(value) < 0.00995 else 1
  text = f'{100 * value:{sign}.{digits}f}%'
  return text.lstrip('-') if float(text[:-1]) == 0 else text


def times(ratio: float) -> str:
  """How many times as much; a digit after the point only where it says much.

  Example:
    >>> times(5.24), times(329.9)
    ('5.2', '330')
  """
  return f'{ratio:.{1 if ratio < 20 else 0}f}'


def spread(mean: float | None, std: float | None) -> str:
  """A mean share with its standard deviation, where there is one.

  Example:
    >>> spread(0.019, 0.004), spread(0.5, None)
    ('1.9% ± 0.4', '50.0%')
  """
  if mean is None or std is None:
    return share(mean)
  digits = 2 if abs(mean) < 0.00995 else 1
  return f'{share(mean)} ± {100 * std:.{digits}f}'
