"""Damaged inputs, and what is expected of whoever reads them."""

import json
import os
import time
import tracemalloc

from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st

from smft_jax import schema
from smft_jax.runtime import program

EXAMPLES = int(os.environ.get('SMFT_FUZZ_EXAMPLES', '10'))
"""Inputs tried by each test; the same ones every time unless more are asked."""

# What reading may take: seconds, and bytes of memory beyond ten files.
_SECONDS, _BYTES = 10.0, 64 * 2**20

fuzz = settings(
  max_examples=EXAMPLES,
  derandomize='SMFT_FUZZ_EXAMPLES' not in os.environ,
  deadline=None,
  database=None,
  suppress_health_check=list(HealthCheck),
)


def is_read_or_refused(read, size):
  """Calls a reader, which may refuse its input in one line, and no more.

  Args:
    read: Reads the input.
    size: Bytes of the input.

  Returns:
    What it read, or None if it refused.
  """
  tracemalloc.start()
  began = time.monotonic()
  found, said = None, ''
  try:
    found = read()
  except (ValueError, OSError) as error:
    # What a program prints as one line; anything else is a traceback.
    if not program._is_mistake(error):
      raise
    said = schema.one_line(error)
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
  assert len(said) < 2000
  assert time.monotonic() - began < _SECONDS
  assert peak < 10 * size + _BYTES
  return found


_EDITS = st.lists(
  st.tuples(
    st.sampled_from(['flip', 'set', 'cut', 'drop', 'insert', 'repeat']),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=8),
  ),
  max_size=4,
)


def damaged(data, first=None):
  """Bytes with some changed, left out or put in.

  Args:
    data: The bytes.
    first: How many of them to change at most; None changes all.
  """
  return _EDITS.map(lambda edits: _edited(data, edits, first or len(data)))


def _edited(data, edits, first):
  for what, where, given in edits:
    place = int(where * min(first, len(data)))
    old = data[place : place + len(given)]
    new = {
      'flip': bytes(a ^ b for a, b in zip(old, given, strict=False)),
      'set': given[: len(old)],
      'drop': b'',
      'insert': given + old,
      'repeat': old + old,
      'cut': b'',
    }[what]
    rest = b'' if what == 'cut' else data[place + len(given) :]
    data = data[:place] + new + rest
  return data


VALUES = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(2**70), 2**70)
  | st.sampled_from([0, -1, 1, 2**31, 2**40, 1e308, -0.0, 10**400])
  | st.floats()
  | st.text(max_size=9)
  | st.sampled_from(['', '\x00', '../x', '\u2028', '1', 'nan', 'a' * 3000]),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
  ),
  max_leaves=5,
)


@st.composite
def changed(draw, value, most=3):
  """JSON with some of its parts replaced, left out or put in."""
  value = json.loads(json.dumps(value))
  for _ in range(draw(st.integers(1, most))):
    holder, key = draw(st.sampled_from(list(_places(value)) or [(None, None)]))
    if holder is None:
      value = draw(VALUES)
    elif draw(st.integers(0, 3)) == 0:
      del holder[key]
    elif isinstance(holder, dict) and draw(st.integers(0, 3)) == 0:
      holder[draw(st.text(max_size=6))] = draw(VALUES)
    else:
      holder[key] = draw(VALUES)
  return value


def _places(value):
  """Yields each container within a value, with each of its keys."""
  items = ()
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, list):
    items = enumerate(value[:9])
  for key, inner in items:
    yield value, key
    yield from _places(inner)
