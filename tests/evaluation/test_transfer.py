import pytest

from smft_jax.evaluation import transfer


def numbered(measured):
  """Recall of each document, with its index, but for those without."""
  return [
    (done, [(i, share) for i, share in enumerate(recall) if share is not None])
    for done, recall in measured
  ]


def test_matrix_of_groups_of_documents():
  measured = [
    (0, [0.1, 0.2, 0.3, 0.4, 0.5]),
    (2, [0.9, 0.7, 0.3, 0.4, 0.5]),
    (4, [0.5, 0.5, 1.0, 0.8, 0.6]),
    (5, [0.4, 0.4, 0.8, 0.8, 1.0]),
  ]
  matrix = transfer.accuracy_matrix(numbered(measured))
  for row, expected in zip(
    matrix,
    [[0.15, 0.35, 0.5], [0.8, 0.35, 0.5], [0.5, 0.9, 0.6], [0.4, 0.8, 1.0]],
    strict=True,
  ):
    assert row == pytest.approx(expected)
  found = transfer.measures(matrix)
  assert found == pytest.approx(
    {
      'backward_transfer': ((0.4 - 0.8) + (0.8 - 0.9)) / 2,
      # Of the second group before it is learned, and of the third.
      'forward_transfer': ((0.35 - 0.35) + (0.6 - 0.5)) / 2,
      'forgetting': ((0.8 - 0.4) + (0.9 - 0.8)) / 2,
      'retention_of_earlier': (0.4 + 0.8) / (0.8 + 0.9),
    }
  )


def test_forgetting_is_from_the_best_and_backward_transfer_from_the_first():
  matrix = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.9, 1.0, 0.0], [0.6, 1.0, 1.0]]
  found = transfer.measures(matrix)
  assert found['backward_transfer'] == pytest.approx(0.05)
  assert found['forgetting'] == pytest.approx(0.15)
  assert found['retention_of_earlier'] == pytest.approx(1.6 / 1.5)


def test_documents_without_questions_are_passed_over():
  measured = [
    (0, [None, None, 0.0, 0.2]),
    (2, [None, None, 0.0, 0.2]),
    (3, [None, None, 1.0, 0.2]),
    (4, [None, None, 0.5, 1.0]),
  ]
  matrix = transfer.accuracy_matrix(numbered(measured))
  assert [row[0] for row in matrix] == [None] * 4
  assert transfer.measures(matrix) == pytest.approx(
    {
      'backward_transfer': -0.5,
      'forward_transfer': 0.0,
      'forgetting': 0.5,
      'retention_of_earlier': 0.5,
    }
  )


@pytest.mark.parametrize(
  'matrix', [[[]], [[0.1], [0.9]], [[None, None]] * 3, []]
)
def test_one_group_or_none_has_no_transfer(matrix):
  assert set(transfer.measures(matrix).values()) == {None}


def test_nothing_learned_has_no_retention():
  found = transfer.measures([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
  assert found['retention_of_earlier'] is None
  assert found['forgetting'] == 0
