"""Lines of JSON: what is read, and what is refused."""

import io
import json

import pytest

from smft_jax import schema
from smft_jax.data.sources import json_lines
from smft_jax.data.sources import problems as problems_lib

_GOOD = b'{"text": "a"}\n'
_LIMIT = 31  # what stands for MAX_LINE_BYTES here


def _lines(file, policy='refuse'):
  problems = problems_lib.Problems(policy)
  return list(
    json_lines.read_lines(str(file), problems, file.stem)
  ), problems.counts


def test_rows_are_called_by_their_line(tmp_path):
  file = tmp_path / 'facts.jsonl'
  file.write_bytes(
    b'\xef\xbb\xbf' + _GOOD + b'\n \r\n{"text": "b\xe2\x80\xa8c", "id": 7}'
  )
  rows, counts = _lines(file)
  assert [row.id() for row in rows] == ['facts:1', '7']
  assert [row.place for row in rows] == [f'{file}:1', f'{file}:4']
  assert rows[1].fields['text'] == 'b\u2028c'
  assert counts == {}


@pytest.mark.parametrize(
  ('line', 'kind', 'said'),
  [
    (b'{"text": "b"', 'not_json', 'not JSON'),
    (b'[' * 100_000, 'not_json', 'not JSON'),
    (b'{"n": ' + b'9' * 5000 + b'}', 'not_json', 'not JSON'),
    (b'["b"]', 'wrong_form', 'a line is one JSON object, {"text": ...}, not'),
    (b'null', 'wrong_form', 'a line is one JSON object'),
    (b'{"text": "caf\xe9"}', 'bad_utf8', 'not UTF-8 at byte'),
    (b'{"text": "\\ud800"}', 'bad_utf8', 'a text has half a character'),
  ],
)
def test_bad_lines(tmp_path, line, kind, said):
  file = tmp_path / 'mine.jsonl'
  file.write_bytes(_GOOD + line + b'\n' + _GOOD)
  with pytest.raises(schema.UserError) as raised:
    _lines(file)
  message = str(raised.value)
  assert message.startswith(f'{file}:2: {said}')
  assert '\n' not in message
  assert len(message) < 400 + len(str(file))
  rows, counts = _lines(file, 'skip')
  assert [row.place for row in rows] == [f'{file}:1', f'{file}:3']
  assert counts == {kind: 1}


def test_half_of_a_pair_is_no_text_and_a_whole_one_is(tmp_path):
  file = tmp_path / 'mine.jsonl'
  file.write_text(json.dumps({'text': '😀é'}))
  assert '\\ud83d' in file.read_text()
  rows, _ = _lines(file)
  assert rows[0].fields == {'text': '😀é'}


@pytest.mark.parametrize('end', [b'', b'\n'])
@pytest.mark.parametrize('over', [0, 1, _LIMIT, 3 * _LIMIT + 2])
def test_a_long_line_is_cut_off_and_reported(tmp_path, monkeypatch, over, end):
  monkeypatch.setattr(json_lines, 'MAX_LINE_BYTES', _LIMIT)
  line = b'{"text": "' + b'b' * (_LIMIT - 12 + over) + b'"}'
  assert len(line) == _LIMIT + over
  file = tmp_path / 'mine.jsonl'
  file.write_bytes(_GOOD + line + end + (_GOOD if end else b''))
  rows, counts = _lines(file, 'skip')
  places = [row.place.rpartition(':')[2] for row in rows]
  assert places == [
    n for n in '123' if (n != '2' or not over) and (n != '3' or end)
  ]
  assert counts == ({'too_long': 1} if over else {})
  if over:
    with pytest.raises(schema.UserError, match=r':2: the line is longer than'):
      _lines(file)


def test_no_read_takes_more_than_the_limit(monkeypatch):
  monkeypatch.setattr(json_lines, 'MAX_LINE_BYTES', _LIMIT)
  sizes = []

  class Stream(io.BytesIO):
    def readline(self, size):
      sizes.append(size)
      return super().readline(size)

  lines = list(json_lines._lines(Stream(b'a' * 1000 + b'\nb')))
  assert lines == [b'a' * (_LIMIT + 1), b'b']
  assert max(sizes) <= _LIMIT + 1
