"""Mirrors metrics.jsonl in TensorBoard's event files, by tensorboardX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import importlib.util
import pathlib
import time
from typing import Any

from smft_jax import schema

# Keys of a record that are not measurements.
_NOT_PLOTTED = ('event', 'time', 'step', 'documents')


def check() -> None:
  """Raises a UserError unless tensorboardX is installed."""
  if importlib.util.find_spec('tensorboardX') is None:
    raise schema.UserError(
      'config.tensorboard needs tensorboardX: pip install'
      ' "smft_jax[tensorboard]"'
    )


class EventWriter:
  """Writes records as points of TensorBoard's plots.

  A plot is named after the event and the value: 'pretrain/loss',
  'evaluation/target/recall'. Its x axis is the step of pretraining, or the
  number of documents learned.

  Opening it replaces the event files of an earlier run by the records given, so
  that a resumed run repeats no point.
  """

  def __init__(
    self, workdir: pathlib.Path, records: Iterable[Mapping[str, Any]]
  ):
    """Opens WORKDIR/tensorboard.

    Args:
      workdir: The run's folder.
      records: The records of metrics.jsonl so far.
    """
    import tensorboardX  # an optional package

    folder = workdir / 'tensorboard'
    for file in folder.glob('events.out.tfevents.*'):
      file.unlink()
    # A new name and purge_step make a running TensorBoard drop old points.
    self._writer = tensorboardX.SummaryWriter(
      str(folder), purge_step=0, filename_suffix=f'.{time.time_ns()}'
    )
    for record in records:
      self.write(record)

  def write(self, record: Mapping[str, Any]) -> None:
    """Adds a point for each number of a record."""
    step = record.get('step', record.get('documents'))
    for name, value in _numbers(record):
      tag = f'{record["event"]}/{name}'
      self._writer.add_scalar(tag, value, step, walltime=record['time'])

  def close(self) -> None:
    """Writes what is left and closes the file."""
    self._writer.close()


def _numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
  """Yields the numbers of a record; those of its metrics as 'set/metric'."""
  for name, value in record.items():
    if name == 'metrics':
      for section, metrics in value.items():
        for metric, number in _numbers(metrics):
          yield f'{section}/{metric}', number
    elif isinstance(value, (int, float)) and name not in _NOT_PLOTTED:
      yield name, value
