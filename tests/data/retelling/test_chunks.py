"""Pieces of documents, and which of them a question is about."""

import itertools

import pytest

from smft_jax.data.retelling import chunks as chunks_lib


def _pieces(text, max_chars):
  spans = chunks_lib.chunks(text, max_chars)
  return [text[start:end] for start, end in spans]


def _check(text, max_chars):
  spans = chunks_lib.chunks(text, max_chars)
  last = 0
  for start, end in spans:
    assert last <= start < end <= start + max_chars
    assert not text[last:start].strip()
    assert text[start:end] == text[start:end].strip()
    last = end
  assert not text[last:].strip()
  # Nothing is cut that could have stayed with its neighbour.
  for (start, _), (_, end) in itertools.pairwise(spans):
    assert end - start > max_chars
  return spans


@pytest.mark.parametrize(
  ('text', 'max_chars', 'expected'),
  [
    ('One is.\n\nTwo is.', 16, ['One is.\n\nTwo is.']),
    ('One is.\n\nTwo is.', 15, ['One is.', 'Two is.']),
    ('One is. Two is.\nSo it is.', 15, ['One is. Two is.', 'So it is.']),
    # A blank line may hold spaces, and lines may end as on Windows.
    ('One is.\r\n \r\nTwo is.', 9, ['One is.', 'Two is.']),
    # A long paragraph begins a piece, though its first sentence would fit.
    (
      'Hey.\n\nOne is. Two is. Three is.',
      17,
      ['Hey.', 'One is. Two is.', 'Three is.'],
    ),
    ('a long sentence of words', 10, ['a long', 'sentence', 'of words']),
    ('abcdefg hi', 3, ['abc', 'def', 'g', 'hi']),
    ('  \n\n a \n\n ', 5, ['a']),
    (' \n ', 5, []),
    ('', 5, []),
  ],
)
def test_chunks(text, max_chars, expected):
  assert _pieces(text, max_chars) == expected


@pytest.mark.parametrize('max_chars', [1, 2, 7, 23, 101, 997])
def test_all_of_a_text_is_in_its_chunks(max_chars):
  text = '\n\n'.join(
    ' '.join(f'Sentence {"very " * (i * j % 7)}{i}.{j} is.' for j in range(i))
    for i in range(11)
  )
  spans = _check(text, max_chars)
  assert ''.join(''.join(text[s:e].split()) for s, e in spans) == ''.join(
    text.split()
  )


def test_chunks_of_real_pages(real_task):
  def article(document):
    return document.id.split('/')[0]

  for _, page in itertools.groupby(real_task.documents, key=article):
    paragraphs = [document.texts[0].text for document in page]
    text = '\n\n'.join(paragraphs)
    for max_chars in (53, 499, 2003):
      _check(text, max_chars)
    # With room for any paragraph none is cut.
    longest = max(len(paragraph.strip()) for paragraph in paragraphs)
    whole = '\0'.join(_pieces(text, longest))
    assert all(paragraph.strip() in whole for paragraph in paragraphs)


@pytest.mark.parametrize(
  ('answers', 'expected'),
  [
    (['PARIS'], 1),
    (['nowhere', 'new york'], 2),  # a line break in the text
    (['york', 'paris'], 1),  # the first chunk, not the first answer
    (['1889'], 3),  # not in 18890
    (['aris'], 1),  # unless nothing else has it
    (['(really)'], 3),
    (['', ' '], 0),
    ([], 0),
    (['nowhere'], 0),
  ],
)
def test_chunk_of(answers, expected):
  text = (
    'Number 18890 is.\n\nAll of Paris is.\n\nSo is New\nYork.\n\n'
    'And 1889 (really).'
  )
  spans = chunks_lib.chunks(text, 18)
  assert len(spans) == 4
  assert chunks_lib.chunk_of(spans, text, answers) == expected


def test_no_chunks():
  assert chunks_lib.chunk_of([], '', ['a']) == 0
  with pytest.raises(ValueError, match='max_chars must be at least 1, not 0'):
    chunks_lib.chunks('a', 0)
