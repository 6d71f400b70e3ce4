"""What an earlier start of a run measured is read back, or measured again."""

import math

import pytest

from smft_jax.runs import measurements
from smft_jax.runs import saved_run
from smft_jax.store import records as records_lib


def record(folder, documents=0, nll=0.1 + 0.2):
  measured = measurements.Measured(
    metrics={'target': {'recall': 1 / 3, 'nll': nll}},
    answers={'target': [' Lisbon', '']},
    document_recall={0: 0.5, 7: 1.0},
  )
  saved_run.record_answers(folder, measured)
  with records_lib.MetricsWriter(folder) as writer:
    writer.write('pretrain', step=1)
    writer.write(
      'evaluation',
      documents=documents,
      metrics=measured.metrics,
      document_recall=[*measured.document_recall.items()],
    )
  return measured


def test_measurements_come_back_to_the_last_bit(tmp_path):
  assert saved_run.measured_base(tmp_path) is None
  assert record(tmp_path) == saved_run.measured_base(tmp_path)


@pytest.mark.parametrize(
  'spoil',
  [
    lambda folder: (folder / 'outputs_before.json').unlink(),
    lambda folder: (folder / 'outputs_before.json').write_text('{"target": ['),
    lambda folder: (folder / 'metrics.jsonl').unlink(),
  ],
  ids=['no answers', 'half of the answers', 'no metrics'],
)
def test_what_is_not_whole_is_measured_again(tmp_path, spoil):
  record(tmp_path)
  spoil(tmp_path)
  assert saved_run.measured_base(tmp_path) is None


@pytest.mark.parametrize('more', [{'nll': math.nan}, {'documents': 3}])
def test_what_json_cannot_say_or_is_of_later_is_measured_again(tmp_path, more):
  record(tmp_path, **more)
  assert saved_run.measured_base(tmp_path) is None
