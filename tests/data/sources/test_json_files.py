"""Files of JSON arrays: nothing after the first one is passed over."""

import pytest

from smft_jax import schema
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources


def texts_of(path, policy='refuse'):
  found = sources.Reader(problems_lib.Problems(policy)).texts(str(path))
  return [text.text for text in found]


@pytest.mark.parametrize(
  'content',
  [
    '[{"text": "a"},\n {"text": "b"}]\n[{"text": "c"}]',
    '[{"text": "a"}]\n\n[]\n[{"text": "b"}, {"text": "c"}]\n',
    '[{"text": "a"}] {"text": "b"} [{"text": "c"},]',
    '{"data": [{"text": "a"}]}\n[{"text": "b"}, {"text": "c"}]',
  ],
)
@pytest.mark.parametrize('name', ['a.json', 'a.jsonl'])
def test_all_arrays_of_a_file_are_read(tmp_path, content, name):
  file = tmp_path / name
  file.write_text(content)
  assert texts_of(file) == ['a', 'b', 'c']


@pytest.mark.parametrize(
  ('content', 'line', 'what'),
  [
    ('[{"text": "a"},\n {"text": "b"},\n', 3, 'the file ends in an array'),
    ('[{"text": "a"},\n {"text": "b"}\n', 3, 'the file ends in an array'),
    ('[{"text": "a"},\n {"text": "b"}]\n]', 3, 'Expecting value'),
    ('[{"text": "a"},\n {"text": "b"}]\nend', 3, 'Expecting value'),
    ('[{"text": "a"},\n {"text": "b"}\n {"text": "c"}]', 2, 'Expecting , or ]'),
  ],
)
def test_an_array_that_is_cut_or_followed_by_something_else(
  tmp_path, content, line, what
):
  file = tmp_path / 'a.json'
  file.write_text(content)
  with pytest.raises(schema.UserError) as raised:
    texts_of(file)
  assert f'a.json:{line}: not JSON at character ' in str(raised.value)
  assert str(raised.value).endswith(what)
  assert texts_of(file, 'skip') == ['a', 'b']
