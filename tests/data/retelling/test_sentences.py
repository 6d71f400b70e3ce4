"""Sentences of a text, and the retellings made of them."""

import pytest

from smft_jax.data.retelling import sentences


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('One. Two! Three?', ['One.', 'Two!', 'Three?']),
    ('He met J. R. Smith in the U.S. Senate. Fine.', None),
    (
      'It cost 3.5 m. and more. 7 came.',
      ['It cost 3.5 m. and more.', '7 came.'],
    ),
    (
      'He said "no." (She left.) Good.',
      ['He said "no."', '(She left.)', 'Good.'],
    ),
    ('  no end here ', ['no end here']),
    ('Dr. No vs. Mr. Yes. Éa', ['Dr. No vs. Mr. Yes. Éa']),
    ('', []),
  ],
)
def test_split_sentences(text, expected):
  if expected is None:
    expected = ['He met J. R. Smith in the U.S. Senate.', 'Fine.']
  assert sentences.split_sentences(text) == expected


def test_retellings_of_one_sentence():
  for title, count in (('', 7), ('T', 1)):
    retold = sentences.retellings('One.', title=title, count=count, seed='s')
    assert retold == ['One.']
  with pytest.raises(ValueError, match='count must be at least 1'):
    sentences.retellings('One.', title='', count=0, seed='s')


def test_retellings_use_the_sentences_of_the_text():
  text = 'One is. Two is. Three is. Four is. Five is.'
  own = sentences.split_sentences(text)
  retold = sentences.retellings(text, title='T', count=23, seed='s')
  assert len(retold) == len(set(retold)) == 23
  orders = set()
  for telling in retold:
    parts = sentences.split_sentences(telling.removeprefix('T: '))
    assert set(parts) <= set(own)
    assert len(parts) == len(set(parts)) >= 3
    orders.add(tuple(own.index(part) for part in parts))
  assert any(len(order) < 5 for order in orders)
  rotations = {tuple(range(i, 5)) + tuple(range(i)) for i in range(5)}
  whole = {order for order in orders if len(order) == 5}
  assert whole & rotations - {(0, 1, 2, 3, 4)}
  assert whole - rotations


@pytest.mark.parametrize(
  'text',
  [' One is.  "Two!" \n Three', 'One.', '  ', '', 'Dr. No.\x1fYes. \u2003 No.'],
)
def test_between_the_spans_is_only_space(text):
  spans = sentences.sentence_spans(text)
  last = 0
  for start, end in spans:
    assert last <= start < end
    assert not text[last:start].strip()
    assert text[start:end] == text[start:end].strip()
    last = end
  assert not text[last:].strip()
  parts = [text[start:end] for start, end in spans]
  assert parts == sentences.split_sentences(text)
