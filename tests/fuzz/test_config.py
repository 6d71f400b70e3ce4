"""Settings of any value: taken, or refused in one line."""

from hypothesis import given
from hypothesis import strategies as st
from ml_collections import config_dict
import pytest

from smft_jax.config import command_line
from smft_jax.config import experiment as config_lib
from smft_jax.config import file as config_file
from tests.fuzz import damage

CONFIGS = ('docqa.py', 'docqa.py:jsonl,hf', 'pretrain.py', 'paper_1b.py')


def keys_of(config, prefix='config'):
  for key, value in config.items(preserve_field_references=True):
    if isinstance(value, config_dict.ConfigDict):
      yield from keys_of(value, f'{prefix}.{key}')
    else:
      yield f'{prefix}.{key}'


KEYS = {
  name: sorted(keys_of(config_file.load(f'configs/{name}'))) for name in CONFIGS
}


@pytest.mark.parametrize('name', CONFIGS)
@damage.fuzz
@given(st.data())
def test_values(name, data):
  texts = st.text(max_size=30) | damage.VALUES.map(str)
  words = [f'--config=configs/{name}', '--config.data.data_dir=DIR']
  for _ in range(data.draw(st.integers(1, 3))):
    key = data.draw(st.sampled_from(KEYS[name]))
    words.append(f'--{key}={data.draw(texts)}')
  if data.draw(st.booleans()):
    words.append(data.draw(st.text(max_size=20)))

  def read():
    invocation = command_line.parse(words, {}, '')
    return config_lib.from_config_dict(invocation.config)

  damage.is_read_or_refused(read, 2**20)
